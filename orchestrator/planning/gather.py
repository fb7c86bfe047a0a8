"""
Gathering: each distinct object of a job's snapshots once, group by group.

There are two implementations: `gather_sets` in Python's own sets and dictionaries, fast to start and right for most
jobs, and `gather_numpy` in tables of 32 to 44 bytes per object, for jobs that would not fit otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from snapferry.stores.address import Address

if TYPE_CHECKING:
    # It imports NumPy, which takes longer than to plan a small job.
    from snapferry.stores.bulk.tables import ObjectTable

Objects = Mapping[Address, int]
"""Address -> advisory size in bytes."""


class GroupObjects(NamedTuple):
    """
    The objects that a group brings, in the order of their addresses.

    Three columns, of 32, 8 and 4 bytes per object: its digest, its advisory size in bytes, and the index of the
    snapshot that brings it.
    """

    digests: memoryview
    sizes: memoryview[int]
    owners: memoryview[int]


class Added(NamedTuple):
    """What a snapshot added: the *objects* that it names, their bytes, and how many of them are *new* to the job."""

    objects: int
    size_bytes: int
    new: int


class Gatherer(ABC):
    """
    Gathers the objects of snapshots, one snapshot at a time.

    An object that several snapshots name is brought by the first of them. *named*: how many distinct objects the
    snapshots since the last `close` name. *brought*: how many of these they bring.
    """

    @property
    @abstractmethod
    def named(self) -> int: ...

    @property
    @abstractmethod
    def brought(self) -> int: ...

    @abstractmethod
    def add(self, index: int, objects: Objects | ObjectTable) -> Added:
        """Add the objects of the snapshot with *index*."""

    @abstractmethod
    def close(self) -> GroupObjects:
        """Return the objects that the snapshots since the last `close` bring, and begin the next group."""
