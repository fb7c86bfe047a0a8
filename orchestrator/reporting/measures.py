"""
The figures of a job, from its counters: counts that add up, share, throughput and time left.

Pages, commands and documents show these, and compute none of their own.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Final, TypeVar

from snapferry.workers.ledger import JobStatus, RunningBatch, State
from snapferry.workers.messages import Action

_State = TypeVar("_State", bound=StrEnum)

# The largest share of bytes that is shown while objects are left.
ALMOST: Final = 0.99

# Less than this share, and fewer than these bytes: the speed is that of the first objects, or of the start.
FEW: Final = 0.01
FEW_BYTES: Final = 10_000_000

# Seconds without progress after which a job counts as idle.
IDLE_S: Final = 10.0

# Seconds without progress after which a batch is mentioned, even if the rest of its job makes progress.
BATCH_IDLE_S: Final = 60.0


class ObjectState(StrEnum):
    """
    Where an object of a job is.

    COPIED, PRESENT and FAILED are its outcomes. RUNNING objects are settled in a batch that has not ended; if the job
    has ended, that batch was stopped. LEFT are all others.
    """

    COPIED = "copied"
    PRESENT = "present"
    FAILED = "failed"
    RUNNING = "running"
    LEFT = "left"


class SnapshotEnd(StrEnum):
    """Where a snapshot of a job is. GOOD: published by a copy; verified or fetched by other actions."""

    GOOD = "good"
    TRUSTED = "trusted"
    FAILED = "failed"
    LEFT = "left"


class BatchState(StrEnum):
    """Where a batch of a job's plan is. UNQUEUED: not queued yet."""

    DONE = "done"
    RUNNING = "running"
    QUEUED = "queued"
    UNQUEUED = "unqueued"


class Stall(StrEnum):
    """
    What an open job waits for that makes no progress, and that waits for no store.

    ORCHESTRATOR, WORKER: for a process that takes its next step. BATCHES: for batches that run and do not move.
    """

    ORCHESTRATOR = "orchestrator"
    WORKER = "worker"
    BATCHES = "batches"


def object_counts(status: JobStatus) -> dict[ObjectState, int]:
    """Return how many objects are in each state. They add up to the total of the plan."""
    ended = status.copied + status.present + status.failed
    counts = {
        ObjectState.COPIED: status.copied,
        ObjectState.PRESENT: status.present,
        ObjectState.FAILED: status.failed,
        ObjectState.RUNNING: status.objects_settled - ended,
    }
    return _whole(counts, ObjectState.LEFT, status.objects_total)


def snapshot_counts(status: JobStatus) -> dict[SnapshotEnd, int]:
    """Return how many snapshots are in each state. They add up to the total of the job."""
    counts = {
        SnapshotEnd.GOOD: status.snapshots_published,
        SnapshotEnd.TRUSTED: status.snapshots_trusted,
        SnapshotEnd.FAILED: status.snapshots_failed,
    }
    return _whole(counts, SnapshotEnd.LEFT, status.snapshots_total)


def batch_counts(status: JobStatus, running: int) -> dict[BatchState, int]:
    """Return how many batches are in each state, *running* of them at a worker. They add up to the plan's total."""
    running = 0 if status.state.final else running
    counts = {
        BatchState.DONE: status.batches_done,
        BatchState.RUNNING: running,
        BatchState.QUEUED: 0 if status.state.final else status.batches_handed - status.batches_done - running,
    }
    return _whole(counts, BatchState.UNQUEUED, status.batches_total)


def _whole(counts: dict[_State, int], rest: _State, total: int) -> dict[_State, int]:
    """Return *counts* with the *rest*, together *total*, whatever somebody wrote into the record."""
    left = max(0, total)
    whole = {}
    for part, count in counts.items():
        whole[part] = min(left, max(0, count))
        left -= whole[part]
    return whole | {rest: left}


def share(status: JobStatus) -> float:
    """
    Return the share of a job that is settled, 0.0 to 1.0: of its bytes, or of its objects if they have no bytes.

    It never decreases, and is 1.0 only if every object is settled. Failed objects are settled. A job that is done and
    has no objects is whole. It is 0.0 while the plan is not complete: the total is not known.
    """
    if status.partly_planned:
        return 0.0
    if not status.objects_total:
        return 1.0 if status.state is State.DONE else 0.0
    of_objects = status.objects_settled / status.objects_total
    if not status.bytes_total:
        return of_objects
    of_bytes = status.bytes_settled / status.bytes_total
    # The last objects may have few bytes, or none.
    return of_bytes if of_objects >= 1.0 else min(of_bytes, max(ALMOST, of_objects))


def percent(status: JobStatus) -> int:
    """
    Return how much of a job to show as done, in percent, rounded down.

    It is the settled share of a job that has not failed, and 100 only if every object is settled and none failed. Of a
    job that failed or was cancelled it is what is at the destination: the share of objects that ended well.
    """
    done = share(status)
    if status.state in (State.FAILED, State.CANCELLED):
        counts = object_counts(status)
        well = counts[ObjectState.COPIED] + counts[ObjectState.PRESENT]
        done = min(done, ALMOST, well / status.objects_total if status.objects_total else 0.0)
    elif status.failed:
        done = min(done, ALMOST)
    # A share such as 0.29 is slightly less than that in binary.
    return int(100 * done + 1e-9)


def objects_moved(status: JobStatus) -> int:
    """Return how many objects were read and written; of a verify or heal: read. Others do not count."""
    if status.action is Action.HEAL:
        return status.copied + status.present + status.failed
    return status.copied if status.action is not Action.VERIFY else status.present + status.failed


def bytes_worked(status: JobStatus) -> int:
    """
    Return the bytes that were read and written; of a heal and a push, also those that were read for checksums.

    A heal reads each object at its destination: those bytes are by the sizes in the manifests. A push reads each long
    file once before it sends it.
    """
    checked = max(0, status.bytes_settled) if status.action is Action.HEAL else max(0, status.bytes_checked)
    return status.bytes_moved + checked


def rate(status: JobStatus) -> float:
    """
    Return the bytes moved per second of `running_s`, 0.0 if that is not known.

    Moved bytes are those of `bytes_worked`. Objects of a copy that were found present or failed have none.
    """
    elapsed = running_s(status)
    return bytes_worked(status) / elapsed if elapsed > 0 else 0.0


def seconds_left(status: JobStatus) -> float | None:
    """
    Return how long the rest takes at the speed so far, None if that is not known or nothing runs.

    Nothing runs in a job that is paused, is being cancelled, waits for a store, or has no worker. Nothing is known of
    the speed before `FEW` or `FEW_BYTES` of the bytes are settled.
    """
    done = share(status)
    if status.state is not State.COPYING or status.paused or status.cancelling or not 0.0 < done < 1.0:
        return None
    elapsed = running_s(status)
    if status.waiting is not None or not status.workers or elapsed <= 0:
        return None
    if done < FEW and status.bytes_total and status.bytes_settled < FEW_BYTES:
        return None
    if idle_s(status) > IDLE_S:
        # The speed so far does not hold any more.
        return None
    return elapsed * (1 - done) / done


def idle_s(status: JobStatus) -> float:
    """Return the seconds since a job last made progress."""
    return time.time() - max(status.moved_at, status.submitted_at)


def stall(status: JobStatus) -> Stall | None:
    """Return what a job waits for that makes no progress, None if it makes some, or waits for a store."""
    if status.state.final or status.paused or status.cancelling or status.waiting is not None:
        return None
    if stuck := stuck_batches(status):
        # A worker that died may still have the batch of a large object, while others copy parts of it.
        moving = {worker for one in status.in_parts for worker in one.workers} - {run.worker for run in stuck}
        return None if moving else Stall.BATCHES
    if idle_s(status) <= IDLE_S:
        return None
    if status.state is State.QUEUED:
        return Stall.ORCHESTRATOR
    if status.state is not State.COPYING or status.workers or any(one.workers for one in status.in_parts):
        return None
    return Stall.WORKER


def stuck_batches(status: JobStatus) -> list[RunningBatch]:
    """Return the batches that run without progress: of a job that makes some, those without any for long."""
    if status.state is not State.COPYING:
        return []
    longest_s = IDLE_S if idle_s(status) > IDLE_S else BATCH_IDLE_S
    now = time.time()
    return [run for run in status.running if run.moved_at and now - run.moved_at > longest_s]


def running_s(status: JobStatus) -> float:
    """Return the seconds since the start of a job in which it was not paused and did not wait for a store."""
    if not status.started_at:
        return 0.0
    end = status.ended_at or time.time()
    if status.halted_at > status.started_at:
        end = min(end, status.halted_at)
    return max(0.0, end - status.started_at - status.halted_s)
