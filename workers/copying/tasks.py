"""
The worker's Celery task: decode, call, account, translate errors into retries.

What is done is in `snapferry.workers.copying.transfer`; what is known of it in `snapferry.workers.ledger`.
"""

from __future__ import annotations

import itertools
import logging
import re
import time
from collections import Counter
from functools import partial
from typing import Any

from celery import Celery, Task
from celery.exceptions import Retry
from pydantic import ValidationError
from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.errors import StoreError, StoreFault
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.runtime.liveness import identity, is_dead
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.text.format import counted
from snapferry.workers.broker.connection import OUTAGE, client
from snapferry.workers.ledger import Begun, Directive, Ledger, UnknownJob
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.limits import LimitStore, Throttle
from snapferry.workers.messages import BatchMessage, is_job_id
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.reachability.batch import BatchReach
from snapferry.workers.reachability.outage import StoreTrouble, Unreachable, emptied, open_side
from snapferry.workers.reachability.records import ReachBook, StoreSide, sides_of
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry import tracing
from snapferry.workers.telemetry.logs import about, fields
from snapferry.workers.telemetry.metrics import counters

from . import time_limit
from .batch_report import BatchReport, Reported
from .budget import within_budget
from .describe import describe_failure, describe_failures, describe_outcome
from .sequential import CAREFUL_AFTER, copy_one_by_one, unexpected
from .transfer import Cancelled, GivenBack, Held, copy_batch

log = logging.getLogger(__name__)

# Passes over a batch whose stores had passing trouble, and the pauses between them: 2, 4, 8 s.
MAX_RETRIES = 3
RETRY_BASE_S = 2

# A batch that was begun this often and never heard of again takes its workers down with it.
MAX_BEGUN = 10

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


def register(app: Celery, settings: Settings, access: AccessPolicy) -> None:
    """Add the worker's tasks to *app*; they open what *access* allows."""

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
                ledger.note_retry(job, name, STEP_ASIDE_S)
                raise hand_back(self, reason) from None
        with time_limit.passing():
            return run_batch(self, batch, ledger, access)


def ledger_of(settings: Settings) -> Ledger:
    """Return the ledger on this process's connection to the broker."""
    assert settings.broker_url is not None  # make_app refuses settings without one
    return Ledger(client(settings.broker_url), expires_s=settings.job_expires)


def run_batch(
    task: Task[..., Any], batch: BatchMessage, ledger: Ledger, access: AccessPolicy = STRICT
) -> str:
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
        return _run_batch(task, batch, ledger, access)


def _run_batch(task: Task[..., Any], batch: BatchMessage, ledger: Ledger, access: AccessPolicy) -> str:
    shutdown.outlast_sigterm()
    if shutdown.due():
        raise _again_at_once(task)
    # The run's own number tells two deliveries in one process apart.
    worker = str(getattr(task.request, "hostname", None) or "")
    holder = f"{identity()}#{next(_runs)}@{worker}"
    begun = ledger.begin(batch, holder)
    if begun.holder and is_dead(begun.holder.partition("#")[0]):
        begun = ledger.begin(batch, holder, instead_of=begun.holder)
    counters.delivered(begun)
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
        return _run_begun(task, batch, ledger, holder, reach, begun, access)
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
    begun: Begun,
    access: AccessPolicy,
) -> str:
    """Copy a batch that *holder* has leased, and account for it."""
    worker = holder.partition("@")[2]
    pause, ended = 0, False
    try:
        outcome, seconds = _run(batch, ledger, holder, reach, begun, access)
        free = reach.costs_nothing(outcome)
        retries = outcome.retryable and (free or task.request.retries < MAX_RETRIES)
        counters.ran(outcome, seconds, again=retries)
        tracing.set_attributes(
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
        ledger.forget_spending(batch)
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
    except Held:
        counters.stopped()
        if ledger.hold(batch, holder):
            return _said("held: the job is paused")
        log.info("batch requeued: its job goes on")
        raise queue_again(task, "its job was paused and goes on") from None
    except Cancelled:
        counters.stopped()
        return _said("not needed: the job was cancelled or has ended")
    except (Retry, ObjectsFailed, *OUTAGE):
        raise
    except (SystemExit, Exception):
        # Somebody ends this process, by Flower's button or for its memory, or an error that nobody expected ends the
        # run: it counts, or it could go on for ever.
        ended = True
        raise
    finally:
        ledger.release(batch, holder, again_in_s=pause, ended=ended)
    return _ended(batch, outcome, seconds, task.request.retries + 1)


def _park(task: Task[..., Any], reach: BatchReach, why: str) -> Exception:
    """Leave the batch to workers that can reach both of its stores; return what to raise."""
    counters.parked()
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
    counters.gave_up(outcome, end=end)
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
    batch: BatchMessage, ledger: Ledger, holder: str, reach: BatchReach, begun: Begun, access: AccessPolicy
) -> tuple[BatchOutcome, float]:
    """Copy the batch, telling the ledger on the way; return how it ended and the seconds it took."""

    def let_go(wish: Directive) -> None:
        log.warning("batch let go: it does not stop")
        if wish is Directive.HOLD:
            ledger.hold(batch, holder)
        else:
            ledger.release(batch, holder)
        shutdown.end_stuck_process()

    started = time.monotonic()
    with (
        counters.running(),
        BatchReport(batch, ledger, holder, reach, let_go, access) as report,
        interruptible(report.check),
    ):
        outcome = _copy(batch, ledger, holder, report, begun, access)
    ledger.note_confirmed(batch.job_id, outcome.confirmed)
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
    batch: BatchMessage, ledger: Ledger, holder: str, report: BatchReport, begun: Begun, access: AccessPolicy
) -> BatchOutcome:
    objects = batch.objects()
    trouble = report.trouble
    try:
        source, destination = (_open(ledger, batch, side, trouble, access) for side in sides_of(batch))
        trouble.opened(source, destination)
        # Whatever waits for a limit looks on the way whether the batch is still wanted.
        wanted = partial(report.advance, 0, 0)
        with (
            counters.requests_of(source, destination),
            Throttle(
                LimitStore(ledger.client), batch.job_id, batch.source, batch.destination, wanted, run=holder
            ) as throttle,
            within_budget(ledger, batch, source, destination),
        ):
            throttle.attach(source, destination, at_once=max(batch.sizes, default=0) > HELD_AT_ONCE_BYTES)
            in_flight = Reported(throttle.semaphore, report)
            if begun.times <= CAREFUL_AFTER or len(objects) == 1:
                try:
                    return copy_batch(
                        source,
                        destination,
                        objects,
                        report,
                        concurrency=batch.concurrency,
                        begun_before=begun.times > 1,
                        in_flight=in_flight,
                        judge=trouble,
                    )
                except (StoreError, RedisError):
                    raise
                except Exception:
                    log.exception("uncaught exception; the objects of the batch are copied one by one")
            places = batch.positions_by_address()
            return copy_one_by_one(
                source,
                destination,
                objects,
                report,
                deaths={address: begun.deaths.get(place, 0) for address, place in places.items()},
                alone=lambda address: ledger.note_current_object(batch, holder, places[address]),
                in_flight=in_flight,
                judge=trouble,
            )
    except StoreError as error:
        trouble.ended(error)
        return BatchOutcome(failures=[Failure.of(address, error) for address in objects])
    except RedisError:
        raise
    except Exception as error:
        log.exception("uncaught exception; all objects of the batch fail")
        return BatchOutcome(failures=[Failure.of(address, unexpected(error)) for address in objects])


def _open(
    ledger: Ledger, batch: BatchMessage, side: StoreSide, trouble: StoreTrouble, access: AccessPolicy
) -> StreamStore:
    try:
        store = open_side(side, access)
        if gone := emptied(ReachBook(ledger.client), batch.job_id, side, access):
            raise gone
    except StoreError as error:
        trouble.cannot_open(side, error)
    return store


def _never_ended() -> StoreError:
    return StoreFault(
        "",
        "",
        f"its batch was begun {MAX_BEGUN} times and never ended; did its workers run out of memory,"
        " or was it terminated each time?",
    )
