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
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stores.address import DIGEST_BYTES, addresses_in, digests_of

from .queues import NAME, Priority
from .settings import LONGEST_PATIENCE_S, PATIENCE_S

# Plans count: orchestrators that would plan a job differently must not share it. Version 2 was never released,
# and 3 does not read it.
VERSION: Final = 3


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[3] = VERSION


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreRef(_Part):
    """A store by its URL; *objects_url* where its objects are in another pool."""

    url: str
    objects_url: str | None = None


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

    max_delete: int | None = Field(default=None, ge=0)
    force: bool = False


class Price(_Part):
    """
    What requests to the stores whose URL begins with *store* cost, and the bytes read from them.

    *requests* by the S3 operation's name, for 1,000 of them; *egress* for 10**9 bytes read. All in one currency.
    """

    store: str
    requests: dict[str, float] = Field(default_factory=dict)
    egress: float = Field(default=0.0, ge=0)


class Budget(_Part):
    """What a job may copy and spend at most; None: no limit. *max_cost* in *currency* needs *prices*."""

    max_objects: int | None = Field(default=None, ge=0)
    max_bytes: int | None = Field(default=None, ge=0)
    max_cost: float | None = Field(default=None, ge=0)
    currency: str = ""
    prices: tuple[Price, ...] = ()

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

    rate: int | None = Field(default=None, ge=1)
    requests: int | None = Field(default=None, ge=1)
    jobs: int | None = Field(default=None, ge=1)

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

    job_id: str
    snapshots: str = ""
    everything: bool = False
    source: StoreRef
    destination: StoreRef
    order: Order = Order.GIVEN
    trust_manifest: bool = False
    prune: Prune | None = None
    budget: Budget = Budget()
    dry_run: bool = False
    resumes: str = ""
    retries: str = ""
    concurrency: int | None = Field(None, ge=1, le=1024)
    """Objects in flight within one batch; None leaves it to the stores."""
    priority: Priority = Priority.NORMAL
    queue: str = Field("", pattern=NAME)
    """The queue of its batches, "" for the one that every worker takes from unless told otherwise."""
    limits: Limits = Limits()
    """Those that the job begins with; they may be changed while it runs, and its record has what holds."""
    batch_objects: int = Field(ge=1)
    batch_bytes: int = Field(ge=1)
    window_batches: int = Field(256, ge=1)
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

    name: str
    source: StoreRef
    destination: StoreRef
    trust_manifest: bool = False
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

    job_id: str
    series: str
    number: int = Field(ge=0)
    source: StoreRef
    destination: StoreRef
    addresses: str
    sizes: tuple[int, ...]
    positions: tuple[int, ...]
    concurrency: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(_digests(self.addresses)) != DIGEST_BYTES * len(self.sizes):
            raise ValueError("addresses and sizes do not match")
        if len(self.positions) not in (1, len(self.sizes)):
            raise ValueError("positions and sizes do not match")
        return self

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
