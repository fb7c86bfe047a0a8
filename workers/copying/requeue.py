"""Queue a task again: as a retry that counts, or without counting it."""

from __future__ import annotations

import logging
from typing import Any

from celery.exceptions import Retry

from snapferry.workers.ledger import Ledger, UnknownJob

log = logging.getLogger(__name__)

# A batch with transient errors is retried this often, after pauses of 2, 4 and 8 s.
MAX_RETRIES = 3
RETRY_BASE_S = 2

# Pause before a task that another worker must run, or is running, is delivered again.
STEP_ASIDE_S = 10

# A task of another version is requeued for a process of that version, until its job has not moved for this long.
UNREADABLE_S = 600


def retry(task: Any, pause_s: float, reason: object, *, max_retries: int = MAX_RETRIES) -> Exception:
    """Queue *task* again after *pause_s* seconds, as a retry that counts; return what to raise."""
    exception: Exception = task.retry(
        countdown=pause_s,
        exc=RuntimeError(str(reason)),
        throw=False,
        max_retries=max_retries,
        # Flower shows the task as before.
        argsrepr=task.request.argsrepr,
        kwargsrepr="",
    )
    return exception


def requeue(task: Any, reason: str, *, in_s: float | None = None, queue: str | None = None) -> Exception:
    """
    Queue *task* again without counting a retry; return what to raise.

    *queue* defaults to the queue that the task came from.
    """
    request = task.request
    options = {"argsrepr": request.argsrepr, "kwargsrepr": ""}
    if queue is not None:
        options["queue"] = queue
    task.signature_from_request(countdown=in_s, retries=request.retries, **options).apply_async()
    # Flower shows the first text, the log shows the second.
    exception: Exception = Retry(reason, exc=RuntimeError(reason), when=in_s)
    return exception


def requeue_for_other_version(task: Any, reason: str) -> Exception:
    """Queue *task* again for a process of another version, without counting a retry; return what to raise."""
    log.info("task requeued for another version: %s", reason)
    return requeue(task, reason, in_s=STEP_ASIDE_S)


def is_active(ledger: Ledger, job_id: str) -> bool:
    """Return whether a job has not ended and moved within `UNREADABLE_S`: then a process may still read its tasks."""
    try:
        standing = ledger.standing(job_id)
    except UnknownJob:
        return False
    return not standing.state.final and standing.idle_s < UNREADABLE_S
