"""
What the snapshots of a group bring, and how many objects they name together: what a planner counts by.

Two ways to do the same: in Python's own sets and dictionaries, fast to start and
right for most jobs, and in tables of 32 to 44 bytes for each object, for those
that would not fit otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from snapferry.stores.address import Address, digests_of
from snapferry.stores.bulk.address_set import AddressSet

if TYPE_CHECKING:
    from snapferry.stores.bulk.tables import ObjectTable

    from .gather_numpy import GatherMany

# A planner that has seen so many objects goes on with tables: smaller, and faster, importing NumPy included.
MANY: Final = 50_000

Objects = Mapping[Address, int]
"""Address -> advisory size in bytes."""


class Brought(NamedTuple):
    """
    Objects in the order of their addresses.

    Of each its digest, its advisory size in bytes, and the snapshot that brings it: 32, 8 and 4 bytes an entry.
    """

    digests: memoryview
    sizes: memoryview[int]
    owners: memoryview[int]


class Added(NamedTuple):
    """What a snapshot added: *objects* that it names and their bytes, how many of them are *new*."""

    objects: int
    size_bytes: int
    new: int


class Gather(ABC):
    """
    Gathers snapshots, one by one. An object that several name is brought by the first of them.

    *asked* is how many objects the snapshots since the last `close` name together, *brought* how many of them
    those snapshots bring.
    """

    @property
    @abstractmethod
    def asked(self) -> int: ...

    @property
    @abstractmethod
    def brought(self) -> int: ...

    @abstractmethod
    def add(self, index: int, objects: Objects | ObjectTable) -> Added:
        """Take in the snapshot with *index*."""

    @abstractmethod
    def close(self) -> Brought:
        """Return what the snapshots since the last time bring, and begin anew."""


class GatherFew(Gather):
    """By sets and dictionaries. With *only*, no other objects are brought."""

    def __init__(self, only: AddressSet | None) -> None:
        self._only = only
        self.seen: set[Address] = set()
        self._asked: set[Address] = set()
        self._brought: dict[Address, int] = {}
        self._owners: dict[Address, int] = {}

    @property
    def asked(self) -> int:
        return len(self._asked)

    @property
    def brought(self) -> int:
        return len(self._brought)

    def add(self, index: int, objects: Objects | ObjectTable) -> Added:
        assert isinstance(objects, Mapping)
        new: Iterable[Address] = objects.keys() - self.seen
        if self._only is not None:
            new = self._only.among(list(new))
        before = len(self.seen)
        for address in new:
            self._brought[address] = objects[address]
            self._owners[address] = index
        self.seen.update(new)
        self._asked.update(objects)
        return Added(len(objects), sum(objects.values()), len(self.seen) - before)

    def close(self) -> Brought:
        ordered = sorted(self._brought)
        brought = Brought(
            memoryview(digests_of(ordered)),
            memoryview(array("Q", map(self._brought.__getitem__, ordered))),
            memoryview(array("I", map(self._owners.__getitem__, ordered))),
        )
        self._asked, self._brought, self._owners = set(), {}, {}
        return brought

    def as_many(self) -> GatherMany:
        """Return the same, in tables."""
        from .gather_numpy import GatherMany

        many = GatherMany(self._only)
        many.take_over(self.seen, self._asked, self._brought, self._owners)
        return many
