"""
What a running batch reports to the ledger, and how it learns that its job was cancelled, has ended, or was paused.

*stopped*: the job wants no more of the batch. Whatever runs or waits is interrupted at its next checkpoint.
*held*: the job is paused. No further object begins; those in flight have `HOLD_GRACE_S` and are then interrupted.
*stuck*: a call into the kernel, such as a read from an NFS server that is gone, cannot be interrupted. After
`STUCK_S` more the batch is let go: its lease ends, so that the job need not wait for it; and the process is
killed, if it is one of a pool, so that it can run other batches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.address import Address
from snapferry.workers.ledger import Directive, Ledger
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.lifecycle.heartbeat import Heartbeat
from snapferry.workers.messages import BatchMessage
from snapferry.workers.reachability.batch import BatchReach
from snapferry.workers.reachability.outage import StoreTrouble
from snapferry.workers.reachability.records import ReachBook, sides_of

from .transfer import Cancelled, Flights, GivenBack, Held

log = logging.getLogger(__name__)

# How often a running batch reports when it moves, and when it does not.
REPORT_EVERY_S: float = 0.25
HEARTBEAT_S: float = 5.0

# A batch in which nothing has moved for so long makes sure that its stores still answer.
SILENT_S: float = 15.0

# Objects in flight may end for so long after a pause was seen.
HOLD_GRACE_S: float = 15.0

# A batch that should have stopped so long ago does not hear.
STUCK_S: float = 12.0


class BatchReport:
    """
    Tells the ledger how a batch gets on, and stops or holds the batch when its job wants that.

    While the batch moves it reports every `REPORT_EVERY_S`, otherwise by a heartbeat: one object may take hours.
    *let_go* is called once, from a thread, for a batch that is stuck.
    """

    def __init__(
        self,
        batch: BatchMessage,
        ledger: Ledger,
        holder: str,
        reach: BatchReach,
        let_go: Callable[[Directive], None],
        access: AccessPolicy = STRICT,
    ) -> None:
        self._batch = batch
        self._ledger = ledger
        self._holder = holder
        self._let_go: Callable[[Directive], None] | None = let_go
        self._lock = threading.Lock()
        self._objects = 0
        self._bytes = 0
        self._in_flight = 0
        self._due = time.monotonic() + REPORT_EVERY_S
        self._wish = Directive.CONTINUE
        self._wished_at = 0.0
        self._moved_at = time.monotonic()
        self._reach: BatchReach | None = reach
        worker = holder.partition("@")[2]
        self.trouble = StoreTrouble(
            ReachBook(ledger.client), worker, sides_of(batch), len(batch.sizes), access
        )
        self._heart = Heartbeat(self._beat, HEARTBEAT_S)

    def __enter__(self) -> Self:
        self._heart.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._heart.__exit__(*raised)

    def begin(self, needed: list[Address]) -> None:
        """Note which objects are to be copied."""
        if shutdown.due():
            raise GivenBack
        self._ledger.note_missing(self._batch, needed)

    def advance(self, objects: int, size_bytes: int) -> None:
        """Count objects and bytes as dealt with. Raises as `check` does."""
        with self._lock:
            self._objects += objects
            self._bytes += size_bytes
            now = time.monotonic()
            due = now >= self._due
            if due:
                self._due = now + REPORT_EVERY_S
            if objects or size_bytes:
                self._moved_at = now
        if due:
            self._tell()
        self.check()

    def check(self) -> None:
        """
        Return if the batch may go on. Asks nobody, so it costs next to nothing.

        Raises `Cancelled`, `GivenBack`, `Unreachable` where a store is away, or, some time after a pause, `Held`.
        """
        if self._wish is not Directive.CONTINUE:
            if self._wish is Directive.STOP:
                raise Cancelled
            if time.monotonic() - self._wished_at > HOLD_GRACE_S:
                raise Held
        if shutdown.due():
            raise GivenBack
        self.trouble.stop()

    def begin_object(self) -> None:
        """Count an object as in flight. Raises as `check` does, but `Held` as soon as the job is known to be paused."""
        if self._wish is Directive.HOLD:
            raise Held
        self.check()
        with self._lock:
            self._in_flight += 1

    def end_object(self) -> None:
        """Count an object as in flight no longer."""
        with self._lock:
            self._in_flight -= 1

    def _tell(self) -> None:
        with self._lock:
            objects, size_bytes, in_flight = self._objects, self._bytes, self._in_flight
        wish = self._ledger.progress(
            self._batch, self._holder, objects=objects, size_bytes=size_bytes, in_flight=in_flight
        )
        # A stop is final. A pause may end before anything was held.
        if self._wish is not Directive.STOP and wish is not self._wish:
            self._wished_at = time.monotonic()
            self._wish = wish

    def _beat(self) -> None:
        try:
            if time.monotonic() - self._moved_at > SILENT_S:
                self.trouble.look()
            if self._reach is not None and self.trouble.found is not None:
                # The batch may hang for a while yet. The fleet and its operator are told now.
                self._reach.note(self.trouble.found)
                self._reach.park()
                self._reach = None
            self._tell()
            self._let_go_if_stuck()
        except RedisError as error:
            log.warning("cannot report on the batch: %s", error)

    def _let_go_if_stuck(self) -> None:
        if self._wish is Directive.CONTINUE or self._let_go is None:
            return
        patience = STUCK_S + (HOLD_GRACE_S if self._wish is Directive.HOLD else 0.0)
        if time.monotonic() - self._wished_at > patience:
            self._let_go(self._wish)
            self._let_go = None


class Reported(AbstractContextManager[Any]):
    """Entered for each object: counts the objects in flight, and lets none begin while the job is paused."""

    def __init__(self, flights: Flights, report: BatchReport) -> None:
        self._flights = flights
        self._report = report

    def expect(self, flights: int) -> None:
        """Pass it on."""
        self._flights.expect(flights)

    def __enter__(self) -> None:
        # First the limits, which may take any time: what waits for them is not in flight.
        self._flights.__enter__()
        try:
            self._report.begin_object()
        except BaseException:
            self._flights.__exit__(None, None, None)
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._report.end_object()
        self._flights.__exit__(kind, error, trace)
