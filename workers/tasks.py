"""
The worker's Celery task: decode, call, account, translate errors into retries.

What is done is in `workers.transfer`; what is known of it in `workers.ledger`.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from functools import partial
from typing import Any, Self

from celery import Celery, Task
from celery.exceptions import Retry
from pydantic import ValidationError
from redis.exceptions import RedisError

from stores.errors import StoreError, StoreFault
from stores.liveness import identity, is_dead
from stores.urls import open_store

from .connection import client
from .describe import describe_outcome
from .heartbeat import Heartbeat
from .ledger import Ledger
from .limits import Brakes
from .messages import BatchMessage
from .settings import Settings
from .transfer import BatchOutcome, Cancelled, Failure, copy_batch

log = logging.getLogger(__name__)

# Passes over a batch whose stores had passing trouble, and the pauses between them: 2, 4, 8 s.
MAX_RETRIES = 3
RETRY_BASE_S = 2

# A batch that was begun this often and never heard of again takes its workers down with it.
MAX_BEGUN = 10

# How often a running batch reports when it moves, and when it does not: so soon it sees a cancel.
REPORT_EVERY_S = 0.25
HEARTBEAT_S = 5.0

# After this long a delivery that stepped aside for another looks again.
STEP_ASIDE_S = 10

# A worker of another version hands a message it cannot read back this often, for one that can.
MAX_UNREADABLE = 60

# Copying an object of more bytes may take so long that a limit which comes up must be able to slow it down.
HELD_AT_ONCE_BYTES = 8 * 1024 * 1024

_runs = itertools.count()


def register(app: Celery, settings: Settings) -> None:
    """Add the worker's tasks to *app*."""

    @app.task(shared=False, name="snapferry.copy_batch", bind=True, max_retries=MAX_RETRIES)
    def copy(self: Task[..., Any], message: dict[str, Any]) -> str:
        ledger = ledger_of(settings)
        try:
            batch = BatchMessage.model_validate(message)
        except ValidationError as error:
            reason = f"not a message of this version: {error.error_count()} faults"
            ledger.wait(*_whose(message), STEP_ASIDE_S)
            raise again(self, STEP_ASIDE_S, reason, max_retries=MAX_UNREADABLE) from None
        return run_batch(self, batch, ledger)


def ledger_of(settings: Settings) -> Ledger:
    """Return the ledger on this process's connection to the broker."""
    assert settings.broker_url is not None  # make_app refuses settings without one
    return Ledger(client(settings.broker_url), expires_s=settings.job_expires)


def run_batch(task: Task[..., Any], batch: BatchMessage, ledger: Ledger) -> str:
    """
    Copy one delivered batch and account for it; return the outcome in words.

    Raises `celery.exceptions.Retry` when some objects met passing trouble and
    passes are left, and when another worker is busy with the batch. After the
    last pass objects are accounted as failed.
    """
    # The run's own number tells two deliveries in one process apart.
    worker = str(getattr(task.request, "hostname", None) or "")
    holder = f"{identity()}#{next(_runs)}@{worker}"
    begun = ledger.begin(batch, holder)
    if begun.holder and is_dead(begun.holder.partition("#")[0]):
        begun = ledger.begin(batch, holder, instead_of=begun.holder)
    if begun.accounted:
        return "was already done"
    if begun.stopped:
        return "not needed: the job was cancelled or has ended"
    if begun.paused:
        return "held: the job is paused"
    if begun.holder:
        raise _step_aside(task)
    if begun.times > MAX_BEGUN:
        outcome = BatchOutcome(
            failures=[Failure.of(address, _never_ended()) for address in batch.objects()],
        )
        ledger.account(batch, outcome, attempts=MAX_BEGUN, worker=worker)
        ledger.release(batch, holder)
        return describe_outcome(outcome, 0.0)
    pause = 0
    try:
        outcome, seconds = _run(batch, ledger, holder, begun_before=begun.times > 1)
        if outcome.transient_failures and task.request.retries < MAX_RETRIES:
            pause = RETRY_BASE_S * 2**task.request.retries
            first = next(failure for failure in outcome.failures if failure.transient)
            log.warning(
                "job %s: batch %s retries in %d s: %s", batch.job_id, batch.number, pause, first.detail
            )
            raise again(task, pause, first.detail)
        ledger.account(batch, outcome, attempts=task.request.retries + 1, worker=worker)
    except Cancelled:
        return "not needed: the job was cancelled or has ended"
    finally:
        ledger.release(batch, holder, again_in_s=pause)
    return describe_outcome(outcome, seconds)


def _run(
    batch: BatchMessage, ledger: Ledger, holder: str, *, begun_before: bool
) -> tuple[BatchOutcome, float]:
    """Copy the batch, telling the ledger on the way; return how it ended and the seconds it took."""
    started = time.monotonic()
    with _Report(batch, ledger, holder) as report:
        outcome = _copy(batch, ledger, holder, report, begun_before=begun_before)
    return outcome, time.monotonic() - started


def again(task: Any, pause: float, reason: object, *, max_retries: int = MAX_RETRIES) -> Exception:
    """Queue *task* again after *pause* seconds, described to Flower as before; return what to raise."""
    retry: Exception = task.retry(
        countdown=pause,
        exc=RuntimeError(str(reason)),
        throw=False,
        max_retries=max_retries,
        argsrepr=task.request.argsrepr,
        kwargsrepr="",
    )
    return retry


def _step_aside(task: Task[..., Any]) -> Exception:
    """Queue the task again without counting it as a retry of its own; return what to raise."""
    request = task.request
    words = {"argsrepr": request.argsrepr, "kwargsrepr": ""}
    task.signature_from_request(countdown=STEP_ASIDE_S, retries=request.retries, **words).apply_async()
    aside: Exception = Retry("another worker is busy with this batch", when=STEP_ASIDE_S)
    return aside


def _whose(message: object) -> tuple[str, str]:
    """Return the job and the name of a batch of another version, as far as they can be told."""
    found = message if isinstance(message, dict) else {}
    return str(found.get("job_id", "")), f"{found.get('series', '')}:{found.get('number', '')}"


def _copy(
    batch: BatchMessage, ledger: Ledger, holder: str, report: _Report, *, begun_before: bool
) -> BatchOutcome:
    objects = batch.objects()
    try:
        # Without create: where a mount is missing on this worker, nothing must be made in its place.
        source, destination = (
            open_store(ref.url, ref.objects_url, create=False) for ref in (batch.source, batch.destination)
        )
        # Whatever waits for a limit looks on the way whether the batch is still wanted.
        wanted = partial(report.advance, 0, 0)
        with Brakes(
            ledger.limits, batch.job_id, batch.source, batch.destination, wanted, run=holder
        ) as brakes:
            brakes.hold(source, destination, at_once=max(batch.sizes, default=0) > HELD_AT_ONCE_BYTES)
            return copy_batch(
                source,
                destination,
                objects,
                report,
                concurrency=batch.concurrency,
                begun_before=begun_before,
                in_flight=brakes.gate,
            )
    except StoreError as error:
        return BatchOutcome(failures=[Failure.of(address, error) for address in objects])


def _never_ended() -> StoreError:
    return StoreFault(
        "", "", f"its batch was begun {MAX_BEGUN} times and never ended; did its workers run out of memory?"
    )


class _Report:
    """
    Tell the ledger how a batch gets on, and stop the batch when its job wants no more of it.

    At a gentle pace while it moves, by a heartbeat while it does not: one object may take hours.
    """

    def __init__(self, batch: BatchMessage, ledger: Ledger, holder: str) -> None:
        self._batch = batch
        self._ledger = ledger
        self._holder = holder
        self._lock = threading.Lock()
        self._objects = 0
        self._bytes = 0
        self._due = time.monotonic() + REPORT_EVERY_S
        self._stop = False
        self._heart = Heartbeat(self._beat, HEARTBEAT_S)

    def __enter__(self) -> Self:
        self._heart.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._heart.__exit__(*raised)

    def begin(self, needed: list[str]) -> None:
        self._ledger.need(self._batch, needed)

    def advance(self, objects: int, size_bytes: int) -> None:
        with self._lock:
            self._objects += objects
            self._bytes += size_bytes
            now = time.monotonic()
            due = now >= self._due
            if due:
                self._due = now + REPORT_EVERY_S
        if due:
            self._tell()
        if self._stop:
            raise Cancelled

    def _tell(self) -> None:
        with self._lock:
            objects, size_bytes = self._objects, self._bytes
        if self._ledger.progress(self._batch, self._holder, objects=objects, size_bytes=size_bytes):
            self._stop = True

    def _beat(self) -> None:
        try:
            self._tell()
        except RedisError as error:
            log.warning(
                "job %s: cannot report on batch %s: %s", self._batch.job_id, self._batch.number, error
            )
