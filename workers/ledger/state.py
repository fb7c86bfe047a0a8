"""What the ledger says of a job: its state, its figures, its failures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from snapferry.stores.text.printable import printable
from snapferry.workers.messages import Limits
from snapferry.workers.outcome import Failure


class State(StrEnum):
    """
    Where a job stands.

    queued -> planning -> copying -> committing -> done, with a way back from
    committing to copying; from each of these to failed and cancelled. The last
    three are final. A paused job keeps its state.
    """

    QUEUED = "queued"
    PLANNING = "planning"
    COPYING = "copying"
    COMMITTING = "committing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Say whether the state is one that a job never leaves."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)


class Directive(IntEnum):
    """What a job wants of a batch that runs. False if the batch is to go on."""

    CONTINUE = 0
    STOP = 1
    HOLD = 2


class UnknownJob(Exception):
    """The ledger has no such job: it was never submitted here, or its record expired."""


class UnreadableJob(UnknownJob):
    """A job whose record in Redis is damaged, or of a version that this one does not know; the message says how."""

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(f"the record of job {job_id} in Redis cannot be read: {why}")


@dataclass(frozen=True)
class Waiting:
    """What a job waits for: the *store*, why, and *since* when, in seconds since the epoch."""

    store: str
    reason: str
    since: float


def waiting_of(text: Any) -> Waiting | None:
    """Return what a field of a job's record says that it waits for; None where that cannot be read."""
    try:
        found = json.loads(text or "null")
        if found is None:
            return None
        return Waiting(printable(str(found["store"])), printable(str(found["reason"])), float(found["since"]))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


@dataclass(frozen=True)
class RunningBatch:
    """
    A batch that *worker* has: *name* is ``series:number``; how far it is, in objects and bytes of its own plan.

    *in_flight* objects are on their way. *moved_at* is when the run last settled an object or moved a byte, 0.0 where
    the worker does not say.
    """

    job_id: str
    name: str
    worker: str
    objects: int
    size_bytes: int
    in_flight: int = 0
    moved_at: float = 0.0


@dataclass(frozen=True)
class JobStatus:
    """
    A job at one moment. Sizes in bytes, times in seconds since the epoch (0.0: not yet).

    *objects_settled* and *bytes_settled* count against *objects_total* and
    *bytes_total*, which are the plan's: distinct objects, advisory sizes.
    *bytes_copied* is what was really read and written. *batches_handed* of *batches_total* were queued so far.
    *snapshots_settled* are published, trusted (by ``--trust-manifest``) or failed.
    *queue* is the one that its batches wait in, "" for that of all who name none.
    *workers* have a batch of the job right now, *moved_at* is when anything of it last changed. *limits* are its own.
    *waiting* is the store that it waits for. *running* are the batches that workers have and report on.
    """

    job_id: str
    state: State
    paused: bool
    cancelling: bool
    dry_run: bool
    priority: str
    queue: str
    source: str
    destination: str
    first_snapshot: str
    error: str
    snapshots_total: int
    snapshots_published: int
    snapshots_trusted: int
    snapshots_failed: int
    objects_total: int
    bytes_total: int
    batches_total: int
    batches_handed: int
    batches_done: int
    objects_settled: int
    bytes_settled: int
    copied: int
    present: int
    failed: int
    healed: int
    deleted: int
    bytes_copied: int
    workers: tuple[str, ...]
    submitted_at: float
    started_at: float
    moved_at: float
    ended_at: float
    limits: Limits = field(default_factory=Limits)
    waiting: Waiting | None = None
    running: tuple[RunningBatch, ...] = ()

    @property
    def snapshots_there(self) -> int:
        """How many snapshots the destination has, by this job or, trusted, from before."""
        return self.snapshots_published + self.snapshots_trusted

    @property
    def snapshots_settled(self) -> int:
        """How many snapshots have come to an end."""
        return self.snapshots_there + self.snapshots_failed


@dataclass(frozen=True)
class FailedObject:
    """An object that failed in a job: why, how often its batch was tried, and by which worker last."""

    failure: Failure
    attempts: int
    worker: str


@dataclass(frozen=True)
class Begun:
    """
    What a worker is told when it begins a batch.

    *foreign*: the job's plan has no such batch. *accounted*: it is done. *stopped*: the job was cancelled or has
    ended. *paused*: it is to be held. *holder*: who else runs it now, or empty. *times*: how often it was begun and
    not heard of again, this time included. *deaths*: position -> how often a worker died while it copied that object
    and no other.
    """

    foreign: bool = False
    accounted: bool = False
    stopped: bool = False
    paused: bool = False
    holder: str = ""
    times: int = 0
    deaths: dict[int, int] = field(default_factory=dict)


class Spent(NamedTuple):
    """
    What a job has spent so far: *size_bytes* read from its source, *objects* copied, *cost* in millionths.

    *over* names the total that exceeds the budget, "" if none does. *copied_bytes*, *copied_objects* and *batch_cost*
    are the figures of the batch that reported.
    """

    over: str
    size_bytes: int
    objects: int
    cost: int
    copied_bytes: int = 0
    copied_objects: int = 0
    batch_cost: int = 0


@dataclass(frozen=True)
class Standing:
    """
    What decides on a job's next step, in one consistent reading.

    Names of batches are ``series:number``. *expired*: leases that ran out, so their workers died. *overdue*: batches
    whose next try should have begun, and was not. *held*: batches
    that were given back because the job was paused. *leased*: how many batches run or wait for another try,
    *running*: how many run.
    *waiting*: no worker reaches one of its stores. *idle_s*: for how long nothing of the job has moved. *heals*:
    group -> (turn, batches) of its last healing. *begins*: how often batches of the job were begun. *stalls*: how often
    batches were missed since *stalled_done* batches were done and *stalled_begins* begun.
    """

    state: State
    paused: bool
    cancelling: bool
    handed: int
    done: int
    failed: int
    expired: tuple[str, ...]
    overdue: tuple[str, ...]
    held: tuple[str, ...]
    leased: int
    running: int
    idle_s: float
    heals: dict[int, tuple[int, int]]
    stalls: int
    stalled_done: int
    waiting: bool = False
    begins: int = 0
    stalled_begins: int = 0
