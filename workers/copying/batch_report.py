"""
What a running batch reports to the ledger, and how it learns that its job was cancelled, has ended, or was paused.

*stopped*: the job does not want the batch any more. Running calls and waits are interrupted at their next checkpoint.
*paused*: no further object starts. Objects in flight have `PAUSE_GRACE_S` to finish, then they are interrupted.
*stuck*: a system call, such as a read from a dead NFS server, cannot be interrupted. After another `STUCK_S` the batch
is abandoned: its lease ends, so that the job does not wait for it, and a process of a pool is killed, so that a new
process can run other batches.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Self

from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.address import Address
from snapferry.workers.ledger import Directive, Ledger
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.lifecycle.heartbeat import Heartbeat
from snapferry.workers.limits import Semaphore
from snapferry.workers.messages import BatchMessage
from snapferry.workers.reachability.batch import BatchReachability
from snapferry.workers.reachability.outage import StoreWatch
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.reachability.sides import sides_of
from snapferry.workers.reachability.store_check import missing_store
from snapferry.workers.reachability.store_problems import StoreProblems
from snapferry.workers.telemetry.traffic.batch import BatchTraffic

from .transfer import JobPaused, JobStopped, WorkerStopping

log = logging.getLogger(__name__)

# Time between two reports of a batch: while it makes progress, and while it makes none.
REPORT_EVERY_S: float = 0.25
HEARTBEAT_S: float = 5.0

# A batch without progress for this long checks whether its stores still answer.
SILENT_S: float = 15.0

# Time for objects in flight to finish after a pause was noticed.
PAUSE_GRACE_S: float = 15.0

# A worker that shuts down requeues a batch of a single object early, if the object needs this many times
# as long as there is left. The speed is known after so many seconds.
HOPELESS: float = 1.3
SPEED_KNOWN_S: float = 3.0

# A batch that still runs this long after it should have stopped is stuck.
STUCK_S: float = 12.0


class BatchReport:
    """
    Reports the progress of a batch to the ledger, and stops the batch when its job stops or pauses.

    A batch that makes progress reports every `REPORT_EVERY_S`; otherwise a heartbeat reports, because one object may
    take hours. *abandon* is called once, from a thread, for a batch that is stuck. *submitted* is that of
    `snapferry.workers.ledger.Begun`. *semaphore* counts the objects in flight, as soon as there is one.
    """

    def __init__(
        self,
        batch: BatchMessage,
        ledger: Ledger,
        holder: str,
        reachability: BatchReachability,
        abandon: Callable[[Directive], None],
        access: AccessPolicy = STRICT,
        *,
        submitted: str = "",
    ) -> None:
        self._batch = batch
        self._submitted = submitted
        self._ledger = ledger
        self._holder = holder
        self._abandon: Callable[[Directive], None] | None = abandon
        self._lock = threading.Lock()
        self._objects = 0
        self._bytes = 0
        self._bytes_moved = 0
        self._bytes_hashed = 0
        self.semaphore: Semaphore | None = None
        self._due = time.monotonic() + REPORT_EVERY_S
        self._directive = Directive.CONTINUE
        self._directed_at = 0.0
        # Of several objects, those that are copied stay when the worker shuts down.
        self._single = len(batch.sizes) == 1
        self._began = self._moved_at = time.monotonic()
        self._reachability: BatchReachability | None = reachability
        worker = holder.partition("@")[2]
        self.stores = StoreWatch(
            StoreProblems(ledger.client),
            worker,
            sides_of(batch),
            len(batch.sizes),
            access,
            lambda side: missing_store(ParkedJobs(ledger.client), batch.job_id, side, access),
        )
        self._traffic = BatchTraffic(ledger.client, batch, worker)
        self._heartbeat = Heartbeat(self._beat, HEARTBEAT_S)

    def __enter__(self) -> Self:
        self._heartbeat.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        try:
            self._traffic.report(self._bytes_moved)
        finally:
            self._heartbeat.__exit__(*raised)
            # The semaphore refers to this report.
            self.semaphore = None

    def begin(self, needed: list[Address]) -> None:
        """Record the addresses to copy. Raises `WorkerStopping`."""
        if shutdown.must_requeue():
            raise WorkerStopping
        self._ledger.note_missing(self._batch, needed, submitted=self._submitted)

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        """
        Count objects and planned bytes as settled, and bytes as moved.

        Raises as `check` does, `REPORT_EVERY_S` after it would at the latest: `check_start` checks before every object.
        """
        with self._lock:
            self._objects += objects
            self._bytes += size_bytes
            self._bytes_moved += moved
            now = time.monotonic()
            due = now >= self._due
            if due:
                self._due = now + REPORT_EVERY_S
            if objects or size_bytes or moved:
                self._moved_at = now
        if due:
            self._report()
            self.check()

    def hashed(self, size_bytes: int) -> None:
        """Count bytes that were read for a checksum."""
        with self._lock:
            self._bytes_hashed += size_bytes

    def check(self) -> None:
        """
        Return if the batch may continue. Sends no request, so it costs next to nothing.

        Raises `JobStopped`, `WorkerStopping`, `Unreachable` if a store is away, and, `PAUSE_GRACE_S` after a pause,
        `JobPaused`.
        """
        if self._directive is not Directive.CONTINUE:
            if self._directive is Directive.STOP:
                raise JobStopped
            if time.monotonic() - self._directed_at > PAUSE_GRACE_S:
                raise JobPaused
        if shutdown.must_requeue() or (self._single and self._is_hopeless()):
            raise WorkerStopping
        self.stores.raise_if_unreachable()

    def _is_hopeless(self) -> bool:
        """
        Return whether this worker shuts down before the single object of the batch can be copied.

        Each byte that is copied until then is copied once more.
        """
        if (left_s := shutdown.requeues_in_s()) is None:
            return False
        elapsed_s = time.monotonic() - self._began
        if elapsed_s < SPEED_KNOWN_S or self._bytes <= 0:
            return False
        needs_s = (self._batch.sizes[0] - self._bytes) * elapsed_s / self._bytes
        return needs_s > HOPELESS * left_s

    def check_start(self) -> None:
        """Return if an object may start. Raises as `check` does, but `JobPaused` without a grace period."""
        if self._directive is Directive.HOLD:
            raise JobPaused
        self.check()

    def _report(self) -> None:
        semaphore = self.semaphore
        with self._lock:
            objects, size_bytes = self._objects, self._bytes
            moved, hashed = self._bytes_moved, self._bytes_hashed
        directive = self._ledger.progress(
            self._batch,
            self._holder,
            objects=objects,
            size_bytes=size_bytes,
            in_flight=semaphore.in_flight if semaphore is not None else 0,
            moved=moved,
            hashed=hashed,
            submitted=self._submitted,
        )
        # A stop is final. A pause may end before the batch stopped for it.
        if self._directive is not Directive.STOP and directive is not self._directive:
            self._directed_at = time.monotonic()
            self._directive = directive

    def _beat(self) -> None:
        try:
            if time.monotonic() - self._moved_at > SILENT_S:
                self.stores.check_in_background()
            if self._reachability is not None and self.stores.unreachable is not None:
                # The batch may hang for a while. Record the outage now, for the fleet and its operator.
                self._reachability.record(self.stores.unreachable)
                self._reachability.park()
                self._reachability = None
            self._report()
            self._abandon_if_stuck()
            self._traffic.report(self._bytes_moved)
        except RedisError as error:
            log.warning("cannot report on the batch: %s", error)

    def _abandon_if_stuck(self) -> None:
        if self._directive is Directive.CONTINUE or self._abandon is None:
            return
        patience_s = STUCK_S + (PAUSE_GRACE_S if self._directive is Directive.HOLD else 0.0)
        if time.monotonic() - self._directed_at > patience_s:
            self._abandon(self._directive)
            self._abandon = None
