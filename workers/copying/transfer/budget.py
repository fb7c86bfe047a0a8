"""
Keep a job within its budget while it runs: real bytes, objects and money, whatever sizes the manifests state.

*before*: an object whose stated size exceeds the rest of the budget is not started.
*during*: each piece that is read counts. When the budget ends inside an object, that object is aborted. A job can
exceed its budget only by the pieces in flight, and by what other workers read between two reports (`REPORT_BYTES`,
`REPORT_S`).
*after*: for an object that failed only the bytes beyond its stated size stay counted, so that a retry fits.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final

from redis.exceptions import RedisError

from snapferry.stores.stream_store import StreamStore
from snapferry.stores.text.format import counted, size
from snapferry.workers.ledger import Ledger, Spent
from snapferry.workers.messages import BatchMessage, Budget, Price

from .interfaces import JobStopped

REPORT_BYTES: Final = 8 * 1024 * 1024
REPORT_S: Final = 1.0

MILLIONTHS: Final = 1_000_000

# Operators set the prices, and may set absurd ones.
MAX_COST: Final = 2**53

# The fields of a job's record that hold the totals, one for each kind of limit.
BYTES: Final = "spent_bytes"
OBJECTS: Final = "spent_objects"
COST: Final = "spent_cost"


class OverBudget(BaseException):
    """
    The job's budget is spent; the message names the limit. No further object starts.

    Not an `Exception`: it may be raised while a store reads, and no handler on the way may take it for an error of
    the store.
    """


_meter: ContextVar[BudgetMeter | None] = ContextVar("budget_meter", default=None)


def current_meter() -> BudgetMeter | None:
    """Return the budget meter of the batch that runs in this context, None if its job has no budget."""
    return _meter.get()


@contextmanager
def within_budget(
    ledger: Ledger, batch: BatchMessage, source: StreamStore, destination: StreamStore
) -> Iterator[None]:
    """
    Count what the block spends, if the job of *batch* has a budget. Both stores must be newly opened.

    Raises `JobStopped` if the budget was spent before this batch copied anything.
    """
    budget = ledger.budget(batch.job_id)
    if budget is None:
        yield
        return

    meter = BudgetMeter(ledger, batch, budget, costs(batch, budget, source, destination))
    if meter.spent_before_start:
        ledger.forget_spending(batch)
        raise JobStopped
    token = _meter.set(meter)
    try:
        yield
    except BaseException:
        with suppress(RedisError):
            meter.report()
        raise
    else:
        meter.report()
    finally:
        _meter.reset(token)


class BudgetMeter:
    """Counts what one run of a batch spends. Safe to share between threads."""

    def __init__(
        self, ledger: Ledger, batch: BatchMessage, budget: Budget, cost: Callable[[int], float]
    ) -> None:
        self._ledger = ledger
        self._batch = batch
        self._budget = budget
        self._cost = cost if budget.max_cost is not None else lambda _: 0.0
        self._lock = threading.Lock()
        self._reporting = threading.Lock()
        self._copied_bytes = self._copied_objects = self._in_flight = self._read = 0
        self._unreported = self._flights = 0
        self._due = 0.0
        self._over = ""
        self._before = self._known = self._reported = Spent("", 0, 0, 0)
        # Keep what earlier runs of this batch copied, and drop what they had in flight.
        self._report()
        self._before = self._known

    @property
    def spent_before_start(self) -> bool:
        """Whether the budget was spent before any run of this batch copied an object."""
        return bool(self._over) and not self._before.copied_objects

    def begin(self, stated: int) -> ObjectMeter:
        """Start an object whose manifest states *stated* bytes. Raises `OverBudget`."""
        self._check(stated, 1)
        with self._lock:
            over = self._over
            self._flights += not over
        if over:
            raise OverBudget(over_budget_reason(self._budget, self._known))
        return ObjectMeter(self, stated)

    def read(self, flight: ObjectMeter, size_bytes: int) -> None:
        """Count bytes that were read for *flight*. Raises `OverBudget`."""
        with self._lock:
            flight.bytes += size_bytes
            self._in_flight += size_bytes
            self._read += size_bytes
            self._unreported += size_bytes
            due = self._unreported >= REPORT_BYTES or time.monotonic() >= self._due
        if due and self._reporting.acquire(blocking=False):
            try:
                self._report()
            finally:
                self._reporting.release()
        self._check(0, 0)
        # An object that started within the limit of objects is copied to its end.
        if self._over not in {"", OBJECTS}:
            raise OverBudget(over_budget_reason(self._budget, self._known))

    def end(self, flight: ObjectMeter, *, copied: bool) -> None:
        """Record the end of *flight*. If it failed, only its bytes beyond the stated size stay counted."""
        with self._lock:
            self._flights -= 1
            self._in_flight -= flight.bytes
            self._copied_objects += copied
            self._copied_bytes += flight.bytes if copied else max(0, flight.bytes - flight.stated)

    def report(self) -> None:
        """Report to the ledger, and learn what other workers spent. May be repeated."""
        with self._reporting:
            self._report()

    def _check(self, stated: int, objects: int) -> None:
        """Record that the job is over its budget if another object, or what was read so far, exceeds it."""
        if self._over or not self._exceeded(stated, objects):
            return
        with self._reporting:
            # Objects of other workers may have failed since, which frees a part of the budget.
            self._report()
            # `_report` may have set it.
            if not self._over and (over := self._exceeded(stated, objects)):  # type: ignore[redundant-expr]
                self._report(over)

    def _report(self, over: str = "") -> None:
        before = self._before
        with self._lock:
            own = self._own()
            in_flight = self._in_flight
            self._unreported = 0
            self._due = time.monotonic() + REPORT_S
        spent = self._ledger.spend(
            self._batch,
            self._budget,
            copied_bytes=before.copied_bytes + own.size_bytes - in_flight,
            in_flight=in_flight,
            objects=before.copied_objects + own.objects,
            cost=before.batch_cost + own.cost,
            over=over,
        )
        with self._lock:
            self._known, self._reported = spent, own
            self._over = spent.over

    def _own(self) -> Spent:
        """Return what this run has spent."""
        cost = round(min(MILLIONTHS * self._cost(self._read), MAX_COST))
        return Spent("", self._copied_bytes + self._in_flight, self._copied_objects, cost)

    def _exceeded(self, stated: int, objects: int) -> str:
        """Return the limit that *stated* more bytes and *objects* more objects exceed, "" if there is none."""
        with self._lock:
            budget, known, reported, own = self._budget, self._known, self._reported, self._own()
            flights = self._flights
        size_bytes = known.size_bytes + own.size_bytes - reported.size_bytes + stated
        if budget.max_bytes is not None and size_bytes > budget.max_bytes:
            return BYTES
        cost = known.cost + own.cost - reported.cost
        if budget.max_cost is not None and cost > MILLIONTHS * budget.max_cost:
            return COST
        copied = known.objects + own.objects - reported.objects + flights
        if objects and budget.max_objects is not None and copied + objects > budget.max_objects:
            return OBJECTS
        return ""


class ObjectMeter:
    """Counts one object in flight: the bytes that its manifest *stated*, and the *bytes* that were read."""

    def __init__(self, meter: BudgetMeter, stated: int) -> None:
        self._meter = meter
        self.stated = stated
        self.bytes = 0

    def read(self, size_bytes: int) -> None:
        """Count bytes that were read. Raises `OverBudget`."""
        self._meter.read(self, size_bytes)

    def end(self, *, copied: bool) -> None:
        """Record the end of the object. To be called once."""
        self._meter.end(self, copied=copied)


def over_budget_reason(budget: Budget, spent: Spent) -> str:
    """Return why a job stops that has *spent* its budget."""
    if spent.over == OBJECTS:
        copied = counted(spent.objects, "object")
        why = f"{copied} copied, and the next would exceed --max-objects {budget.max_objects:,}"
    elif spent.over == COST:
        limit = f"{budget.max_cost:g} {budget.currency}".rstrip()
        why = f"{spent.cost / MILLIONTHS:.4f} spent, which exceeds --max-cost {limit}"
    else:
        why = (
            f"{size(spent.size_bytes)} read, and the next bytes would exceed --max-bytes {budget.max_bytes:,};"
            " objects are larger than the manifests state"
        )
    return f"over budget: {why}"


def costs(
    batch: BatchMessage, budget: Budget, source: StreamStore, destination: StreamStore
) -> Callable[[int], float]:
    """Return a function: bytes read -> what they cost, and all requests that the stores of *batch* have sent so far."""

    def cost(size_bytes: int) -> float:
        source_url, destination_url = (
            side.objects_url or side.url for side in (batch.source, batch.destination)
        )
        read = cost_of(budget.prices, source_url, source.accounting.sent(), size_bytes)
        return read + cost_of(budget.prices, destination_url, destination.accounting.sent(), 0)

    return cost


def cost_of(prices: tuple[Price, ...], url: str, requests: Counter[str], bytes_read: int) -> float:
    """Return the cost of requests to a store, by the price with the longest matching prefix of its URL."""
    matching = [price for price in prices if url.startswith(price.store)]
    if not matching:
        return 0.0
    price = max(matching, key=lambda price: len(price.store))
    requests_cost = sum(price.requests.get(name, 0.0) * count / 1000 for name, count in requests.items())
    return requests_cost + price.egress * bytes_read / 1e9
