"""
Batches onto the queue: the one file that knows groups and chords.

A chord's callback and its errback are the same task, the commit. It trusts
neither: it looks at the ledger and asks the destination. So a chord that calls
back early, twice or with failed parts does no harm.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from celery import Celery, chord

from workers.describe import describe_batch, describe_job
from workers.messages import BatchMessage, JobRequest

from .plan import Batch

# Before turns 1, 2, 3, ... Well below the visibility timeout, which counts a waiting message as delivered.
FIRST_PAUSE_S = 1
LONGEST_PAUSE_S = 60


def hand_out(
    app: Celery, request: JobRequest, batches: Iterable[Batch], *, series: str, of: int, turn: int
) -> None:
    """
    Queue *batches* of a job, and behind them its commit.

    *series* and each batch's number identify them in the ledger, *of* is the
    size of the plan. A later *turn* waits longer before it begins: what was in
    the way of the last one needs time to go. Raises kombu's OperationalError when the broker is away;
    some batches may be queued then, and queueing all of them again is safe.
    """
    pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**turn) if turn else None
    header = [_copy(app, request, batch, series, of).set(countdown=pause) for batch in batches]
    after = commit(app, request, turn)
    if not header:
        after.apply_async()
        return
    chord(header, app=app)(after.on_error(commit(app, request, turn)))


def commit(app: Celery, request: JobRequest, turn: int) -> Any:
    """Return the signature of the task that concludes turn *turn* of a job."""
    words = f"{describe_job(request.job_id, request.snapshot_id)} · commit, turn {turn + 1}"
    signature = app.signature("snapferry.commit_snapshot", args=(request.job_id, turn), immutable=True)
    return signature.set(argsrepr=words, kwargsrepr="")


def submit_plan(app: Celery, request: JobRequest) -> None:
    """Queue the planning of a job. The task's id is the job's id: it is the root of all tasks of the job."""
    words = f"{describe_job(request.job_id, request.snapshot_id)} · plan"
    signature = app.signature("snapferry.plan_job", args=(request.job_id,), immutable=True)
    signature.set(argsrepr=words, kwargsrepr="").apply_async(task_id=request.job_id)


def _copy(app: Celery, request: JobRequest, batch: Batch, series: str, of: int) -> Any:
    message = BatchMessage(
        job_id=request.job_id,
        series=series,
        number=batch.number,
        source=request.source,
        destination=request.destination,
        addresses="".join(batch.objects),
        sizes=tuple(batch.objects.values()),
        concurrency=request.concurrency,
    )
    signature = app.signature("snapferry.copy_batch", args=(message.model_dump(),), immutable=True)
    return signature.set(argsrepr=describe_batch(message, request.snapshot_id, of), kwargsrepr="")
