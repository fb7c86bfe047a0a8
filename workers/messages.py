"""
What crosses the broker.

Messages are small, name stores by URLs that hold no credentials, and carry the
version of their form: a worker that knows another version refuses them instead
of guessing. Everything in a message can be read by whoever can read Redis or
Flower.
"""

from __future__ import annotations

import re
from typing import Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stores.address import ADDRESS_LENGTH

_is_hex = re.compile(r"[0-9a-f]*").fullmatch

VERSION: Final = 1


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = VERSION


class StoreRef(BaseModel):
    """A store by its URL; *objects_url* where its objects are in another pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str
    objects_url: str | None = None


class JobRequest(_Message):
    """A job as it was asked for. The plan follows from it and the source's manifest alone."""

    job_id: str
    snapshot_id: str
    source: StoreRef
    destination: StoreRef
    concurrency: int | None = Field(None, ge=1, le=1024)
    """Objects in flight within one batch; None leaves it to the stores."""
    dry_run: bool = False
    batch_objects: int = Field(ge=1)
    batch_bytes: int = Field(ge=1)


class BatchMessage(_Message):
    """
    A batch of objects to copy.

    *series* and *number* identify it in the ledger: ``plan`` for the batches
    of the plan, ``heal-N`` for objects that the commit's re-check missed.
    *addresses* is all addresses run together, 64 characters each; *sizes* are
    the advisory sizes in bytes, in the same order.
    """

    job_id: str
    series: str
    number: int = Field(ge=0)
    source: StoreRef
    destination: StoreRef
    addresses: str
    sizes: tuple[int, ...]
    concurrency: int | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.addresses) != ADDRESS_LENGTH * len(self.sizes):
            raise ValueError("addresses and sizes do not match")
        if not _is_hex(self.addresses):
            raise ValueError("addresses are not lowercase hex")
        return self

    def objects(self) -> dict[str, int]:
        """Return address -> advisory size."""
        starts = range(0, len(self.addresses), ADDRESS_LENGTH)
        found = (self.addresses[at : at + ADDRESS_LENGTH] for at in starts)
        return dict(zip(found, self.sizes, strict=True))
