"""
What a worker does with a message that asks it to join the copy of an object.

The message is no part of the job's plan, and nothing waits for it. One that comes late, twice, or from a stranger does
nothing: there is no note about such a copy at the destination, or all of its parts are claimed. If the job has ended,
what is left of the copy is removed.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from celery import Task
from redis.exceptions import RedisError

from snapferry.stores import treehash
from snapferry.stores.access import AccessPolicy
from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError
from snapferry.stores.pools.in_parts import PartsCopy, can_copy_in_parts, drop_parts
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.batch_report import PAUSE_GRACE_S, STUCK_S
from snapferry.workers.copying.transfer.interfaces import BatchStopped, JobPaused, JobStopped, WorkerStopping
from snapferry.workers.job_state import State
from snapferry.workers.ledger import Directive, Ledger, PartsOf, UnknownJob
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.lifecycle.heartbeat import Heartbeat
from snapferry.workers.limits import LimitStore, Throttle
from snapferry.workers.messages import Action, BatchMessage
from snapferry.workers.reachability.sides import sides_of
from snapferry.workers.reachability.store_check import open_side
from snapferry.workers.telemetry.logs import about, fields
from snapferry.workers.telemetry.metrics import counters

from . import sizes
from .claims import Claims
from .spending import JoinedSpending
from .threads import PartThreads

log = logging.getLogger(__name__)

NOTHING = "nothing to join"
WATCH_S = 1.0


def join_copy(
    task: Task[..., Any], message: BatchMessage, ledger: Ledger, access: AccessPolicy, stay_s: float
) -> str:
    """
    Copy parts of the object of *message* until none is left to claim; return what was done, in words.

    No part begins after *stay_s* seconds: other jobs get their turn. The worker that has the batch asks again.
    """
    with about(job=message.job_id, task=getattr(task.request, "id", None)):
        shutdown.defer_sigterm()
        try:
            return _join(task, message, ledger, access, stay_s)
        except BatchStopped as stopped:
            return f"stopped: {type(stopped).__name__}"
        except (StoreError, RedisError) as error:
            # The worker that has the batch gets the same error, and decides.
            log.info("no parts copied: %s", error, extra=fields(error=type(error).__name__))
            return f"{NOTHING}: {type(error).__name__}"
        except Exception as error:
            log.exception("uncaught exception while parts were copied")
            return f"{NOTHING}: {type(error).__name__}"


def _join(
    task: Task[..., Any], message: BatchMessage, ledger: Ledger, access: AccessPolicy, stay_s: float
) -> str:
    addresses = list(message.objects())
    if len(addresses) != 1 or message.action is not Action.COPY or message.lines:
        return NOTHING
    if _has_ended(ledger, message.job_id):
        return _clean_up(message, addresses[0], ledger, access)
    if (getattr(task.request, "delivery_info", None) or {}).get("redelivered"):
        # The worker that took this message died, perhaps because of the object.
        return NOTHING
    fast = treehash.is_fast() or sizes.ANY_SPEED
    stops = shutdown.requeues_in_s() is not None or shutdown.must_requeue()
    if not fast or stops:
        return NOTHING
    watch = _Watch(ledger, message.job_id, stay_s)
    return _join_at_stores(task, message, addresses[0], ledger, access, watch)


def _join_at_stores(
    task: Task[..., Any],
    message: BatchMessage,
    address: Address,
    ledger: Ledger,
    access: AccessPolicy,
    watch: _Watch,
) -> str:
    watch.read()
    source, destination = (open_side(side, access) for side in sides_of(message))
    if not isinstance(source, SnapshotStore) or not isinstance(destination, SnapshotStore):
        return NOTHING
    worker = str(getattr(task.request, "hostname", None) or "")
    watch.spending = spending = JoinedSpending(ledger, message, source, destination)
    with (
        counters.requests_of(source, destination),
        spending.counted(),
        Heartbeat(watch.beat, WATCH_S),
        interruptible(watch.check),
        Throttle(
            LimitStore(ledger.client), message.job_id, message.source, message.destination, watch.check,
            run=f"{task.request.id}@{worker}",
        ) as throttle,
    ):  # fmt: skip
        watch.check()
        throttle.attach(source, destination, at_once=True)
        if not can_copy_in_parts(source.objects, destination.objects):
            return NOTHING
        copy = PartsCopy.join(
            source.objects, destination.objects, address, message.job_id, sizes.LEAST_PART_BYTES
        )
        if copy is None:
            return NOTHING
        with copy:
            if copy.shape.length != message.sizes[0]:
                return NOTHING
            watch.of = PartsOf(message.job_id, copy.name)
            # An object counts as in flight once for each worker that copies parts of it.
            throttle.semaphore.expect(1)
            with throttle.semaphore:
                watch.waits = False
                return _copy_parts(message, ledger, copy, watch, worker)


def _copy_parts(message: BatchMessage, ledger: Ledger, copy: PartsCopy, watch: _Watch, worker: str) -> str:
    began = time.monotonic()
    with Claims(ledger, PartsOf(message.job_id, copy.name), copy.shape.parts, worker) as claims:
        threads = PartThreads(copy, claims, stay=False, may_claim=watch.may_claim)
        try:
            threads.start(sizes.parts_in_flight(copy.shape.part_bytes, message.concurrency))
            while threads.wait(WATCH_S):
                watch.check()
        finally:
            threads.stop()
            log.info(
                "parts copied",
                extra=fields(
                    object=copy.address, parts=threads.copied, seconds=round(time.monotonic() - began, 3)
                ),
            )
    if threads.error is not None:
        raise threads.error
    return f"{threads.copied} parts copied"


def _has_ended(ledger: Ledger, job_id: str) -> bool:
    try:
        return State(ledger.field(job_id, "state")).final
    except (UnknownJob, ValueError):
        return False


def _clean_up(message: BatchMessage, address: Address, ledger: Ledger, access: AccessPolicy) -> str:
    if not _is_dropped(message, address, access):
        # The store is away, or not on this machine. The orchestrator asks again.
        return "its job has ended; parts may be left"
    ledger.end_parts(message.job_id, address)
    return "its job has ended; nothing is left of its parts"


def _is_dropped(message: BatchMessage, address: Address, access: AccessPolicy) -> bool:
    try:
        destination = open_side(sides_of(message)[1], access)
    except StoreError:
        return False
    return not isinstance(destination, SnapshotStore) or drop_parts(
        destination.objects, address, message.job_id
    )


class _Watch:
    """
    Whether this worker continues: by its own state, that of the job, and that of the copy once *of* is known.

    *spending* is what the worker spends: it stops if the budget of the job is exceeded. *waits* is True until the
    worker may copy parts. After *stay_s* seconds it stops waiting and begins no further part.
    """

    def __init__(self, ledger: Ledger, job_id: str, stay_s: float) -> None:
        self.of: PartsOf | None = None
        self.spending: JoinedSpending | None = None
        self.waits = True
        self._until = time.monotonic() + stay_s
        self._ledger = ledger
        self._job_id = job_id
        self._directive = Directive.CONTINUE
        self._held_at = 0.0
        self._over = False
        self._stops_at: float | None = None

    def read(self) -> None:
        """Read from the ledger. Raises `RedisError`."""
        directive = self._ledger.directive(self._job_id)
        if directive is not self._directive:
            self._directive, self._held_at = directive, time.monotonic()
        self._over = self.of is not None and not self._ledger.parts_open(self.of)
        if self.spending is not None and self.spending.exceeds():
            self._over = True

    def beat(self) -> None:
        """As `read`; never raises `RedisError`."""
        try:
            self.read()
        except RedisError as error:
            log.warning("cannot read whether to copy parts: %s", error)
        self._end_if_stuck()

    def _end_if_stuck(self) -> None:
        """End this process if a call hangs that should have been interrupted long ago."""
        try:
            self.check()
        except BatchStopped:
            self._stops_at = self._stops_at or time.monotonic()
            if time.monotonic() - self._stops_at > STUCK_S:
                shutdown.end_stuck_process()

    def may_claim(self) -> bool:
        """Return whether another part may begin."""
        if self._is_late() or shutdown.requeues_in_s() is not None:
            return False
        return self._directive is Directive.CONTINUE

    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def check(self) -> None:
        """Return if this worker may go on. Raises `BatchStopped`."""
        if self._directive is Directive.STOP or self._over or (self.waits and self._is_late()):
            raise JobStopped
        if self._directive is Directive.HOLD and time.monotonic() - self._held_at > PAUSE_GRACE_S:
            raise JobPaused
        if shutdown.must_requeue():
            raise WorkerStopping
