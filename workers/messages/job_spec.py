"""
What a user asks of a job, from the command line, the Python API, a mirror or a retry.

One object carries it: it is built where the request comes in, kept in the job's record, and read by every step of
the job.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, Field, model_validator

from snapferry.stores.address import SnapshotId
from snapferry.stores.names.name import LONGEST, is_name

from ..queues import NAME, Priority
from ..settings.durations import LONGEST_PATIENCE_S
from ..settings.environment import PATIENCE_S
from .actions import MOST_SOURCES, Action, Scope, ScrubPart, TreeOptions, VerifyOptions
from .addresses import decode_addresses, decode_snapshot_ids, encode_snapshot_ids
from .base import (
    ENCODED_ADDRESS,
    GROUP_BATCHES,
    LARGEST,
    LONGEST_URL,
    MOST_OBJECTS,
    MOST_SNAPSHOTS,
    VERSION,
    Concurrency,
    JobId,
    Message,
    OtherJobId,
    Part,
    StoreRef,
)

_MOST_CONCURRENCY: Final = 1024

NEWEST_RULES: Final = 2
"""The newest of `JobSpec.rules`."""

_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Order(StrEnum):
    """The order in which a job publishes its snapshots: as given, newest manifest first, or fewest bytes first."""

    GIVEN = "given"
    NEWEST = "newest"
    SMALLEST = "smallest"


class Prune(Part):
    """
    Delete the manifests at the destination that the source does not have.

    Nothing is deleted if that would be more than *max_delete* manifests (None: no limit). Nothing is deleted either
    if the source lists no manifest at all, unless *force* is set.
    """

    max_delete: int | None = Field(default=None, ge=0, le=LARGEST)
    force: bool = False


class Price(Part):
    """
    What requests to the stores whose URL begins with *store* cost, and the bytes read from them.

    *requests*: S3 operation -> price of 1,000 requests. *egress*: price of 10**9 bytes read. All in one currency.
    """

    store: str = Field(max_length=LONGEST_URL)
    requests: dict[Annotated[str, Field(max_length=64)], _Amount] = Field(
        default_factory=dict, max_length=100
    )
    egress: _Amount = 0.0


class Budget(Part):
    """The most that a job may copy and spend; None: no limit. *max_cost* in *currency* needs *prices*."""

    max_objects: int | None = Field(default=None, ge=0, le=LARGEST)
    max_bytes: int | None = Field(default=None, ge=0, le=LARGEST)
    max_cost: _Amount | None = None
    currency: Annotated[str, Field(max_length=64)] = ""
    prices: Annotated[tuple[Price, ...], Field(max_length=1000)] = ()

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return (self.max_objects, self.max_bytes, self.max_cost) != (None, None, None)


class Limits(Part):
    """
    The limits of a job, or of a store, across the whole fleet; None: no limit.

    *rate* in bytes per second: for a job the bytes read from its source, and in a heal also those read and written in
    the store that is healed; for a store the bytes read and written by all jobs together.
    *requests* per second, at each store of a job. *jobs* is how many objects are in flight at once, as with the
    option ``--jobs``.
    """

    rate: int | None = Field(default=None, ge=1, le=LARGEST)
    requests: int | None = Field(default=None, ge=1, le=LARGEST)
    jobs: int | None = Field(default=None, ge=1, le=LARGEST)

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return (self.rate, self.requests, self.jobs) != (None, None, None)


class CopyOptions(BaseModel):
    """The options of a copy that mean the same on the command line, in a mirror's table and in a job's record."""

    trust_manifest: bool = False
    """Skip snapshots whose manifest the destination has, without asking for their objects."""
    allow_empty_source: bool = False
    """Accept a source that lists no manifest. Jobs of earlier versions do not have this field."""
    checksum: bool = False
    """Compare the content of objects that the destination has, and replace wrong ones."""
    server_side: bool = False
    """Let the server of both stores copy the bytes, where it can; a worker reads and hashes them."""
    names: bool = False
    """Carry the names of snapshots along; with `Prune`, remove names that this source gave and no longer has."""
    priority: Priority = Priority.NORMAL
    queue: str = Field("", pattern=NAME)
    """The queue of the job's batches, "" for the default queue, which every worker serves unless told otherwise."""

    @model_validator(mode="after")
    def _trusts_or_compares(self) -> Self:
        if self.trust_manifest and self.checksum:
            raise ValueError("trust-manifest and checksum exclude each other")
        return self

    def options(self) -> dict[str, Any]:
        """Return these options alone: name -> value."""
        return {name: getattr(self, name) for name in CopyOptions.model_fields}


class CopyRequest(CopyOptions, Part):
    """What a mirror and a job have in common: the options of the copy, its stores, and its limits."""

    source: StoreRef
    destination: StoreRef
    prune: Prune | None = None
    limits: Limits = Limits()
    """The limits with which a job begins. They may be changed while it runs; the job's record has the current ones."""


class JobSpec(CopyRequest, Message):
    """
    A job as it was asked for.

    *snapshots* are encoded ids, in the order given; none if *everything* is set: all that the source lists.
    `snapferry.orchestrator.jobs.Jobs.submit` fills in from its settings the unset ones of *batch_objects*,
    *batch_bytes*, *window_batches* and *patience*, and *group_batches* and *rules* by the live worker processes if the
    caller chose no *job_id*.
    """

    job_id: JobId = Field(default_factory=lambda: str(uuid.uuid4()))
    snapshots: str = Field("", max_length=MOST_SNAPSHOTS * ENCODED_ADDRESS + 4)
    everything: bool = False
    order: Order = Order.GIVEN
    budget: Budget = Budget()
    dry_run: bool = False
    resumes: OtherJobId = ""
    """The job that this one continues."""
    retries: OtherJobId = ""
    """The job whose failed objects this one copies; it copies no others."""
    concurrency: Concurrency | None = None
    """Objects in flight within one batch; None: see `batch_concurrency`."""
    batch_objects: int = Field(2500, ge=1, le=MOST_OBJECTS)
    batch_bytes: int = Field(64 * 1024**2, ge=1, le=LARGEST)
    window_batches: int = Field(256, ge=1, le=100_000)
    """Batches that are queued at once."""
    group_batches: int = Field(GROUP_BATCHES, ge=1, le=100_000)
    """A group of many objects is cut into about so many batches. A fleet of few processes needs few."""
    rules: Literal[1, 2] = 1
    """
    How batches are cut and written. 1: as version 1.0.0 does. 2: a batch is not much smaller than the others, and a
    message does not repeat what a worker derives.
    """
    patience: float = Field(PATIENCE_S, ge=0, le=LONGEST_PATIENCE_S)
    """Seconds to wait for a store that does not answer. A record without this field gets the default."""
    waits_at_start: bool = False
    """Wait also for a store that has not answered yet since the job was submitted."""
    action: Action = Action.COPY
    more_sources: tuple[StoreRef, ...] = Field((), max_length=MOST_SOURCES)
    """Stores from which objects may be read that the source does not have."""
    scope: Scope = Scope()
    verify: VerifyOptions = VerifyOptions()
    scrub: ScrubPart | None = None
    """The part of a store that this job of a scrub reads; None for any other job."""
    tree: TreeOptions = TreeOptions()
    tag: str = Field("", max_length=LONGEST)
    """The name that a push gives to its snapshot, "" for none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        decode_addresses(self.snapshots)
        if self.tag and not (self.action.makes_snapshot and is_name(self.tag)):
            raise ValueError("tag is not a name, or the job makes no snapshot")
        return self

    @classmethod
    def of(
        cls, source: StoreRef, destination: StoreRef, snapshot_ids: Iterable[str] | None, **fields: Any
    ) -> Self:
        """
        Return the request to copy snapshots, None: all that the source lists when the job is planned.

        *fields* are further fields of the request. Raises `InvalidAddress`, and ValueError for an id that is given
        twice and for a field that is unknown or out of range.
        """
        return cls(
            source=source,
            destination=destination,
            snapshots=encode_snapshot_ids(snapshot_ids or ()),
            everything=snapshot_ids is None,
            **fields,
        )

    @property
    def by_newer_rules(self) -> bool:
        """Whether the job is cut and written by `rules` that version 1.0.0 does not know."""
        return self.rules > 1

    @property
    def snapshot_ids(self) -> list[SnapshotId]:
        """The ids in the order given."""
        return decode_snapshot_ids(self.snapshots)

    @property
    def continues(self) -> str:
        """The id of the job that this one continues by a resume or a retry, "" for none."""
        return self.retries or self.resumes

    @property
    def catalogue(self) -> StoreRef:
        """The store whose snapshots the job is about: it has their manifests."""
        return self.destination if self.action.at_destination else self.source

    @property
    def batch_concurrency(self) -> int | None:
        """Objects in flight within one batch; None leaves it to the stores."""
        if self.concurrency is not None or self.limits.jobs is None:
            return self.concurrency
        return min(self.limits.jobs, _MOST_CONCURRENCY)

    def successor(self, **changed: Any) -> JobSpec:
        """Return the request for a new job that does what this one did not, with some fields *changed*."""
        own = {
            "job_id": str(uuid.uuid4()),
            "version": VERSION,
            "dry_run": False,
            "resumes": "",
            "retries": "",
            # Only the jobs that the scrub itself queues count for it.
            "scrub": None,
        }
        return self.model_copy(update=own | changed)
