"""
The orchestrator's Celery tasks: decode the message, drive the job, translate errors into retries or the job's end.

The steps of a job are in `snapferry.orchestrator.driving`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from celery import Celery, Task
from kombu.exceptions import OperationalError
from pydantic import ValidationError
from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.errors import StoreError, StoreUnavailable
from snapferry.workers.broker.connection import OUTAGE, is_outage
from snapferry.workers.broker.open_ledger import open_ledger
from snapferry.workers.copying import time_limit
from snapferry.workers.copying.requeue import is_active, requeue, requeue_for_other_version, retry
from snapferry.workers.job_state import VERSION
from snapferry.workers.ledger import Ledger, UnknownJob
from snapferry.workers.lifecycle.shutdown import Interrupted, interruptible
from snapferry.workers.messages import is_job_id
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.logs import about, fields
from snapferry.workers.telemetry.metrics import counters
from snapferry.workers.telemetry.redaction import without_secrets

from .driving.dispatch import queue_removal_of_parts
from .driving.drive import drive_job
from .driving.ending import fail_job
from .driving.outcome import DriveOutcome, Result
from .driving.store_outage import stop_waiting, wait_for
from .planning.plan import SourceChanged
from .reporting.text.drive import describe_drive

log = logging.getLogger(__name__)

# The errors of a broker that does not answer. Batches that were queued before the error are queued twice.
BROKER_TROUBLE = (OperationalError, *OUTAGE)
# Seconds until a task whose broker did not answer runs again. It may do so any number of times.
BROKER_RETRY_S = 10
# Tries of a task that the broker refuses permanently, for example because its user lacks a right.
MAX_BROKER_RETRIES = 36

# Tries of a drive whose store does not answer, with pauses of 2, 4 and 8 s between them.
MAX_RETRIES = 3
RETRY_BASE_S = 2

_ENDED: Final = {Result.DONE, Result.FAILED, Result.CANCELLED, Result.ALREADY_ENDED}


class JobFailed(Exception):
    """A drive ended the job as failed; the message is the reason. Raised so that Celery shows the task as failed."""


def register(app: Celery, settings: Settings, access: AccessPolicy) -> None:
    """Add the orchestrator's tasks to *app*: three names for the drive of a job, by what calls for it."""
    # No traceback in the log, and no second record in Redis: the ledger has the reason.
    kept: dict[str, Any] = {"bind": True, "throws": (JobFailed,), "store_errors_even_if_ignored": False}

    def drive(task: Task, job_id: object) -> str:
        if not isinstance(job_id, str) or not is_job_id(job_id):
            log.warning("task dropped: it is for %.100r, which is not a job's id", job_id)
            return "dropped: not a job's id"
        ledger = open_ledger(settings)
        with about(job=job_id, task=task.request.id), time_limit.enforced():
            outcome = run_drive(task, ledger, job_id, lambda: drive_job(app, ledger, job_id, access), access)
            if outcome.result in _ENDED:
                with suppress(*BROKER_TROUBLE, RedisError, UnknownJob):
                    queue_removal_of_parts(app, ledger, job_id)
            text = describe_drive(outcome)
            log.info("%s: %s", task.name.partition(".")[2], text)
        if outcome.result is Result.FAILED:
            raise JobFailed(outcome.reason)
        return text

    @app.task(shared=False, name="snapferry.plan_job", max_retries=MAX_RETRIES, **kept)
    def plan(self: Task, job_id: str) -> str:
        return drive(self, job_id)

    @app.task(shared=False, name="snapferry.commit_snapshots", max_retries=MAX_RETRIES, **kept)
    def commit(self: Task, job_id: str) -> str:
        return drive(self, job_id)

    @app.task(shared=False, name="snapferry.look_after_job", max_retries=MAX_RETRIES, **kept)
    def look_after(self: Task, job_id: str) -> str:
        return drive(self, job_id)


def run_drive(
    task: Any,
    ledger: Ledger,
    job_id: str,
    drive: Callable[[], DriveOutcome],
    access: AccessPolicy = STRICT,
) -> DriveOutcome:
    """
    Drive a job; return what that came to.

    A store that does not answer is asked again a few times, a broker until it answers, and a drive that is
    interrupted because this process shuts down is queued for another process: then raises
    `celery.exceptions.Retry`. Any other error ends the job as failed, with the reason in the ledger, so every job
    ends. An unexpected error is raised after that.
    """
    try:
        with interruptible():
            outcome = drive()
        stop_waiting(ledger, job_id)
        return outcome
    except Interrupted:
        log.info("drive requeued: this orchestrator shuts down")
        raise requeue(task, "its orchestrator shut down; requeued") from None
    except BROKER_TROUBLE as error:
        if not is_outage(error) and task.request.retries >= MAX_BROKER_RETRIES:
            fail_job(ledger, job_id, f"the broker did not accept the job's tasks: {error}")
            raise
        log.warning("the broker does not answer; trying again in %d s", BROKER_RETRY_S)
        raise retry_broker(task, error) from error
    except UnknownJob:
        return DriveOutcome(result=Result.UNKNOWN)
    except ValidationError:
        if is_active(ledger, job_id):
            raise requeue_for_other_version(task, "the job is of another version") from None
        return fail_job(
            ledger,
            job_id,
            "the job was submitted by another version of snapferry, of which no orchestrator runs",
            cause=VERSION,
        )
    except SourceChanged as error:
        return fail_job(ledger, job_id, str(error))
    except StoreError as error:
        return _store_trouble(task, ledger, job_id, error, access)
    except Exception as error:
        # The traceback belongs into the orchestrator's log, the message into the job's record.
        message = f"{type(error).__name__}: {without_secrets(str(error))}"
        fail_job(ledger, job_id, f"unexpected {message}; see the orchestrator's log")
        raise


def retry_broker(task: Any, error: Exception) -> Exception:
    """Queue *task* again for when the broker accepts it; return what to raise. An outage uses up no try."""
    if is_outage(error):
        return requeue(task, f"the broker does not answer: {error}", in_s=BROKER_RETRY_S)
    return retry(task, BROKER_RETRY_S, error, max_retries=MAX_BROKER_RETRIES)


def _store_trouble(
    task: Any, ledger: Ledger, job_id: str, error: StoreError, access: AccessPolicy
) -> DriveOutcome:
    """
    Do what a store's *error* calls for: wait for the store, try the step again, or fail the job.

    Raises `celery.exceptions.Retry` where the drive was queued again.
    """
    counters.store_error(error)
    wait = wait_for(ledger, job_id, error, access)
    if wait.pause_s is not None:
        if not ledger.claim_mark(f"wait:{job_id}", int(wait.pause_s)):
            return DriveOutcome(result=Result.WAITING, reason=str(error))
        log.warning(
            "waiting for a store: %s", error, extra=fields(error=type(error).__name__, store=error.store)
        )
        raise requeue(task, f"waiting for a store: {error}", in_s=wait.pause_s) from error
    if wait.over:
        return fail_job(ledger, job_id, wait.over, cause=StoreUnavailable.__name__)
    if error.transient and task.request.retries < MAX_RETRIES:
        pause = RETRY_BASE_S * 2**task.request.retries
        log.warning("trying again in %d s: %s", pause, error, extra=fields(error=type(error).__name__))
        raise retry(task, pause, error, max_retries=MAX_RETRIES) from error
    return fail_job(ledger, job_id, f"{type(error).__name__}: {error}", cause=type(error).__name__)
