"""
The export of jobs and schedules, one JSON document (docs/json.md).

Whoever can write the file may have written anything. So a document is read as a whole or not at all: each field is
known, has its type and its bounds. A job has the request with which it was submitted, checked as each submission is.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.stores.text.printable import printable
from snapferry.workers.faults import fault_text
from snapferry.workers.job_state import State
from snapferry.workers.ledger.schedules import LATEST
from snapferry.workers.messages import JobSpec

SCHEMA: Final = "snapferry.jobs/1"

MOST_JOBS: Final = 100_000
"""Jobs of one document."""

MOST_ROWS: Final = 1000
"""Snapshots of a job that are listed one by one."""

CounterName = Literal[
    "snapshots_total", "published", "trusted", "unpublished", "objects_total", "bytes_total", "batches_total",
    "batches_handed", "batches_done", "objects_settled", "bytes_settled", "copied", "present", "failed", "healed",
    "deleted", "bytes_copied", "names_carried", "names_kept", "names_removed",
    "snapshots_planned", "bytes_hashed", "manifests_healed",
]  # fmt: skip
COUNTERS: Final[tuple[CounterName, ...]] = get_args(CounterName)
"""The counters of a job's record that an export has."""

_SCHEDULE: Final = r"^$|^(mirror|scrub):[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$"
_OTHER_JOB: Final = r"^$|^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"

Count = Annotated[int, Field(strict=True, ge=0, le=2**53 - 1)]
Moment = Annotated[float, Field(ge=0, lt=LATEST, allow_inf_nan=False)]


class InvalidExport(Exception):
    """A file is not an export that can be read. The message explains why, in one line, without the file's name."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Part):
    """How a snapshot of a job ended; the fields are those of `SnapshotRow`."""

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    state: Literal["pending", "published", "trusted", "failed", "verified", "checked", "fetched"]
    objects: Count = 0
    size_bytes: Count = 0
    copied: Count = 0
    present: Count = 0
    shared: Count = 0
    missing: Count = 0
    ended_at: Moment = 0.0
    reason: Annotated[str, Field(max_length=4096)] = ""

    @property
    def row(self) -> SnapshotRow:
        """The row, its reason safe for a terminal."""
        return SnapshotRow(**self.model_dump() | {"reason": printable(self.reason)})


class ExportedJob(_Part):
    """A job as it stood when it was exported. Times are in seconds since the epoch, 0.0: not yet."""

    request: JobSpec
    state: State
    paused: bool = False
    cancelling: bool = False
    schedule: Annotated[str, Field(pattern=_SCHEDULE)] = ""
    continued_by: Annotated[str, Field(pattern=_OTHER_JOB)] = ""
    submitted_at: Moment
    started_at: Moment = 0.0
    ended_at: Moment = 0.0
    error: Annotated[str, Field(max_length=16_384)] = ""
    cause: Annotated[str, Field(pattern=r"^[A-Za-z_]{0,64}$")] = ""
    bounded: Literal["", "max_bytes", "max_seconds"] = ""
    counters: dict[CounterName, Count] = {}
    snapshots: Annotated[tuple[Row, ...], Field(max_length=MOST_ROWS)] | None = None
    """None: the job has more than `MOST_ROWS`, or has not ended."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [row.id for row in self.snapshots or ()]
        if len(set(ids)) < len(ids):
            raise ValueError("a snapshot is listed twice")
        if (
            self.snapshots is not None
            and not self.request.everything
            and set(ids) != {*self.request.snapshot_ids}
        ):
            raise ValueError("the snapshots are not those of the request")
        return self


class ExportedScrub(_Part):
    """How far a scrub is: see `ScrubState`. *verified* and *findings*: index of a share -> time, number of findings."""

    store: Annotated[str, Field(max_length=16_384)]
    shares: Annotated[int, Field(strict=True, ge=1, le=10_000)]
    share: Count
    at: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    cycle: Count
    cycle_at: Moment
    began_at: Moment
    why: Annotated[str, Field(pattern=r"^[a-z]{0,16}$")] = ""
    tries: Count = 0
    succeeded_at: Moment = 0.0
    known: Count = 0
    manifests: Count = 0
    findings_total: Count = 0
    settled: Annotated[str, Field(pattern=_OTHER_JOB)] = ""
    """The last job that was recorded."""
    found: Count = 0
    part_at: Moment = 0.0
    """What the runs of the current share have found so far, and when the first of them began."""
    verified: dict[Annotated[str, Field(pattern=r"^\d{1,5}$")], Moment] = {}
    findings: dict[Annotated[str, Field(pattern=r"^\d{1,5}$")], Count] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not all(
            share < self.shares for share in (self.share, *map(int, (*self.verified, *self.findings)))
        ):
            raise ValueError("there is no such share")
        return self


class ExportedSchedule(_Part):
    """The records of a mirror or a scrub. Times are in seconds since the epoch, 0.0: never."""

    kind: Literal["mirror", "scrub"]
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$")]
    every: Annotated[str, Field(min_length=1, max_length=256)]
    late_after: Annotated[float, Field(gt=0, lt=LATEST, allow_inf_nan=False)] | None = None
    since: Moment
    removed_at: Moment = 0.0
    success_at: Moment = 0.0
    """The last success of a mirror; that of a scrub is in *scrub*."""
    job: Annotated[str, Field(pattern=_OTHER_JOB)] = ""
    started_at: Moment = 0.0
    scrub: ExportedScrub | None = None


class Export(_Part):
    """
    The document. *instance* names the data of the Redis server that it was made from, "" if it has no name.

    *open_only*: jobs that had ended were left out. *unreadable*: how many jobs were, because of a damaged record.
    """

    schema_: Annotated[Literal["snapferry.jobs/1"], Field(alias="schema")]
    tool: Annotated[str, Field(max_length=100)] = ""
    exported_at: Moment
    instance: Annotated[str, Field(pattern=r"^[0-9a-f]{0,32}$")] = ""
    open_only: bool = False
    unreadable: Count = 0
    jobs: Annotated[tuple[ExportedJob, ...], Field(max_length=MOST_JOBS)] = ()
    schedules: Annotated[tuple[ExportedSchedule, ...], Field(max_length=10_000)] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = {job.request.job_id for job in self.jobs}
        if len(ids) < len(self.jobs):
            raise ValueError("a job is listed twice")
        return self


def parse_export(data: bytes) -> Export:
    """Return the export in a file's content. Raises `InvalidExport`."""
    try:
        return Export.model_validate_json(data)
    except ValidationError as error:
        raise InvalidExport(_reason(error)) from None


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    if place == "schema":
        return f"its schema is not {SCHEMA}: it is not an export, or one of another version of snapferry"
    if first["type"] == "json_invalid":
        return f"it is not JSON: {printable(first['msg'].removeprefix('Invalid JSON: '))[:200]}"
    return f"{printable(place)[:200] or 'the document'}: {printable(fault_text(first))[:200]}"
