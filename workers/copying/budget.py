"""
Keep a job within its budget while it runs: real bytes, objects and money, whatever the manifests said.

*before*: an object that announces more than what is left is not begun.
*meanwhile*: each piece that is read counts. The object with which the budget ends is broken off. Beyond the budget
are at most the pieces in flight and what other workers read between two reports (`REPORT_BYTES`, `REPORT_S`).
*afterwards*: an object that did not get through gives back what it had announced, so that trying again is no excess.
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
from snapferry.stores.text.format import size
from snapferry.workers.ledger import Ledger, Spent
from snapferry.workers.messages import BatchMessage, Budget, Price

REPORT_BYTES: Final = 8 * 1024 * 1024
REPORT_S: Final = 1.0

MILLIONTHS: Final = 1_000_000

# Prices are the operator's own, and may be absurd.
LARGEST_COST: Final = 2**53

# What there can be no more budget of: the fields of a job's record that have the totals.
BYTES: Final = "spent_bytes"
OBJECTS: Final = "spent_objects"
COST: Final = "spent_cost"


class OverBudget(BaseException):
    """
    The job's budget is spent; the message says by what. No further object is begun.

    No `Exception`: it may be raised while a store reads, and nothing on its way may take it for trouble of the store.
    """


_spending: ContextVar[Spending | None] = ContextVar("spending", default=None)


def spending() -> Spending | None:
    """Return what counts the spending of the batch that runs in this context, None where there is no budget."""
    return _spending.get()


@contextmanager
def within_budget(
    ledger: Ledger, batch: BatchMessage, source: StreamStore, destination: StreamStore
) -> Iterator[None]:
    """
    Count what the block spends, if the job of *batch* has a budget. Both stores are newly opened.

    Raises `Cancelled` for a batch that has not begun to copy when the budget is spent.
    """
    from .transfer import Cancelled

    budget = ledger.budget(batch.job_id)
    if budget is None:
        yield
        return

    def cost(size_bytes: int) -> float:
        sender, taker = (side.objects_url or side.url for side in (batch.source, batch.destination))
        read = cost_of(budget.prices, sender, source.accounting.sent(), size_bytes)
        return read + cost_of(budget.prices, taker, destination.accounting.sent(), 0)

    found = Spending(ledger, batch, budget, cost)
    if found.is_late:
        ledger.forget_spending(batch)
        raise Cancelled
    token = _spending.set(found)
    try:
        yield
    except BaseException:
        with suppress(RedisError):
            found.report()
        raise
    else:
        found.report()
    finally:
        _spending.reset(token)


class Spending:
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
        # What an earlier run of this batch had copied; what it had in flight is in flight no more.
        self._report()
        self._before = self._known

    @property
    def is_late(self) -> bool:
        """Say whether the budget was spent before any run of this batch had copied something."""
        return bool(self._over) and not self._before.copied_objects

    def begin(self, announced: int) -> Flight:
        """Begin an object of *announced* bytes. Raises `OverBudget`."""
        self._check(announced, 1)
        with self._lock:
            over = self._over
            self._flights += not over
        if over:
            raise OverBudget(over_words(self._budget, self._known))
        return Flight(self, announced)

    def read(self, flight: Flight, size_bytes: int) -> None:
        """Count bytes that *flight* has read. Raises `OverBudget`."""
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
        # What was begun as one of so many objects is copied to its end.
        if self._over not in {"", OBJECTS}:
            raise OverBudget(over_words(self._budget, self._known))

    def ended(self, flight: Flight, *, copied: bool) -> None:
        """Note the end of *flight*: what it read is spent, or given back but for what it had not announced."""
        with self._lock:
            self._flights -= 1
            self._in_flight -= flight.bytes
            self._copied_objects += copied
            self._copied_bytes += flight.bytes if copied else max(0, flight.bytes - flight.announced)

    def report(self) -> None:
        """Tell the ledger, and learn what others spent. May be called again."""
        with self._reporting:
            self._report()

    def _check(self, announced: int, objects: int) -> None:
        """Note that the job is over its budget if one more object, or what was read, is beyond it."""
        if self._over or not self._beyond(announced, objects):
            return
        with self._reporting:
            # What others have given back meanwhile is known only now.
            self._report()
            if not self._over and (over := self._beyond(announced, objects)):  # type: ignore[redundant-expr]
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
        cost = round(min(MILLIONTHS * self._cost(self._read), LARGEST_COST))
        return Spent("", self._copied_bytes + self._in_flight, self._copied_objects, cost)

    def _beyond(self, announced: int, objects: int) -> str:
        """Return what there is not enough budget of, as far as this worker knows, "" if there is."""
        with self._lock:
            budget, known, reported, own = self._budget, self._known, self._reported, self._own()
            flights = self._flights
        size_bytes = known.size_bytes + own.size_bytes - reported.size_bytes + announced
        if budget.max_bytes is not None and size_bytes > budget.max_bytes:
            return BYTES
        cost = known.cost + own.cost - reported.cost
        if budget.max_cost is not None and cost > MILLIONTHS * budget.max_cost:
            return COST
        copied = known.objects + own.objects - reported.objects + flights
        if objects and budget.max_objects is not None and copied + objects > budget.max_objects:
            return OBJECTS
        return ""


class Flight:
    """An object on its way: how many bytes it *announced*, and how many *bytes* of it were read."""

    def __init__(self, spending: Spending, announced: int) -> None:
        self._spending = spending
        self.announced = announced
        self.bytes = 0

    def read(self, size_bytes: int) -> None:
        """Count bytes that were read. Raises `OverBudget`."""
        self._spending.read(self, size_bytes)

    def ended(self, *, copied: bool) -> None:
        """Note the end. To be called once."""
        self._spending.ended(self, copied=copied)


def over_words(budget: Budget, spent: Spent) -> str:
    """Return why a job stops that has *spent* its budget."""
    if spent.over == OBJECTS:
        why = f"{spent.objects:,} objects copied, and the next would be beyond --max-objects {budget.max_objects:,}"
    elif spent.over == COST:
        limit = f"{budget.max_cost:g} {budget.currency}".rstrip()
        why = f"{spent.cost / MILLIONTHS:.4f} spent, beyond --max-cost {limit}"
    else:
        why = (
            f"{size(spent.size_bytes)} read, and the next bytes would be beyond --max-bytes {budget.max_bytes:,};"
            " objects are larger than the manifests say"
        )
    return f"over budget: {why}"


def cost_of(prices: tuple[Price, ...], url: str, requests: Counter[str], bytes_read: int) -> float:
    """Return what requests to a store cost, by the price with the longest beginning of its URL."""
    fitting = [price for price in prices if url.startswith(price.store)]
    if not fitting:
        return 0.0
    price = max(fitting, key=lambda price: len(price.store))
    sent = sum(price.requests.get(name, 0.0) * count / 1000 for name, count in requests.items())
    return sent + price.egress * bytes_read / 1e9
