"""A batch: the objects of one task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from snapferry.stores.address import Address

from .actions import MOST_SOURCES, Action, TreeOptions, VerifyOptions
from .addresses import decode_addresses
from .base import ENCODED_ADDRESS, MOST_OBJECTS, SERIES, Concurrency, JobId, Message, StoreRef, is_job_id
from .files import names_of, together
from .lines import MOST_ENCODED_LINES, decode_lines

# A manifest may state any 64-bit size.
_Size = Annotated[int, Field(ge=0, lt=2**64)]
# A bit offset in Redis has 32 bits.
_Position = Annotated[int, Field(ge=0, lt=2**32)]

_is_batch_name = re.compile(r"[a-z][a-z0-9-]{0,63}:\d{1,10}").fullmatch


class BatchMessage(Message):
    """
    A batch of objects to copy, or to do what *action* says.

    *series* and *number* identify it in the ledger: ``plan`` for the batches of the plan, ``heal-G-N`` for objects of
    group G that were absent in the commit's re-check. *addresses* are encoded. *sizes* are the advisory sizes in
    bytes, in the same order. *positions* are the objects' positions in the plan: only the first one where they are
    consecutive. *lines* are encoded, a line for each object in the same order, or "": see `lines_by_address`.

    By rules 2 (`JobSpec.rules`), *addresses* are "" where the objects are files: a worker computes the digests of the
    paths in the lines. *checksums* are the encoded addresses of files that are pulled, and the lines do not have them.
    """

    job_id: JobId
    series: str = Field(pattern=SERIES)
    number: int = Field(ge=0, lt=2**32)
    source: StoreRef
    destination: StoreRef
    addresses: str = Field(max_length=MOST_OBJECTS * ENCODED_ADDRESS + 4)
    sizes: tuple[_Size, ...] = Field(max_length=MOST_OBJECTS)
    positions: tuple[_Position, ...] = Field(max_length=MOST_OBJECTS)
    concurrency: Concurrency | None = None
    """Objects in flight at once; None leaves it to the stores."""
    action: Action = Action.COPY
    checksum: bool = False
    server_side: bool = False
    more_sources: tuple[StoreRef, ...] = Field((), max_length=MOST_SOURCES)
    verify: VerifyOptions = VerifyOptions()
    lines: str = Field("", max_length=MOST_ENCODED_LINES)
    checksums: str = Field("", max_length=MOST_OBJECTS * ENCODED_ADDRESS + 4)
    tree: TreeOptions = TreeOptions()
    """Without the patterns, which only planning needs."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self._decoded) != len(self.sizes):
            raise ValueError("addresses and sizes do not match")
        if len(self.positions) not in (1, len(self.sizes)):
            raise ValueError("positions and sizes do not match")
        if (self.lines or self.checksums) and len(self._lines) != len(self.sizes):
            raise ValueError("lines and sizes do not match")
        return self

    @cached_property
    def _decoded(self) -> list[Address]:
        return decode_addresses(self.addresses) if self.addresses else names_of(self._lines)

    @cached_property
    def _lines(self) -> list[bytes]:
        lines = decode_lines(self.lines) if self.lines else []
        return together(lines, decode_addresses(self.checksums)) if self.checksums else lines

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """As pydantic's. What was decoded here is not that of a copy with other addresses."""
        copied = super().model_copy(update=update, deep=deep)
        for name in ("_decoded", "_lines"):
            copied.__dict__.pop(name, None)
        return copied

    @property
    def highest_position(self) -> int:
        """The highest position in the plan of an object of the batch, -1 if it has none."""
        if len(self.positions) == 1:
            return self.positions[0] + len(self.sizes) - 1
        return max(self.positions, default=-1)

    def objects(self) -> dict[Address, int]:
        """Return address -> advisory size in bytes."""
        return dict(zip(self._decoded, self.sizes, strict=True))

    def lines_by_address(self) -> dict[Address, bytes]:
        """
        Return address -> line; nothing for a batch without lines.

        Where a batch has lines, its objects are files, and their addresses are the digests of their paths.
        """
        return dict(zip(self._decoded, self._lines, strict=bool(self._lines)))

    def positions_by_address(self) -> dict[Address, int]:
        """Return address -> position in the plan."""
        addresses = self._decoded
        positions = self.positions
        if len(positions) != len(addresses):
            positions = tuple(range(positions[0], positions[0] + len(addresses)))
        return dict(zip(addresses, positions, strict=True))


def identify_batch(message: object) -> tuple[str, str]:
    """
    Return the job id and the batch's name in the ledger (``series:number``) of a message of any version.

    Both become parts of Redis keys, so a value that is not a valid id or name is returned as "".
    """
    found = message if isinstance(message, dict) else {}
    job_id, name = str(found.get("job_id", "")), f"{found.get('series', '')}:{found.get('number', '')}"
    return job_id if is_job_id(job_id) else "", name if _is_batch_name(name) else ""
