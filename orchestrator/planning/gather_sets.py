"""Gather objects in sets and dictionaries."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
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
        new: Mapping[Address, int] = objects
        # Most jobs have one snapshot, or few that share objects: each step is one pass in C.
        if not self.seen.isdisjoint(objects):
            new = {address: size for address, size in objects.items() if address not in self.seen}
        if self.only is not None:
            new = {address: new[address] for address in self.only.among(list(new))}
        self.sizes.update(new)
        self.owners.update(dict.fromkeys(new, index))
        self.seen.update(new)
        self.named_addresses.update(objects)
        return Added(len(objects), sum(objects.values()), len(new))

    def close(self) -> GroupObjects:
        ordered = sorted(self.sizes)
        group = GroupObjects(
            memoryview(digests_of(ordered)),
            memoryview(array("Q", map(self.sizes.__getitem__, ordered))),
            memoryview(array("I", map(self.owners.__getitem__, ordered))),
        )
        self.named_addresses, self.sizes, self.owners = set(), {}, {}
        return group
