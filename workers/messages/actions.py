"""What a job does, and the options that only some of these actions have."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from .base import LARGEST, MIRROR_NAME, Part

MOST_SOURCES: Final = 16
"""Stores that a job may read objects from besides its source."""

MOST_SHARES: Final = 10_000
"""Runs in which a scrub reads the whole store."""

MOST_PATTERNS: Final = 1000
LONGEST_PATTERN: Final = 4096
MOST_WALK_JOBS: Final = 256

_ADDRESSES: Final = 2**256

_AddressStart = Annotated[str, Field(pattern=r"^[0-9a-f]{0,64}$")]
_Pattern = Annotated[str, Field(min_length=1, max_length=LONGEST_PATTERN)]


class Action(StrEnum):
    """
    What a job does with its objects.

    Each action has a row in `snapferry.workers.copying.actions.RUNNERS` and one in
    `snapferry.orchestrator.driving.actions.STEPS`. Messages of a copy do not have the field, as before there were
    other actions.
    """

    COPY = "copy"
    """Copy the objects that the destination lacks, and publish the snapshots there."""
    VERIFY = "verify"
    """Read the objects of the source again. Its destination is the same store, and nothing is written."""
    HEAL = "heal"
    """Replace wrong and missing objects of the destination by those of the sources."""
    PUSH = "push"
    """Make a snapshot at the destination of the directory tree that is the source."""
    PULL = "pull"
    """Write the files of a snapshot into the directory tree that is the destination."""

    @property
    def writes(self) -> bool:
        """Whether the job writes to its destination."""
        return self is not Action.VERIFY

    @property
    def makes_snapshot(self) -> bool:
        """Whether the job makes a snapshot, whose id is not known before it is published."""
        return self is Action.PUSH

    @property
    def tree_side(self) -> str:
        """Which side of the job is a directory tree: ``source``, ``destination``, or "" for none."""
        return {Action.PUSH: "source", Action.PULL: "destination"}.get(self, "")

    @property
    def at_destination(self) -> bool:
        """Whether the snapshots of the job are those of its destination, not those of its source."""
        return self is Action.HEAL


class Scope(Part):
    """
    The part of the address space that a job looks at: all of it by default.

    *first* and *last* are addresses or the beginnings of addresses: the objects from the first address that begins
    with *first* to the last one that begins with *last*; "" is no bound. If *first* is above *last*, the range goes
    on from the end of the address space to its begin. *samples* divides the objects evenly into so many samples, by the
    remainder of their addresses, and *sample* is the one of them, from 0, that the job looks at. Every object is in
    exactly one sample. (The shares of a scrub are ranges of addresses, see `ScrubPart`.)
    """

    first: _AddressStart = ""
    last: _AddressStart = ""
    samples: int = Field(default=1, ge=1, le=LARGEST)
    sample: int = Field(default=0, ge=0, lt=LARGEST)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.sample >= self.samples:
            raise ValueError("there is no such sample")
        return self

    @property
    def limited(self) -> bool:
        """Whether there are objects that the job does not look at."""
        return bool(self.first or self.last or self.samples > 1)


class VerifyOptions(Part):
    """
    The options of `Action.VERIFY`.

    *fast*: ask only for presence and length. The job begins no further batch after it has read *max_bytes* bytes, or
    *max_seconds* seconds after its start; None: no bound.
    """

    fast: bool = False
    max_bytes: int | None = Field(default=None, ge=0, le=LARGEST)
    max_seconds: int | None = Field(default=None, ge=0, le=LARGEST)


def _address(number: int) -> str:
    return f"{number:064x}"


class ScrubPart(Part):
    """What a job of a scrub reads: of *shares* shares of the address space, the one with index *share*, or its rest."""

    name: str = Field(pattern=MIRROR_NAME)
    shares: int = Field(ge=1, le=MOST_SHARES)
    share: int = Field(ge=0, lt=MOST_SHARES)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.share >= self.shares:
            raise ValueError("there is no such share")
        return self

    @property
    def first(self) -> str:
        """The first address of the share."""
        return _address(self.share * _ADDRESSES // self.shares)

    @property
    def last(self) -> str:
        """The last address of the share."""
        return _address((self.share + 1) * _ADDRESSES // self.shares - 1)

    @property
    def next(self) -> ScrubPart:
        """The share that comes next, after the last one the first one."""
        return self.model_copy(update={"share": (self.share + 1) % self.shares})


class TreeOptions(Part):
    """
    The options of `Action.PUSH` and `Action.PULL`, whose source or destination is a directory tree.

    *exclude*: patterns of paths that are left out. *follow*: a symbolic link counts as what it points to. *walk_jobs*:
    the most directories that are listed at once. *delete*: remove what the tree has and the snapshot does not.
    *linked*: each file shares its blocks with a local store, by a clone, or fails.
    """

    exclude: Annotated[tuple[_Pattern, ...], Field(max_length=MOST_PATTERNS)] = ()
    follow: bool = True
    walk_jobs: int = Field(default=4, ge=1, le=MOST_WALK_JOBS)
    delete: bool = False
    linked: bool = False
