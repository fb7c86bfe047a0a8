"""
The worker's Celery task: decode, call, account, translate errors into retries.

What is done is in `workers.transfer`; what is known of it in `workers.ledger`.
"""

from __future__ import annotations

import itertools
import logging
import re
import threading
import time
from collections import Counter
from functools import partial
from typing import Any, Self

from celery import Celery, Task
from celery.exceptions import Retry
from pydantic import ValidationError
from redis.exceptions import RedisError

from stores.errors import StoreError, StoreFault
from stores.interruption import interruptible
from stores.liveness import identity, is_dead
from stores.snapshot_store import SnapshotStore
from stores.urls import open_store
from stores.words import counted

from . import leaving, tracing
from .connection import client
from .describe import describe_failure, describe_failures, describe_outcome
from .heartbeat import Heartbeat
from .ledger import Ledger, UnknownJob
from .limits import Brakes
from .logs import about, fields
from .messages import BatchMessage, is_job_id
from .metrics import counting
from .reach import StoreSide, sides_of
from .reaching import BatchReach
from .settings import Settings
from .store_trouble import StoreTrouble, Unreachable
from .transfer import BatchOutcome, Cancelled, Failure, GivenBack, copy_batch

log = logging.getLogger(__name__)

# Passes over a batch whose stores had passing trouble, and the pauses between them: 2, 4, 8 s.
MAX_RETRIES = 3
RETRY_BASE_S = 2

# A batch that was begun this often and never heard of again takes its workers down with it.
MAX_BEGUN = 10

# How often a running batch reports when it moves, and when it does not: so soon it sees a cancel.
REPORT_EVERY_S = 0.25
HEARTBEAT_S = 5.0

# A batch in which nothing has moved for so long makes sure that its stores still answer.
SILENT_S = 15.0

# A worker that takes a batch from a parking queue and cannot copy it either parks it for so long.
PARK_AGAIN_S = 2.0

# After this long a delivery that stepped aside for another looks again.
STEP_ASIDE_S = 10

# What a process of another version cannot read it hands back for one that can, until nothing of the job has moved
# for so long.
UNREADABLE_S = 600

# Copying an object of more bytes may take so long that a limit which comes up must be able to slow it down.
HELD_AT_ONCE_BYTES = 8 * 1024 * 1024

_is_batch_name = re.compile(r"[a-z][a-z0-9-]{0,63}:\d{1,10}").fullmatch

_runs = itertools.count()


class ObjectsFailed(Exception):
    """
    Some objects of a batch could not be copied; the message has the figures and a reason.

    All of the batch is accounted for. It is raised so that the task is shown as
    failed; the chord's errback then does what its callback would have done.
    """


def register(app: Celery, settings: Settings) -> None:
    """Add the worker's tasks to *app*."""

    @app.task(
        shared=False,
        name="snapferry.copy_batch",
        bind=True,
        max_retries=MAX_RETRIES,
        # No traceback in the log, and no record in Redis for each batch: the ledger has the reasons.
        throws=(ObjectsFailed,),
        store_errors_even_if_ignored=False,
    )
    def copy(self: Task[..., Any], message: dict[str, Any]) -> str:
        ledger = ledger_of(settings)
        try:
            batch = BatchMessage.model_validate(message)
        except ValidationError as error:
            reason = f"not a message of this version: {error.error_count()} faults"
            job, name = batch_named(message)
            with about(job=job, batch=name, task=self.request.id):
                if not may_wait(ledger, job):
                    raise RuntimeError(reason) from None
                ledger.wait(job, name, STEP_ASIDE_S)
                raise hand_back(self, reason) from None
        return run_batch(self, batch, ledger)


def ledger_of(settings: Settings) -> Ledger:
    """Return the ledger on this process's connection to the broker."""
    assert settings.broker_url is not None  # make_app refuses settings without one
    return Ledger(client(settings.broker_url), expires_s=settings.job_expires)


def run_batch(task: Task[..., Any], batch: BatchMessage, ledger: Ledger) -> str:
    """
    Copy one delivered batch and account for it; return the outcome in words.

    Raises `celery.exceptions.Retry` when some objects met passing trouble and
    passes are left, when another worker is busy with the batch, and when this
    worker leaves. After the last pass objects are accounted as failed, and
    `ObjectsFailed` is raised.
    """
    with about(
        job=batch.job_id, batch=f"{batch.series}:{batch.number}", task=getattr(task.request, "id", None)
    ):
        return _run_batch(task, batch, ledger)


def _run_batch(task: Task[..., Any], batch: BatchMessage, ledger: Ledger) -> str:
    leaving.outlast_sigterm()
    if leaving.due():
        raise _again_at_once(task)
    # The run's own number tells two deliveries in one process apart.
    worker = str(getattr(task.request, "hostname", None) or "")
    holder = f"{identity()}#{next(_runs)}@{worker}"
    begun = ledger.begin(batch, holder)
    if begun.holder and is_dead(begun.holder.partition("#")[0]):
        begun = ledger.begin(batch, holder, instead_of=begun.holder)
    counting.delivered(begun)
    for reached, words in (
        (begun.foreign, "refused: the job's plan has no such batch"),
        (begun.accounted, "was already done"),
        (begun.stopped, "not needed: the job was cancelled or has ended"),
        (begun.paused, "held: the job is paused"),
    ):
        if reached:
            return _said(words)
    if begun.holder:
        raise _step_aside(task)
    if begun.times > MAX_BEGUN:
        outcome = BatchOutcome(
            failures=[Failure.of(address, _never_ended()) for address in batch.objects()],
        )
        return _give_up(batch, ledger, holder, outcome, MAX_BEGUN, "given_up")
    reach = BatchReach(ledger, batch, worker)
    blocking = reach.blocked_by
    if blocking is None:
        return _run_begun(task, batch, ledger, holder, reach, begun_before=begun.times > 1)
    if reach.given_up:
        outcome = reach.failed(blocking.error, blocking.store, blocking.detail)
        return _give_up(batch, ledger, holder, outcome, task.request.retries + 1)
    ledger.release(batch, holder)
    raise _park(task, reach, f"this worker cannot reach {blocking.store}: {blocking.detail}")


def _run_begun(
    task: Task[..., Any],
    batch: BatchMessage,
    ledger: Ledger,
    holder: str,
    reach: BatchReach,
    *,
    begun_before: bool,
) -> str:
    """Copy a batch that *holder* has leased, and account for it."""
    worker = holder.partition("@")[2]
    pause, ended = 0, False
    try:
        outcome, seconds = _run(batch, ledger, holder, reach, begun_before=begun_before)
        free = reach.costs_nothing(outcome)
        retries = outcome.transient_failures and (free or task.request.retries < MAX_RETRIES)
        counting.ran(outcome, seconds, again=retries)
        tracing.say(
            job_id=batch.job_id, batch=f"{batch.series}:{batch.number}", objects=len(batch.sizes),
            copied=outcome.copied, present=outcome.present, failed=len(outcome.failures),
            bytes_copied=outcome.bytes_copied,
        )  # fmt: skip
        if retries:
            pause = RETRY_BASE_S * 2**task.request.retries
            first = next(failure for failure in outcome.failures if failure.transient)
            log.warning(
                "retries in %d s: %s",
                pause,
                first.detail,
                extra=fields(error=first.error, store=first.store, attempt=task.request.retries + 1),
            )
            if free:
                raise queue_again(task, describe_failure(first), in_s=pause)
            raise again(task, pause, describe_failure(first))
        ledger.account(batch, outcome, attempts=task.request.retries + 1, worker=worker)
        reach.ended(outcome)
    except Unreachable as trouble:
        reach.note(trouble)
        error = trouble.reason
        kind = fields(error=type(error).__name__, store=error.store, kind=trouble.kind.value)
        log.warning("store not reached: %s", error.detail, extra=kind)
        if reach.given_up:
            failed = reach.failed(type(error).__name__, error.store, error.detail)
            return _give_up(batch, ledger, holder, failed, task.request.retries + 1)
        # The lease first, as below.
        ledger.release(batch, holder)
        raise _park(task, reach, f"this worker cannot reach {error.store}: {error.detail}") from None
    except GivenBack:
        # The lease first: whoever takes the message must not find it.
        ledger.release(batch, holder)
        raise _again_at_once(task) from None
    except Cancelled:
        counting.stopped()
        return _said("not needed: the job was cancelled or has ended")
    except SystemExit:
        # Somebody ends this process, by Flower's button or for its memory: it counts, or it could go on for ever.
        ended = True
        raise
    finally:
        ledger.release(batch, holder, again_in_s=pause, ended=ended)
    return _ended(batch, outcome, seconds, task.request.retries + 1)


def _park(task: Task[..., Any], reach: BatchReach, why: str) -> Exception:
    """Leave the batch to workers that can reach both of its stores; return what to raise."""
    counting.parked()
    queue = reach.park()
    came_from = (getattr(task.request, "delivery_info", None) or {}).get("routing_key")
    # A worker that learns only now that it should not take from there would take it at once again.
    pause = PARK_AGAIN_S if came_from == queue else None
    log.info("batch parked: %s", why)
    return queue_again(task, why, in_s=pause, queue=queue)


def _give_up(
    batch: BatchMessage,
    ledger: Ledger,
    holder: str,
    outcome: BatchOutcome,
    attempts: int,
    end: str = "unreached",
) -> str:
    """Account a batch that is not run any more. Raises `ObjectsFailed`."""
    counting.gave_up(outcome, end=end)
    ledger.account(batch, outcome, attempts=attempts, worker=holder.partition("@")[2])
    ledger.release(batch, holder)
    _log_failures(outcome, attempts)
    return _words(batch, outcome, 0.0)


def _said(words: str) -> str:
    log.info("batch %s", words)
    return words


def _ended(batch: BatchMessage, outcome: BatchOutcome, seconds: float, attempts: int) -> str:
    _log_failures(outcome, attempts)
    log.info(
        "batch ended: %s",
        describe_outcome(outcome, seconds),
        extra=fields(
            source=batch.source.url,
            destination=batch.destination.url,
            copied=outcome.copied,
            present=outcome.present,
            failed=len(outcome.failures),
            bytes=outcome.bytes_copied,
            seconds=round(seconds, 3),
        ),
    )
    return _words(batch, outcome, seconds)


def _words(batch: BatchMessage, outcome: BatchOutcome, seconds: float) -> str:
    """Return how a batch that is accounted for ended. Raises `ObjectsFailed`."""
    if outcome.failures:
        raise ObjectsFailed(describe_failures(outcome, seconds, batch.job_id))
    return describe_outcome(outcome, seconds)


def _log_failures(outcome: BatchOutcome, attempts: int) -> None:
    """Say what failed: a line for each kind of error, however many objects met it."""
    for (error, store), count in Counter((f.error, f.store) for f in outcome.failures).items():
        first = next(f for f in outcome.failures if (f.error, f.store) == (error, store))
        log.error(
            "%s failed%s, the first: %s",
            counted(count, "object"),
            f" after {attempts} passes" if first.transient else "",
            first.detail,
            extra=fields(error=error, store=store, objects=count, object=first.address),
        )


def _run(
    batch: BatchMessage, ledger: Ledger, holder: str, reach: BatchReach, *, begun_before: bool
) -> tuple[BatchOutcome, float]:
    """Copy the batch, telling the ledger on the way; return how it ended and the seconds it took."""
    started = time.monotonic()
    with counting.running(), _Report(batch, ledger, holder, reach) as report:
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
    """Let the task wait for the worker that is busy with its batch; return what to raise."""
    log.info("another worker is busy with this batch; looking again in %d s", STEP_ASIDE_S)
    return queue_again(task, "another worker is busy with this batch", in_s=STEP_ASIDE_S)


def _again_at_once(task: Task[..., Any]) -> Exception:
    log.info("batch given back: this worker leaves")
    return queue_again(task, "its worker left; it was given back")


def may_wait(ledger: Ledger, job_id: str) -> bool:
    """Say whether something of a job may still come to a process that can read it."""
    try:
        standing = ledger.standing(job_id)
    except UnknownJob:
        return False
    return not standing.state.final and standing.idle_s < UNREADABLE_S


def hand_back(task: Any, reason: str) -> Exception:
    """Leave *task* to a process of another version; return what to raise. No try of that one's is used up."""
    log.info("%s; handed back for a process that can read it", reason)
    return queue_again(task, reason, in_s=STEP_ASIDE_S)


def queue_again(task: Any, why: str, *, in_s: float | None = None, queue: str | None = None) -> Exception:
    """
    Queue *task* again without counting it as a retry of its own; return what to raise.

    It goes to the queue that it came from, or to *queue*.
    """
    request = task.request
    words = {"argsrepr": request.argsrepr, "kwargsrepr": ""}
    if queue is not None:
        words["queue"] = queue
    task.signature_from_request(countdown=in_s, retries=request.retries, **words).apply_async()
    # The words are shown by Flower from the one, and in the log from the other.
    queued: Exception = Retry(why, exc=RuntimeError(why), when=in_s)
    return queued


def batch_named(message: object) -> tuple[str, str]:
    """
    Return the job of a batch's message and the batch's name in it, of any version, as far as they can be told.

    Both become parts of keys: what cannot be an id or a name is "".
    """
    found = message if isinstance(message, dict) else {}
    job_id, name = str(found.get("job_id", "")), f"{found.get('series', '')}:{found.get('number', '')}"
    return job_id if is_job_id(job_id) else "", name if _is_batch_name(name) else ""


def _copy(
    batch: BatchMessage, ledger: Ledger, holder: str, report: _Report, *, begun_before: bool
) -> BatchOutcome:
    objects = batch.objects()
    trouble = report.trouble
    try:
        source, destination = (_open(side, trouble) for side in sides_of(batch))
        trouble.opened(source, destination)
        # Whatever waits for a limit looks on the way whether the batch is still wanted.
        wanted = partial(report.advance, 0, 0)
        with (
            interruptible(report.check),
            counting.requests_of(source, destination),
            Brakes(
                ledger.limits, batch.job_id, batch.source, batch.destination, wanted, run=holder
            ) as brakes,
        ):
            brakes.hold(source, destination, at_once=max(batch.sizes, default=0) > HELD_AT_ONCE_BYTES)
            return copy_batch(
                source,
                destination,
                objects,
                report,
                concurrency=batch.concurrency,
                begun_before=begun_before,
                in_flight=brakes.gate,
                judge=trouble,
            )
    except StoreError as error:
        trouble.ended(error)
        return BatchOutcome(failures=[Failure.of(address, error) for address in objects])


def _open(side: StoreSide, trouble: StoreTrouble) -> SnapshotStore:
    # Without create: where a mount is missing on this worker, nothing must be made in its place.
    try:
        return open_store(side.ref.url, side.ref.objects_url, create=False)
    except StoreError as error:
        trouble.cannot_open(side, error)


def _never_ended() -> StoreError:
    return StoreFault(
        "",
        "",
        f"its batch was begun {MAX_BEGUN} times and never ended; did its workers run out of memory,"
        " or was it terminated each time?",
    )


class _Report:
    """
    Tell the ledger how a batch gets on, and stop the batch when its job wants no more of it.

    At a gentle pace while it moves, by a heartbeat while it does not: one object may take hours.
    """

    def __init__(self, batch: BatchMessage, ledger: Ledger, holder: str, reach: BatchReach) -> None:
        self._batch = batch
        self._ledger = ledger
        self._holder = holder
        self._lock = threading.Lock()
        self._objects = 0
        self._bytes = 0
        self._due = time.monotonic() + REPORT_EVERY_S
        self._stop = False
        self._moved_at = time.monotonic()
        self._reach: BatchReach | None = reach
        worker = holder.partition("@")[2]
        self.trouble = StoreTrouble(ledger.reach, worker, sides_of(batch), len(batch.sizes))
        self._heart = Heartbeat(self._beat, HEARTBEAT_S)

    def __enter__(self) -> Self:
        self._heart.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._heart.__exit__(*raised)

    def begin(self, needed: list[str]) -> None:
        if leaving.due():
            raise GivenBack
        self._ledger.need(self._batch, needed)

    def advance(self, objects: int, size_bytes: int) -> None:
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
        """Raise what stops the batch, if anything does. Cheap: it is called wherever something waits."""
        if self._stop:
            raise Cancelled
        if leaving.due():
            raise GivenBack
        self.trouble.stop()

    def _tell(self) -> None:
        with self._lock:
            objects, size_bytes = self._objects, self._bytes
        if self._ledger.progress(self._batch, self._holder, objects=objects, size_bytes=size_bytes):
            self._stop = True

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
        except RedisError as error:
            log.warning("cannot report on the batch: %s", error)
