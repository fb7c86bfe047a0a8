"""
What crosses the broker, and what is kept of a job's request.

Messages are small and name stores by URLs that hold no credentials. Everything in
a message can be read by whoever can read Redis or Flower.

*versions*: a message carries the version of its form, and of what is planned from
it. Who does not know it hands it back for somebody who does, instead of guessing.
A version reads its own messages and those of the one before, of which a new field
is absent: its default means what was done before there was it. A job keeps the
version that it was submitted with, in its record and in all of its batches, and is
planned as that version plans. So the processes of two neighbouring versions can
share a fleet, and the jobs of both end.

Addresses and snapshot ids travel packed: their 32 bytes each, run together, in base64.

*bounded*: every field has a longest length, a range or a pattern. Ids become parts of keys in Redis and of names of
files, positions become bits in Redis, and numbers become seconds, bytes and threads.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from snapferry.stores.address import DIGEST_BYTES, addresses_in, digests_of

from .queues import NAME, Priority
from .settings.environment import LONGEST_PATIENCE_S, PATIENCE_S

# Plans count: orchestrators that would plan a job differently must not share it. Version 2 was never released,
# and 3 does not read it.
VERSION: Final = 3

JOB_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"
"""What a job's id looks like: no path, no pattern of files, no part of a key."""

SERIES: Final = r"^[a-z][a-z0-9-]{0,63}$"
MIRROR_NAME: Final = r"^[a-z0-9]([a-z0-9_-]{0,62}[a-z0-9])?$"
"""What a store or a mirror may be called: it is never a URL or a path, and becomes a part of keys in Redis."""

MOST_SNAPSHOTS: Final = 1_000_000
MOST_OBJECTS: Final = 10_000
"""Of one batch."""

# What is still exact in JSON, in Lua and in a counter of Redis.
_LARGEST: Final = 2**53 - 1
_LONGEST_URL: Final = 8192

_JobId = Annotated[str, Field(pattern=JOB_ID)]
_OtherJobId = Annotated[str, Field(pattern=rf"{JOB_ID}|^$")]
_Url = Annotated[str, Field(min_length=1, max_length=_LONGEST_URL)]
# A manifest may say any 64 bits of a size.
_Size = Annotated[int, Field(ge=0, lt=2**64)]
# The offset of a bit in Redis has 32 bits.
_Position = Annotated[int, Field(ge=0, lt=2**32)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]

_is_job_id = re.compile(JOB_ID.removesuffix("$")).fullmatch


def is_job_id(text: str) -> bool:
    """Say whether *text* can be the id of a job."""
    return _is_job_id(text) is not None


# What messages of the version before did not have. It refuses what it does not know, so defaults are left out.
_NEW_FIELDS: Final = frozenset({"allow_empty_source", "patience", "waits_at_start"})


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[3] = VERSION

    def new_defaults(self) -> set[str]:
        """Return the fields that the version before does not know and need not: they have their defaults."""
        fields = type(self).model_fields
        return {name for name in _NEW_FIELDS & fields.keys() if getattr(self, name) == fields[name].default}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreRef(_Part):
    """A store by its URL; *objects_url* where its objects are in another pool."""

    url: _Url
    objects_url: _Url | None = None


class Order(StrEnum):
    """Which snapshot of a job is brought first: as they were given, the newest manifest, or the fewest bytes."""

    GIVEN = "given"
    NEWEST = "newest"
    SMALLEST = "smallest"


class Prune(_Part):
    """
    Which manifests a mirror deletes: those at the destination that the source does not have.

    More than *max_delete* (None: no limit), or all of them because the source lists none, and nothing is
    deleted; *force* allows the latter.
    """

    max_delete: int | None = Field(default=None, ge=0, le=_LARGEST)
    force: bool = False


class Price(_Part):
    """
    What requests to the stores whose URL begins with *store* cost, and the bytes read from them.

    *requests* by the S3 operation's name, for 1,000 of them; *egress* for 10**9 bytes read. All in one currency.
    """

    store: str = Field(max_length=_LONGEST_URL)
    requests: dict[Annotated[str, Field(max_length=64)], _Amount] = Field(
        default_factory=dict, max_length=100
    )
    egress: _Amount = 0.0


class Budget(_Part):
    """What a job may copy and spend at most; None: no limit. *max_cost* in *currency* needs *prices*."""

    max_objects: int | None = Field(default=None, ge=0, le=_LARGEST)
    max_bytes: int | None = Field(default=None, ge=0, le=_LARGEST)
    max_cost: _Amount | None = None
    currency: Annotated[str, Field(max_length=64)] = ""
    prices: Annotated[tuple[Price, ...], Field(max_length=1000)] = ()

    @property
    def limited(self) -> bool:
        """Say whether there is any limit."""
        return (self.max_objects, self.max_bytes, self.max_cost) != (None, None, None)


class Limits(_Part):
    """
    What a job, or a store, keeps to on the whole fleet; None: no limit.

    *rate* in bytes a second: for a job those that are read from its source, for
    a store those that are read and written. *requests* a second, at each store
    of a job. *jobs* is how many objects are in flight at once.
    """

    rate: int | None = Field(default=None, ge=1, le=_LARGEST)
    requests: int | None = Field(default=None, ge=1, le=_LARGEST)
    jobs: int | None = Field(default=None, ge=1, le=_LARGEST)

    @property
    def any(self) -> bool:
        """Say whether there is a limit."""
        return (self.rate, self.requests, self.jobs) != (None, None, None)


class JobRequest(_Message):
    """
    A job as it was asked for.

    *snapshots* are the packed ids, none if *everything* the source lists is
    meant. A job that *retries* another brings only the objects that failed in it.
    """

    job_id: _JobId
    snapshots: str = Field("", max_length=MOST_SNAPSHOTS * 43 + 4)
    everything: bool = False
    allow_empty_source: bool = False
    """Whether a source that lists no manifest is all there is to copy. Jobs of earlier versions do not say so."""
    source: StoreRef
    destination: StoreRef
    order: Order = Order.GIVEN
    trust_manifest: bool = False
    prune: Prune | None = None
    budget: Budget = Budget()
    dry_run: bool = False
    resumes: _OtherJobId = ""
    retries: _OtherJobId = ""
    concurrency: int | None = Field(None, ge=1, le=1024)
    """Objects in flight within one batch; None leaves it to the stores."""
    priority: Priority = Priority.NORMAL
    queue: str = Field("", pattern=NAME)
    """The queue of its batches, "" for the one that every worker takes from unless told otherwise."""
    limits: Limits = Limits()
    """Those that the job begins with; they may be changed while it runs, and its record has what holds."""
    batch_objects: int = Field(ge=1, le=MOST_OBJECTS)
    batch_bytes: int = Field(ge=1, le=_LARGEST)
    window_batches: int = Field(256, ge=1, le=100_000)
    """Batches that are queued at once."""
    patience: float = Field(PATIENCE_S, ge=0, le=LONGEST_PATIENCE_S)
    """Seconds to wait for a store that is away. A request without this field gets the default."""
    waits_at_start: bool = False
    """Wait also for a store that has not answered yet in the life of the job."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unpack(self.snapshots)
        return self

    @property
    def snapshot_ids(self) -> list[str]:
        """The ids as they were given."""
        return unpack(self.snapshots)


class MirrorMessage(_Message):
    """A mirror that is due. What its job is to be is told by whoever keeps the schedule, at the time of its start."""

    name: str = Field(pattern=MIRROR_NAME)
    source: StoreRef
    destination: StoreRef
    trust_manifest: bool = False
    allow_empty_source: bool = False
    prune: Prune | None = None
    priority: Priority = Priority.NORMAL
    queue: str = Field("", pattern=NAME)
    limits: Limits = Limits()
    patience: float | None = Field(None, ge=0, le=LONGEST_PATIENCE_S)
    """Seconds to wait for a store that is away; None: as long as the settings of the orchestrator say."""


class BatchMessage(_Message):
    """
    A batch of objects to copy.

    *series* and *number* identify it in the ledger: ``plan`` for the batches
    of the plan, ``heal-G-N`` for objects of group G that the commit's re-check
    missed. *addresses* are packed; *sizes* are the advisory sizes in bytes, in
    the same order. *positions* are the objects' places in the plan: the first
    one's alone where they follow each other.
    """

    job_id: _JobId
    series: str = Field(pattern=SERIES)
    number: int = Field(ge=0, lt=2**32)
    source: StoreRef
    destination: StoreRef
    addresses: str = Field(max_length=MOST_OBJECTS * 43 + 4)
    sizes: tuple[_Size, ...] = Field(max_length=MOST_OBJECTS)
    positions: tuple[_Position, ...] = Field(max_length=MOST_OBJECTS)
    concurrency: int | None = Field(None, ge=1, le=1024)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(_digests(self.addresses)) != DIGEST_BYTES * len(self.sizes):
            raise ValueError("addresses and sizes do not match")
        if len(self.positions) not in (1, len(self.sizes)):
            raise ValueError("positions and sizes do not match")
        return self

    @property
    def highest_position(self) -> int:
        """The highest place in the plan of an object of the batch, -1 if it has none."""
        if len(self.positions) == 1:
            return self.positions[0] + len(self.sizes) - 1
        return max(self.positions, default=-1)

    def objects(self) -> dict[str, int]:
        """Return address -> advisory size."""
        return dict(zip(unpack(self.addresses), self.sizes, strict=True))

    def places(self) -> dict[str, int]:
        """Return address -> place in the plan."""
        addresses = unpack(self.addresses)
        places = self.positions
        if len(places) != len(addresses):
            places = tuple(range(places[0], places[0] + len(addresses)))
        return dict(zip(addresses, places, strict=True))


def pack(addresses: Iterable[str]) -> str:
    """Return *addresses* packed."""
    return pack_digests(digests_of(addresses))


def pack_digests(digests: bytes) -> str:
    """Return the addresses with these *digests*, run together, packed."""
    return base64.b64encode(digests).decode()


def unpack(packed: str) -> list[str]:
    """Return the addresses that were packed. Raises ValueError for what `pack` does not return."""
    return addresses_in(_digests(packed))


def _digests(packed: str) -> bytes:
    try:
        digests = base64.b64decode(packed, validate=True)
    except binascii.Error as error:
        raise ValueError(f"addresses are not packed: {error}") from None
    if len(digests) % DIGEST_BYTES:
        raise ValueError(f"packed addresses are not {DIGEST_BYTES} bytes each")
    return digests
