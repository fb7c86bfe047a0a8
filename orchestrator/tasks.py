"""
The orchestrator's Celery tasks: decode, call a step, translate errors into retries or the job's end.

The steps themselves are in `snapferry.orchestrator.driving.drive`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from kombu.exceptions import OperationalError
from pydantic import ValidationError
from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.errors import StoreError
from snapferry.workers.broker.connection import OUTAGE, BrokerUnavailable, is_outage
from snapferry.workers.copying import time_limit
from snapferry.workers.copying.tasks import again, hand_back, ledger_of, may_wait, queue_again
from snapferry.workers.ledger import Ledger, State, UnknownJob
from snapferry.workers.lifecycle.shutdown import Interrupted, interruptible
from snapferry.workers.messages import MirrorMessage, is_job_id
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.logs import about, fields
from snapferry.workers.telemetry.metrics import counters
from snapferry.workers.telemetry.redaction import without_secrets

from .driving.drive import drive_job, fail_job
from .driving.store_outage import stop_waiting, wait_for
from .planning.prepare import SourceChanged

log = logging.getLogger(__name__)

# What a task meets while the broker is away. What was queued before is queued twice then.
BROKER_TROUBLE = (OperationalError, *OUTAGE)
# After this long a task whose broker was away runs again: any number of times, as an outage costs only time.
BROKER_RETRY_S = 10
# Tries of a task that the broker refuses for good, for example because its user lacks a right.
MAX_BROKER_RETRIES = 36

# Tries of a step whose store gives no answer, and the pauses between them: 2, 4, 8 s.
MAX_RETRIES = 3
RETRY_BASE_S = 2


class JobFailed(Exception):
    """The job ended as failed by this look; the message is the reason. Raised so that the task is shown as failed."""


def register(app: Celery, settings: Settings, access: AccessPolicy) -> None:
    """Add the orchestrator's tasks to *app*: mirrors, and three names for the same look at a job, by what it is for."""
    # No traceback in the log, and no second record in Redis: the ledger has the reason.
    kept: dict[str, Any] = {"bind": True, "throws": (JobFailed,), "store_errors_even_if_ignored": False}

    def look(task: Task, job_id: str) -> str:
        if not isinstance(job_id, str) or not is_job_id(job_id):  # type: ignore[redundant-expr]
            log.warning("a task for something that is no job is dropped: %.100r", job_id)
            return "no job has such an id; nothing was done"
        ledger = ledger_of(settings)
        with about(job=job_id, task=task.request.id), time_limit.passing():
            return run_look(task, ledger, job_id, lambda: drive_job(app, ledger, job_id, access), access)

    @app.task(shared=False, name="snapferry.plan_job", max_retries=MAX_RETRIES, **kept)
    def plan(self: Task, job_id: str) -> str:
        return look(self, job_id)

    @app.task(shared=False, name="snapferry.commit_snapshots", max_retries=MAX_RETRIES, **kept)
    def commit(self: Task, job_id: str) -> str:
        return look(self, job_id)

    @app.task(shared=False, name="snapferry.look_after_job", max_retries=MAX_RETRIES, **kept)
    def look_after(self: Task, job_id: str) -> str:
        return look(self, job_id)

    @app.task(shared=False, name="snapferry.run_mirror", bind=True, max_retries=MAX_BROKER_RETRIES)
    def run(self: Task, message: dict[str, Any]) -> str:
        # Only a fleet with a schedule has mirrors.
        from .mirrors.schedule import run_mirror

        try:
            return run_mirror(settings, MirrorMessage.model_validate(message))
        except ValidationError:
            log.warning("a mirror of another version of snapferry is not run; restart its scheduler")
            return "a mirror of another version: nothing was done"
        except (BrokerUnavailable, *BROKER_TROUBLE) as error:
            raise _when_it_is_back(self, error) from error


def run_look(
    task: Any, ledger: Ledger, job_id: str, step: Callable[[], str], access: AccessPolicy = STRICT
) -> str:
    """Run one step of a job as `run_step` does; raise `JobFailed` if it brought the job to its end as failed."""
    had_ended = _failure_of(ledger, job_id) is not None
    words = run_step(task, ledger, job_id, step, access)
    log.info("%s: %s", task.name.partition(".")[2], words)
    reason = None if had_ended else _failure_of(ledger, job_id)
    if reason is None:
        return words
    raise JobFailed(reason)


def _failure_of(ledger: Ledger, job_id: str) -> str | None:
    """Return why a job failed; None if it did not, or not yet, or nobody knows."""
    try:
        status = ledger.status(job_id)
    except (UnknownJob, RedisError):
        return None
    return status.error if status.state is State.FAILED else None


def run_step(
    task: Any, ledger: Ledger, job_id: str, step: Callable[[], str], access: AccessPolicy = STRICT
) -> str:
    """
    Run one step of a job; return what it did, in words.

    A store that gives no answer is asked again a few times, a broker until it is
    back, and what is broken off because this process leaves is done by another
    one (`celery.exceptions.Retry`); any other trouble ends the job as failed, with
    its reason in the ledger, so no job is left without an end.
    """
    try:
        with interruptible():
            words = step()
        stop_waiting(ledger, job_id)
        return words
    except Interrupted:
        log.info("step given back: this orchestrator leaves")
        raise queue_again(task, "its orchestrator left; it was given back") from None
    except BROKER_TROUBLE as error:
        if not is_outage(error) and task.request.retries >= MAX_BROKER_RETRIES:
            fail_job(ledger, job_id, f"the broker did not take the job's tasks: {error}")
            raise
        log.warning("the broker is away; trying again in %d s", BROKER_RETRY_S)
        raise _when_it_is_back(task, error) from error
    except UnknownJob:
        return "this job's record is gone; nothing was done"
    except ValidationError:
        if may_wait(ledger, job_id):
            raise hand_back(task, "the job is of another version") from None
        fail_job(
            ledger,
            job_id,
            "the job was submitted by another version of snapferry, of which no orchestrator runs; submit it again",
        )
        return "the job is of another version"
    except SourceChanged as error:
        fail_job(ledger, job_id, f"{error}. Resume the job to copy what is there.")
        return f"failed: {error}"
    except StoreError as error:
        return _store_trouble(task, ledger, job_id, error, access)
    except Exception as error:
        # A surprise: its traceback belongs into the worker's log, its words into the job's record.
        words = f"{type(error).__name__}: {without_secrets(str(error))}"
        fail_job(ledger, job_id, f"unexpected {words}; see the orchestrator's log")
        raise


def _when_it_is_back(task: Any, error: Exception) -> Exception:
    """Queue *task* again for a time when the broker takes it; return what to raise. An outage uses up no try."""
    if is_outage(error):
        return queue_again(task, f"the broker is away: {error}", in_s=BROKER_RETRY_S)
    return again(task, BROKER_RETRY_S, error, max_retries=MAX_BROKER_RETRIES)


def _store_trouble(task: Any, ledger: Ledger, job_id: str, error: StoreError, access: AccessPolicy) -> str:
    """
    Do what a store's *error* in a step asks for: wait for the store, try the step again, or fail the job.

    Returns what was done, in words; raises `celery.exceptions.Retry` where the step was queued again.
    """
    counters.met(error)
    wait = wait_for(ledger, job_id, error, access)
    if wait.pause_s is not None:
        if not ledger.claim_mark(f"wait:{job_id}", int(wait.pause_s)):
            return f"waiting for a store: {error}"
        log.warning(
            "waiting for a store: %s", error, extra=fields(error=type(error).__name__, store=error.store)
        )
        raise queue_again(task, f"waiting for a store: {error}", in_s=wait.pause_s) from error
    if wait.over:
        fail_job(ledger, job_id, wait.over)
        return f"failed: {wait.over}"
    if error.transient and task.request.retries < MAX_RETRIES:
        pause = RETRY_BASE_S * 2**task.request.retries
        log.warning("trying again in %d s: %s", pause, error, extra=fields(error=type(error).__name__))
        raise again(task, pause, error, max_retries=MAX_RETRIES) from error
    fail_job(ledger, job_id, f"{type(error).__name__}: {error}")
    return f"failed: {error}"
