"""Gather objects in sets and dictionaries."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from snapferry.stores.address import Address, digests_of
from snapferry.stores.bulk.address_set import AddressSet

from .gather import Added, Gatherer, GroupObjects, Objects

if TYPE_CHECKING:
    # It imports NumPy, which takes longer than to plan a small job.
    from snapferry.stores.bulk.tables import ObjectTable


class SetGatherer(Gatherer):
    """
    Gathers in sets and dictionaries. With *only*, no other objects are brought.

    `gather_numpy.TableGatherer` takes over the public attributes of a job that grows large.
    """

    def __init__(self, only: AddressSet | None) -> None:
        self.only = only
        self.seen: set[Address] = set()
        self.named_addresses: set[Address] = set()
        self.sizes: dict[Address, int] = {}
        self.owners: dict[Address, int] = {}

    @property
    def named(self) -> int:
        return len(self.named_addresses)

    @property
    def brought(self) -> int:
        return len(self.sizes)

    def add(self, index: int, objects: Objects | ObjectTable) -> Added:
        assert isinstance(objects, Mapping)
        new: Iterable[Address] = objects.keys() - self.seen
        if self.only is not None:
            new = self.only.among(list(new))
        before = len(self.seen)
        for address in new:
            self.sizes[address] = objects[address]
            self.owners[address] = index
        self.seen.update(new)
        self.named_addresses.update(objects)
        return Added(len(objects), sum(objects.values()), len(self.seen) - before)

    def close(self) -> GroupObjects:
        ordered = sorted(self.sizes)
        group = GroupObjects(
            memoryview(digests_of(ordered)),
            memoryview(array("Q", map(self.sizes.__getitem__, ordered))),
            memoryview(array("I", map(self.owners.__getitem__, ordered))),
        )
        self.named_addresses, self.sizes, self.owners = set(), {}, {}
        return group
