"""
The orchestrator's Celery tasks: decode, call a step, translate errors into retries or the job's end.

The steps themselves are in `orchestrator.drive`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from pydantic import ValidationError

from stores.errors import StoreError
from workers.ledger import Ledger, UnknownJob
from workers.settings import Settings
from workers.tasks import ledger_of

from .drive import conclude_job, fail_job, plan_job

log = logging.getLogger(__name__)

# Tries of a step whose store gives no answer, and the pauses between them: 2, 4, 8 s.
MAX_RETRIES = 3
RETRY_BASE_S = 2


def register(app: Celery, settings: Settings) -> None:
    """Add the orchestrator's tasks to *app*."""

    @app.task(shared=False, name="snapferry.plan_job", bind=True, max_retries=MAX_RETRIES)
    def plan(self: Task, job_id: str) -> str:
        ledger = ledger_of(settings)
        return run_step(self, ledger, job_id, lambda: plan_job(app, ledger, job_id))

    @app.task(shared=False, name="snapferry.commit_snapshot", bind=True, max_retries=MAX_RETRIES)
    def commit(self: Task, job_id: str, turn: int) -> str:
        ledger = ledger_of(settings)
        return run_step(self, ledger, job_id, lambda: conclude_job(app, ledger, job_id, turn))


def run_step(task: Any, ledger: Ledger, job_id: str, step: Callable[[], str]) -> str:
    """
    Run one step of a job; return what it did, in words.

    A store that gives no answer is asked again a few times
    (`celery.exceptions.Retry`); any other trouble ends the job as failed, with
    its reason in the ledger, so no job is left without an end.
    """
    try:
        return step()
    except UnknownJob:
        return "this job's record is gone; nothing was done"
    except ValidationError:
        fail_job(ledger, job_id, "the job was submitted by another version of snapferry; submit it again")
        return "the job is of another version"
    except StoreError as error:
        if error.transient and task.request.retries < MAX_RETRIES:
            pause = RETRY_BASE_S * 2**task.request.retries
            log.warning("job %s: trying again in %d s: %s", job_id, pause, error)
            raise task.retry(countdown=pause, exc=RuntimeError(str(error))) from error
        fail_job(ledger, job_id, f"{type(error).__name__}: {error}")
        return f"failed: {error}"
    except Exception as error:
        # A surprise: its traceback belongs into the worker's log, its words into the job's record.
        fail_job(ledger, job_id, f"unexpected {type(error).__name__}: {error}; see the orchestrator's log")
        raise
