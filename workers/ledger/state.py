"""The values that the ledger returns: states, figures, failures."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple

from snapferry.stores.address import Address
from snapferry.stores.text.printable import printable
from snapferry.workers.job_state import State, partly_planned
from snapferry.workers.messages import Action, Limits
from snapferry.workers.outcome import Failure
from snapferry.workers.redis_json import parse_json


class Directive(IntEnum):
    """What a job wants of a running batch. Only `CONTINUE` is false."""

    CONTINUE = 0
    STOP = 1
    HOLD = 2


class UnknownJob(Exception):
    """The ledger has no such job: it was never submitted here, or its record has expired."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return f"there is no job {printable(self.job_id)[:80]}: it was never submitted here, or its record expired"


class UnreadableJob(UnknownJob):
    """The record of a job is damaged, or of a version that this version cannot read. The message explains why."""

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(job_id)
        # Both are needed to make the exception again in another process.
        self.args = (job_id, why)
        self.why = why

    def __str__(self) -> str:
        return f"cannot read the record of job {self.job_id} in Redis: {self.why}"


def state_of(job_id: str, found: str) -> State:
    """Return the state that a script *found*. Raises `UnknownJob` for ""."""
    if not found:
        raise UnknownJob(job_id)
    return State(found)


class Dismissal(NamedTuple):
    """A decision that nobody will repair a failed job: when, in seconds since the epoch, *by* whom, and *why*."""

    at: float
    by: str
    why: str


class Repair(NamedTuple):
    """
    An object of a destination that was found *wrong* (missing, corrupt, not a file), and what took its place.

    *source* is the label of the store that it came from, "" if the worker was killed before it reported it.
    *quarantined* is the key under which the destination keeps what was there, "" if nothing was kept.
    """

    address: Address
    wrong: str
    source: str = ""
    quarantined: str = ""


@dataclass(frozen=True)
class Waiting:
    """The *store* that a job waits for, the *reason*, and *since* when, in seconds since the epoch."""

    store: str
    reason: str
    since: float


def waiting_of(text: Any) -> Waiting | None:
    """Return the store that a job waits for, from a field of its record. Return None if the field is unreadable."""
    try:
        found = parse_json(text or "null")
        if found is None:
            return None
        return Waiting(printable(str(found["store"])), printable(str(found["reason"])), float(found["since"]))
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


@dataclass(frozen=True)
class RunningBatch:
    """
    A batch that *worker* runs. *name* is ``series:number``.

    *objects* and *size_bytes* of the batch's plan are settled, and *in_flight* objects are being copied. *moved_at* is
    when the run last settled an object or moved a byte, 0.0 if the worker does not report it. It has *moved* so many
    bytes, and *hashed* so many before it sent them, 0 if the worker does not report it.
    """

    job_id: str
    name: str
    worker: str
    objects: int
    size_bytes: int
    in_flight: int = 0
    moved_at: float = 0.0
    moved: int = 0
    hashed: int = 0


@dataclass(frozen=True)
class ObjectInParts:
    """
    A large object of *size_bytes* that is copied in parts: *done* of its *parts* are, and *workers* copy others now.

    A part that an earlier run of the batch has copied counts as done.
    """

    address: str
    size_bytes: int
    parts: int
    done: int
    workers: tuple[str, ...] = ()


@dataclass(frozen=True)
class JobStatus:
    """
    A job at one moment. Sizes are in bytes, times in seconds since the epoch (0.0: not yet).

    *objects_settled* and *bytes_settled* count against *objects_total* and *bytes_total*, which come from the plan:
    distinct objects and advisory sizes. *bytes_copied* counts the bytes that were read and written, and
    *bytes_hashed* those of files that were read for their checksums alone. *copied_by_server*
    counts those of the *copied* objects that the server of both stores copied, None in a job that did not ask for that.
    *batches_handed* of *batches_total* batches were queued so far. A snapshot is settled when it ended well (published,
    in a copy; see *action*), when it is trusted (``--trust-manifest``), and when it failed. *queue* is the queue of the
    job's batches, "" for the default queue. *workers* run batches of the job at this moment, and *running* are those
    batches. *moved_at* is when the job last changed. *limits* are the job's own limits. *waiting* is the store that the
    job waits for. *bounded* is the bound at which the job began no further batch, ``max_bytes`` or ``max_seconds``, ""
    if it reached none. *continues* is the job that this one continues by a resume or a retry, *continued_by* the newest
    job that continues this one, "" for none. *mirror* is the mirror that queued this job, or the first one of its
    chain, "" for none. *superseded*: this job failed, and a job that continues it, directly or through others, or a
    later run of its mirror is done. *dismissed*: this job failed, and an operator decided that nobody will repair it,
    or the last job of its chain. *source_objects* is the store of the objects of *source*, "" if they are in it.
    *snapshots_planned*: the snapshots that are planned so far, of a job whose first batches were queued before its last
    manifest was read; 0 of other jobs. *cause* is why a job failed, in one word: see `snapferry.workers.job_state`.
    *halted_s* are the seconds since its start in which it was paused, or waited for a store, and *halted_at* is when
    the present pause or wait began, or that in which it ended. *imported*: the record comes from an export, which does
    not say which objects failed. *manifests_healed* counts the manifests that a heal wrote, because they were missing
    or corrupt. *in_parts* are some of the objects that are copied in parts now; only of a status that was asked for
    alone.
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
    bytes_hashed: int = 0
    halted_at: float = 0.0
    halted_s: float = 0.0
    manifests_healed: int = 0
    copied_by_server: int | None = None
    names_carried: int = 0
    names_kept: int = 0
    names_removed: int = 0
    action: Action = Action.COPY
    bounded: str = ""
    cause: str = ""
    limits: Limits = field(default_factory=Limits)
    waiting: Waiting | None = None
    running: tuple[RunningBatch, ...] = ()
    in_parts: tuple[ObjectInParts, ...] = ()
    continues: str = ""
    continued_by: str = ""
    mirror: str = ""
    source_objects: str = ""
    superseded: bool = False
    dismissed: Dismissal | None = None
    snapshots_planned: int = 0
    imported: bool = False

    @property
    def partly_planned(self) -> bool:
        """Whether batches are queued while later manifests are still read: the totals of the plan still grow."""
        return partly_planned(self.snapshots_planned, self.snapshots_total)

    @property
    def unresolved(self) -> bool:
        """Whether the job failed, and neither a later job did its work nor an operator dismissed it."""
        return self.state is State.FAILED and not self.superseded and self.dismissed is None

    @property
    def retryable(self) -> bool:
        """
        Whether a retry can try its failed objects again.

        It is known which ones failed, and all objects were tried, or those up to its bound.
        """
        if self.imported:
            return False
        tried = self.batches_done == self.batches_total and not self.partly_planned
        tried = tried or bool(self.bounded)
        return self.state in (State.FAILED, State.CANCELLED) and self.failed > 0 and tried

    @property
    def resumable(self) -> bool:
        """Whether a resume can do the rest: the job ended, and may have left something."""
        return self.state.final and not self.dry_run and (self.state is not State.DONE or bool(self.bounded))

    @property
    def bytes_moved(self) -> int:
        """The bytes that were read and written, those of running batches included."""
        return self.bytes_copied + sum(run.moved for run in self.running)

    @property
    def bytes_checked(self) -> int:
        """The bytes of files that were read for their checksums, those of running batches included."""
        return self.bytes_hashed + sum(run.hashed for run in self.running)

    @property
    def snapshots_there(self) -> int:
        """How many snapshots the destination has: published by this job, or trusted to be there before."""
        return self.snapshots_published + self.snapshots_trusted

    @property
    def snapshots_settled(self) -> int:
        """How many snapshots are published, trusted or failed."""
        return self.snapshots_there + self.snapshots_failed


@dataclass(frozen=True)
class FailedObject:
    """An object that failed in a job: why, how often its batch was tried, and which worker tried last."""

    failure: Failure
    attempts: int
    worker: str


@dataclass(frozen=True)
class Begun:
    """
    The ledger's answer to a worker that begins a batch.

    *foreign*: the job's plan has no such batch. *accounted*: the batch is accounted for. *stopped*: the job was
    cancelled or has ended. *bounded*: the job has reached its bound, so no further batch begins. *paused*: the batch is
    held until the job is resumed. *holder*: the other run that has the
    lease, or "". *times*: how often the batch was begun without an end, this time included. *deaths*: position -> how
    many workers died while they copied only that object. *lost*: how many machines were lost that ran the batch since
    it last got on, None if there were never any; these starts are not in *times*. *submitted*: when the job was
    submitted, as its record has it, "" if the batch has not begun. What the run reports counts only for this record:
    Redis may lose it, and the job may be submitted again under its id.
    """

    foreign: bool = False
    accounted: bool = False
    stopped: bool = False
    bounded: bool = False
    paused: bool = False
    holder: str = ""
    times: int = 0
    deaths: dict[int, int] = field(default_factory=dict)
    lost: int | None = None
    submitted: str = field(default="", compare=False)

    @property
    def interrupted(self) -> bool:
        """Whether an earlier run may have left unfinished uploads behind."""
        return self.times > 1 or self.lost is not None


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
    What decides on a job's next step, read at one moment.

    Batches are named ``series:number``. *expired*: batches whose lease has expired, because their worker died.
    *overdue*: batches whose retry did not begin in time. *held*: batches that wait until the job is resumed. *leased*:
    how many batches run or wait for a retry. *running*: how many run. *waiting*: no worker reaches one of the stores.
    *bounded*: the bound that the job has reached, "" for none.
    *idle_s*: seconds since the job last changed. *heals*: group -> (turn, batches) of its last healing. *begins*: how
    often batches of the job were begun. *stalls*: how often batches were found missing in the queue since
    *stalled_done* batches were done and *stalled_begins* were begun. *partly_planned* as in `JobStatus`.
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
    bounded: str = ""
    begins: int = 0
    stalled_begins: int = 0
    partly_planned: bool = False
