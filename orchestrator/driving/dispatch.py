"""
Batches onto the queue: the one file that knows groups and chords.

A chord's callback and its errback are the same task, the commit. It trusts
neither: it looks at the ledger and asks the destination. So a chord that calls
back early, twice, with failed parts or not at all does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from celery import Celery, chord

from snapferry.orchestrator.planning.plan import Batch
from snapferry.workers.copying.describe import describe_batch, describe_job
from snapferry.workers.messages import BatchMessage, JobRequest, pack_digests
from snapferry.workers.queues import copy_queue, step
from snapferry.workers.telemetry import tracing

# Before objects are healed again: 2, 4, 8, ... seconds. Well below the visibility timeout, which counts a waiting
# message as delivered, and below the time after which a batch that is in no queue counts as lost.
LONGEST_PAUSE_S = 16


def hand_out(
    app: Celery,
    request: JobRequest,
    batches: Sequence[Batch],
    *,
    series: str,
    of: int,
    snapshots: str,
    again: int = 0,
) -> None:
    """
    Queue *batches* of a job, and behind them its commit.

    *series* and each batch's number identify them in the ledger, *of* is how
    many batches the series has, *snapshots* says in words whose objects they
    are. The more often it was done *again*, the longer they wait: what was in
    the way needs time to go. Raises kombu's OperationalError when the broker
    is away; some batches may be queued then, and queueing all of them again is safe.
    """
    pause = min(LONGEST_PAUSE_S, 2**again) if again else None
    header = [
        _copy(app, request, batch, series, of, snapshots).set(
            countdown=pause, queue=copy_queue(request.queue), priority=step(request.priority, batch.number)
        )
        for batch in batches
    ]
    after = _commit(app, request.job_id, snapshots)
    after.on_error(_commit(app, request.job_id, snapshots))
    chord(header, app=app)(after)


def submit_plan(app: Celery, request: JobRequest) -> None:
    """Queue the planning of a job. The task's id is the job's id: it is the root of all tasks of the job."""
    ids = request.snapshot_ids
    words = describe_job(request.job_id, ids[0] if ids else "", len(ids) or None)
    signature = app.signature("snapferry.plan_job", args=(request.job_id,), immutable=True)
    signature.set(argsrepr=f"{words} · plan", kwargsrepr="")
    signature.apply_async(task_id=request.job_id, headers=tracing.header(request.job_id))


def look_after(app: Celery, job_id: str, why: str, *, in_s: float | None = None) -> None:
    """Queue a look at a job, outside the course of its chords. Raises kombu's OperationalError."""
    signature = app.signature("snapferry.look_after_job", args=(job_id,), immutable=True)
    words = f"job {job_id[:8]} · {why}"
    signature.set(argsrepr=words, kwargsrepr="").apply_async(
        root_id=job_id, parent_id=job_id, countdown=in_s, headers=tracing.header(job_id)
    )


def _commit(app: Celery, job_id: str, snapshots: str) -> Any:
    signature = app.signature("snapferry.commit_snapshots", args=(job_id,), immutable=True)
    return signature.set(argsrepr=f"job {job_id[:8]} · {snapshots} · commit", kwargsrepr="")


def batch_message(request: JobRequest, batch: Batch, series: str) -> BatchMessage:
    """Return what a worker is told of *batch*."""
    return BatchMessage(
        version=request.version,
        job_id=request.job_id,
        series=series,
        number=batch.number,
        source=request.source,
        destination=request.destination,
        addresses=pack_digests(batch.digests),
        sizes=batch.sizes,
        positions=batch.positions,
        concurrency=request.concurrency,
    )


def _copy(app: Celery, request: JobRequest, batch: Batch, series: str, of: int, snapshots: str) -> Any:
    message = batch_message(request, batch, series)
    signature = app.signature("snapferry.copy_batch", args=(message.model_dump(),), immutable=True)
    return signature.set(argsrepr=describe_batch(message, snapshots, of), kwargsrepr="")
