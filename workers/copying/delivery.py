"""
What a worker does with one delivered batch: lease it, copy it, then account for it or queue it again.

A delivery may be a repetition, or come late. So the ledger decides, when it grants the lease, whether the batch must
still be copied.
"""

from __future__ import annotations

import itertools
import logging
from enum import StrEnum
from typing import Any, Final

from celery import Task
from celery.exceptions import Retry

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.errors import StoreError, StoreFault
from snapferry.stores.runtime.liveness import identity, is_dead
from snapferry.workers.broker.connection import OUTAGE
from snapferry.workers.ledger import Ledger
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.messages import BatchMessage
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.reachability.batch import BatchReachability
from snapferry.workers.reachability.outage import Unreachable
from snapferry.workers.telemetry import tracing
from snapferry.workers.telemetry.logs import about, fields
from snapferry.workers.telemetry.metrics import counters

from .copy_run import CopyRun
from .describe import describe_failure
from .parts.asking import Asking
from .requeue import MAX_RETRIES, RETRY_BASE_S, STEP_ASIDE_S, requeue, retry
from .settle import ObjectsFailed, fail_batch, log_end, result_text
from .transfer import BatchStopped, JobPaused, WorkerStopping

log = logging.getLogger(__name__)

MAX_STARTS: Final = 10
"""A batch that was started this often without a known end kills its workers, and fails."""

MAX_LOST: Final = 30
"""A batch fails after so many machines were lost that ran it, if none of its objects was settled meanwhile."""

# A worker that takes a batch from a parking queue and cannot copy it either parks it for this long.
PARK_AGAIN_S = 2.0

_run_numbers = itertools.count()


class Skipped(StrEnum):
    """Why a delivered batch was not copied, or not to its end; the value is the result of the task."""

    FOREIGN = "refused: the job's plan has no such batch"
    ACCOUNTED = "skipped: the batch is already accounted for"
    STOPPED = "skipped: the job was cancelled or has ended"
    PAUSED = "skipped: the job is paused"
    BOUNDED = "skipped: the job has reached its bound"


def run_batch(
    task: Task[..., Any], batch: BatchMessage, ledger: Ledger, access: AccessPolicy = STRICT
) -> str:
    """
    Copy one delivered batch and account for it; return a `Skipped`, or the outcome in words.

    Raises `celery.exceptions.Retry` after it queued the batch again: when objects failed with transient errors and
    retries are left, when another worker runs the batch, when this worker shuts down or cannot reach a store. When
    no retry is left, the objects are accounted for as failed, and `ObjectsFailed` is raised.
    """
    with about(
        job=batch.job_id, batch=f"{batch.series}:{batch.number}", task=getattr(task.request, "id", None)
    ):
        return _lease_and_run(task, batch, ledger, access)


def _lease_and_run(task: Task[..., Any], batch: BatchMessage, ledger: Ledger, access: AccessPolicy) -> str:
    shutdown.defer_sigterm()
    if shutdown.must_requeue():
        raise _requeue_for_shutdown(task)
    worker = str(getattr(task.request, "hostname", None) or "")
    # The number tells two deliveries in one process apart.
    holder = f"{identity()}#{next(_run_numbers)}@{worker}"
    begun = ledger.begin(batch, holder)
    if begun.holder and is_dead(begun.holder.partition("#")[0]):
        begun = ledger.begin(batch, holder, instead_of=begun.holder)
    counters.delivered(begun)
    for applies, reason in (
        (begun.foreign, Skipped.FOREIGN),
        (begun.accounted, Skipped.ACCOUNTED),
        (begun.stopped, Skipped.STOPPED),
        (begun.paused, Skipped.PAUSED),
        (begun.bounded, Skipped.BOUNDED),
    ):
        if applies:
            return _skip(reason)
    if begun.holder:
        log.info("batch deferred for %d s: another worker runs it", STEP_ASIDE_S)
        raise requeue(task, "another worker runs this batch", in_s=STEP_ASIDE_S)
    attempts = task.request.retries + 1
    if begun.times > MAX_STARTS or (begun.lost or 0) > MAX_LOST:
        deadly = begun.times > MAX_STARTS
        error, tries = (_never_ended(), MAX_STARTS) if deadly else (_always_lost(), MAX_LOST)
        outcome = BatchOutcome(failures=[Failure.of(address, error) for address in batch.objects()])
        return fail_batch(
            batch, ledger, holder, outcome,
            attempts=tries, worker=worker, end="given_up", submitted=begun.submitted,
        )  # fmt: skip
    reachability = BatchReachability(ledger, batch, worker)
    blocking = reachability.blocked_by
    if blocking is None:
        ask = Asking(task, batch, ledger).ask
        last = task.request.retries >= MAX_RETRIES
        return _run_leased(task, CopyRun(batch, ledger, holder, reachability, begun, access, ask, last))
    if reachability.given_up:
        outcome = reachability.failed(blocking.error, blocking.store, blocking.detail)
        return fail_batch(
            batch, ledger, holder, outcome,
            attempts=attempts, worker=worker, end="unreached", submitted=begun.submitted,
        )  # fmt: skip
    ledger.release(batch, holder)
    raise _park(task, reachability, f"this worker cannot reach {blocking.store}: {blocking.detail}")


def _run_leased(task: Task[..., Any], run: CopyRun) -> str:
    """Copy a batch that is leased to this run, and account for it."""
    batch, ledger, holder, reachability = run.batch, run.ledger, run.holder, run.reachability
    attempts = task.request.retries + 1
    pause_s, killed = 0, False
    try:
        outcome, seconds = run.copy()
        free = reachability.retries_free(outcome)
        retries = outcome.retryable and (free or task.request.retries < MAX_RETRIES)
        counters.ran(outcome, seconds, again=retries, action=batch.action)
        tracing.set_attributes(
            job_id=batch.job_id, batch=f"{batch.series}:{batch.number}", objects=len(batch.sizes),
            copied=outcome.copied, present=outcome.present, failed=len(outcome.failures),
            bytes_copied=outcome.bytes_copied,
        )  # fmt: skip
        if retries:
            pause_s = RETRY_BASE_S * 2**task.request.retries
            raise _retry(task, outcome, pause_s, free=free)
        ledger.account(batch, outcome, attempts=attempts, worker=run.worker, submitted=run.begun.submitted)
        ledger.forget_spending(batch)
        reachability.record_end(outcome)
    except Unreachable as unreachable:
        return _end_unreachable(task, run, unreachable)
    except WorkerStopping:
        # The lease ends first, so that the next worker that gets the message does not find it.
        ledger.release(batch, holder)
        raise _requeue_for_shutdown(task) from None
    except JobPaused:
        counters.stopped()
        if ledger.hold(batch, holder):
            return _skip(Skipped.PAUSED)
        log.info("batch requeued: its job was resumed")
        raise requeue(task, "its job was paused and is resumed") from None
    except BatchStopped:
        counters.stopped()
        return _skip(Skipped.STOPPED)
    except (Retry, ObjectsFailed, *OUTAGE):
        raise
    except (SystemExit, Exception):
        # This process is ended, by Flower's button or for its memory, or an unexpected error ends the run. This start
        # must count, or the batch could be started forever.
        killed = True
        raise
    finally:
        ledger.release(batch, holder, again_in_s=pause_s, ended=killed)
    log_end(batch, outcome, seconds, attempts)
    return result_text(batch, outcome, seconds)


def _retry(task: Task[..., Any], outcome: BatchOutcome, pause_s: float, *, free: bool) -> Exception:
    """Queue the batch again for its transient failures; return what to raise. *free*: it does not count as a retry."""
    first = next(failure for failure in outcome.failures if failure.transient)
    log.warning(
        "retries in %d s: %s",
        pause_s,
        first.detail,
        extra=fields(error=first.error, store=first.store, attempt=task.request.retries + 1),
    )
    if free:
        return requeue(task, describe_failure(first), in_s=pause_s)
    return retry(task, pause_s, describe_failure(first))


def _end_unreachable(task: Task[..., Any], run: CopyRun, unreachable: Unreachable) -> str:
    """Record that this worker cannot reach a store; fail the batch if its job was given up, else park it."""
    reachability, error = run.reachability, unreachable.reason
    reachability.record(unreachable)
    log.warning(
        "store not reached: %s",
        error.detail,
        extra=fields(error=type(error).__name__, store=error.store, kind=unreachable.kind.value),
    )
    if reachability.given_up:
        outcome = reachability.failed(type(error).__name__, error.store, error.detail)
        return fail_batch(
            run.batch, run.ledger, run.holder, outcome,
            attempts=task.request.retries + 1, worker=run.worker, end="unreached", submitted=run.begun.submitted,
        )  # fmt: skip
    # The lease ends first, so that the next worker that gets the message does not find it.
    run.ledger.release(run.batch, run.holder)
    raise _park(task, reachability, f"this worker cannot reach {error.store}: {error.detail}") from None


def _park(task: Task[..., Any], reachability: BatchReachability, reason: str) -> Exception:
    """Queue the batch for workers that can reach both of its stores; return what to raise."""
    counters.parked()
    queue = reachability.park()
    came_from = (getattr(task.request, "delivery_info", None) or {}).get("routing_key")
    # Without a pause, a worker that still takes from the parking queue would get the batch again at once.
    pause_s = PARK_AGAIN_S if came_from == queue else None
    log.info("batch parked: %s", reason)
    return requeue(task, reason, in_s=pause_s, queue=queue)


def _requeue_for_shutdown(task: Task[..., Any]) -> Exception:
    log.info("batch requeued: this worker shuts down")
    return requeue(task, "its worker shut down; requeued")


def _skip(reason: Skipped) -> str:
    log.info("batch %s", reason)
    return reason.value


def _never_ended() -> StoreError:
    return StoreFault(
        "",
        "",
        f"its batch was started {MAX_STARTS} times and never ended; did its workers run out of memory,"
        " or was it terminated each time?",
    )


def _always_lost() -> StoreError:
    return StoreFault(
        "",
        "",
        f"{MAX_LOST} machines were lost while they ran its batch, and none copied an object of it; let machines live"
        " longer than its largest object takes, or stop their workers by SIGTERM in time",
    )
