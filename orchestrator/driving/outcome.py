"""The result of one drive of a job, as values. `snapferry.orchestrator.reporting.text.drive` puts them into words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from snapferry.workers.ledger import State
from snapferry.workers.messages import Action


class Result(StrEnum):
    """The state of the job after a drive."""

    CONTINUES = "continues"
    """The job is open. The counts of the outcome tell which steps were taken; none, if it waits for its batches."""
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    ALREADY_ENDED = "already ended"
    """The job had ended before."""
    BUSY = "busy"
    """Another orchestrator drives the job, and will drive it once more."""
    PAUSED = "paused"
    CANCELLING = "cancelling"
    """The job was cancelled, and batches of it still run."""
    STOPPING = "stopping"
    """The job's budget is spent, and batches of it still run."""
    WAITING = "waiting"
    """The job waits for a store, and another drive of it is queued already."""
    UNKNOWN = "unknown"
    """The job's record is gone."""


@dataclass(frozen=True)
class PlanSize:
    """The size of a plan: planned snapshots, distinct objects with their bytes, and batches."""

    snapshots: int
    objects: int
    size_bytes: int
    batches: int


@dataclass(frozen=True, kw_only=True)
class DriveOutcome:
    """
    The result of one drive of a job.

    *reason*: why the job failed, as its record has it, or what it waits for. *state*: that of a job that had ended
    before, None where it is not known. *planned*: the plan, if this drive made it. *to_do*: of a dry run, how many
    objects would be copied, files written, or objects or files read. *requeued*, *abandoned*, *queued*: batches.
    *published*, *unpublished*: snapshots that ended well (published, in a copy; see *action*), and others. *healing*:
    groups whose absent objects are copied again. *running*: batches that still run.
    """

    result: Result = Result.CONTINUES
    action: Action = Action.COPY
    reason: str = ""
    state: State | None = None
    planned: PlanSize | None = None
    to_do: int | None = None
    requeued: int = 0
    abandoned: int = 0
    queued: int = 0
    published: int = 0
    unpublished: int = 0
    healing: int = 0
    running: int = 0
