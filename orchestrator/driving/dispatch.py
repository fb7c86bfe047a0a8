"""
Batches onto the queue: the only file that knows groups and chords.

A chord's callback and its errback are the same task, the commit. It does not trust either: it reads the ledger and
asks the destination. So a chord that calls back early, twice, with failed parts or not at all does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

from celery import Celery, chord
from pydantic import ValidationError

from snapferry.orchestrator.planning.batches import Batch
from snapferry.workers.broker.job_celery import Later
from snapferry.workers.copying.describe import Described, describe_batch, describe_job
from snapferry.workers.copying.parts.asking import COPY_PARTS
from snapferry.workers.ledger import Ledger, UnknownJob
from snapferry.workers.messages import Action, BatchMessage, JobSpec, encode_digests, encode_lines
from snapferry.workers.messages.files import apart
from snapferry.workers.queues import copy_queue, step
from snapferry.workers.telemetry import tracing

# The longest pause before objects are healed again, after 2, 4, 8 s. It is well below the visibility timeout, which
# counts a waiting message as delivered, and below the time after which a batch that is in no queue counts as lost.
LONGEST_PAUSE_S: Final = 16

# Pauses between attempts to remove what is left of copies in parts: the shortest, and the longest, which is well below
# the visibility timeout. And how long after the end of the job the last attempt is.
REMOVE_AGAIN_S: Final = (10.0, 600.0)
REMOVE_PARTS_S: Final = 24 * 3600.0


def queue_batches(
    app: Celery,
    spec: JobSpec,
    batches: Sequence[Batch],
    *,
    series: str,
    of: int,
    snapshots: str,
    turn: int = 0,
) -> None:
    """
    Queue *batches* of a job, followed by its commit.

    *series* and the number of a batch identify it in the ledger. *of* is how many batches the series has, 0 if that is
    not known yet, and *snapshots* describes the snapshots they are for: both for people. *turn* is how often these
    objects were healed, 0 for batches of the plan: the higher it is, the longer the batches wait. Raises kombu's
    OperationalError if the broker is down; some batches may be queued then, and queueing all of them again is safe.
    """
    pause = min(LONGEST_PAUSE_S, 2**turn) if turn else None
    header = [
        _copy(app, spec, batch, series, of, snapshots).set(
            countdown=pause, queue=copy_queue(spec.queue), priority=step(spec.priority, batch.number)
        )
        for batch in batches
    ]
    after = _commit(app, spec.job_id, snapshots)
    after.on_error(_commit(app, spec.job_id, snapshots))
    chord(header, app=app)(after)


def queue_plan(app: Celery, spec: JobSpec) -> None:
    """
    Queue the planning of a job. Raises kombu's OperationalError.

    The task's id is the job's id, which `JobCelery` gives to all tasks of the job as their root id.
    """
    ids = spec.snapshot_ids
    description = describe_job(spec.job_id, ids[0] if ids else "", len(ids) or None, spec.action)
    signature = app.signature("snapferry.plan_job", args=(spec.job_id,), immutable=True)
    signature.set(argsrepr=f"{description} · plan", kwargsrepr="")
    signature.apply_async(task_id=spec.job_id, headers=tracing.header(spec.job_id))


def queue_drive(app: Celery, job_id: str, why: str, *, in_s: float | None = None) -> None:
    """Queue a drive of a job besides those that its chords queue. Raises kombu's OperationalError."""
    signature = app.signature("snapferry.look_after_job", args=(job_id,), immutable=True)
    signature.set(argsrepr=f"job {job_id[:8]} · {why}", kwargsrepr="").apply_async(
        countdown=in_s, headers=tracing.header(job_id)
    )


def queue_removal_of_parts(app: Celery, ledger: Ledger, job_id: str) -> None:
    """
    Ask workers to remove what is left of objects that a job, which has ended, has begun to copy in parts.

    Nearly always there is nothing: the worker that copies an object removes it. A message may be dropped by a worker of
    an older version, or reach one that does not reach the store. So the job is driven again until nothing is left, but
    not for longer than `REMOVE_PARTS_S`. May be called again. Raises kombu's OperationalError and `RedisError`.
    """
    queued = False
    for text in ledger.begun_parts(job_id):
        try:
            message = BatchMessage.model_validate_json(text)
            queue = copy_queue(ledger.field(job_id, "queue"))
        except (ValidationError, UnknownJob):
            continue
        if message.job_id == job_id:
            signature = app.signature(
                COPY_PARTS, args=(message.model_dump(exclude=message.new_defaults()),), immutable=True
            )
            shown = f"job {job_id[:8]} · what is left of an object that was copied in parts"
            signature.set(argsrepr=shown, kwargsrepr="", queue=queue).apply_async()
            queued = True
    if queued:
        now = time.time()
        ended_s = max(0.0, now - (ledger.status(job_id).ended_at or now))
        if ended_s < REMOVE_PARTS_S:
            pause_s = min(max(ended_s, REMOVE_AGAIN_S[0]), REMOVE_AGAIN_S[1])
            queue_drive(app, job_id, "are parts of objects left?", in_s=pause_s)


def batch_message(spec: JobSpec, batch: Batch, series: str) -> BatchMessage:
    """Return the message to a worker for *batch*."""
    addresses, lines, checksums = _written(spec, batch)
    # Its parts are checked already, and the worker checks the message.
    return BatchMessage.model_construct(
        version=spec.version,
        job_id=spec.job_id,
        series=series,
        number=batch.number,
        source=spec.source,
        destination=spec.destination,
        addresses=addresses,
        sizes=batch.sizes,
        lines=lines,
        checksums=checksums,
        positions=batch.positions,
        concurrency=spec.batch_concurrency,
        action=spec.action,
        checksum=spec.checksum,
        server_side=spec.server_side,
        more_sources=spec.more_sources,
        verify=spec.verify,
        tree=spec.tree.model_copy(update={"exclude": ()}),
    )


def _written(spec: JobSpec, batch: Batch) -> tuple[str, str, str]:
    """Return the addresses, the lines and the checksums of a batch as its message has them."""
    if not batch.lines or not spec.by_newer_rules:
        return encode_digests(batch.digests), encode_lines(batch.lines), ""
    if spec.action is not Action.PULL:
        return "", encode_lines(batch.lines), ""
    lines, digests = apart(batch.lines)
    return "", encode_lines(lines), encode_digests(digests)


def _copy(app: Celery, spec: JobSpec, batch: Batch, series: str, of: int, snapshots: str) -> Any:
    def message() -> dict[str, Any]:
        made = batch_message(spec, batch, series)
        return made.model_dump(exclude=made.new_defaults())

    signature = app.signature("snapferry.copy_batch", args=(Later(message),), immutable=True)
    described = Described(spec.job_id, series, batch.number, batch.sizes, spec.action)
    return signature.set(argsrepr=describe_batch(described, snapshots, of), kwargsrepr="")


def _commit(app: Celery, job_id: str, snapshots: str) -> Any:
    signature = app.signature("snapferry.commit_snapshots", args=(job_id,), immutable=True)
    return signature.set(argsrepr=f"job {job_id[:8]} · {snapshots} · commit", kwargsrepr="")
