"""Gather objects in tables. Imported only for a large job: importing NumPy takes time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
import numpy.typing as npt

from snapferry.stores.address import Address
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.bulk.tables import Digests, DigestTiers, ObjectTable, found_in, to_digests

from .gather import Added, Gatherer, GroupObjects, Objects
from .gather_sets import SetGatherer

# Addresses that are kept in a set beside the tables, unless the last snapshot alone names more: about 8 MB of memory.
MOST_RECENT: Final = 50_000


class TableGatherer(Gatherer):
    """
    Gathers in tables. With *only*, no other objects are brought.

    Neighbouring snapshots share most of their objects. Those that the last snapshots named are also in a set, where
    they are found much faster than in a table.
    """

    def __init__(self, only: AddressSet | None) -> None:
        self._only = None if only is None else _sorted([a for chunk in only.chunks(1 << 20) for a in chunk])
        self._seen = DigestTiers()
        self._named = DigestTiers()
        self._parts: list[tuple[ObjectTable, npt.NDArray[np.uint32]]] = []
        # Some of the addresses that were named since the last `close`.
        self._recent: set[Address] = set()

    @classmethod
    def continuing(cls, few: SetGatherer) -> TableGatherer:
        """Return a gatherer with all that *few* has gathered."""
        gatherer = cls(few.only)
        gatherer._seen.add(_sorted(few.seen))
        gatherer._named.add(_sorted(few.named_addresses))
        owners = np.fromiter(
            (few.owners[address] for address in sorted(few.sizes)), np.uint32, len(few.owners)
        )
        gatherer._bring(_table(few.sizes), owners)
        return gatherer

    @property
    def named(self) -> int:
        return len(self._named)

    @property
    def brought(self) -> int:
        return sum(len(part.digests) for part, _ in self._parts)

    def add(self, index: int, objects: Objects | ObjectTable) -> Added:
        if isinstance(objects, ObjectTable):
            return self._add(index, objects, len(objects.digests), objects.size_bytes)
        others = objects
        if self._recent:
            others = {address: objects[address] for address in objects.keys() - self._recent}
        self._recent.update(others)
        if len(self._recent) > MOST_RECENT:
            self._recent = set(objects)
        return self._add(index, _table(others), len(objects), sum(objects.values()))

    def _add(self, index: int, table: ObjectTable, count: int, size_bytes: int) -> Added:
        """Add a snapshot with *count* objects and *size_bytes* in all. *table* may leave out those of `_recent`."""
        new = table.chosen(~self._seen.mask(table.digests))
        if self._only is not None:
            new = new.chosen(found_in(self._only, new.digests))
        self._seen.add(new.digests)
        self._named.add(table.chosen(~self._named.mask(table.digests)).digests)
        self._bring(new, np.full(len(new.digests), index, np.uint32))
        return Added(count, size_bytes, len(new.digests))

    def close(self) -> GroupObjects:
        (table, owners), *others = self._parts or [(_table({}), np.empty(0, np.uint32))]
        digests, sizes = table
        if others:
            digests = np.concatenate([part.digests for part, _ in self._parts])
            sizes = np.concatenate([part.sizes for part, _ in self._parts])
            owners = np.concatenate([of for _, of in self._parts])
            order = np.argsort(digests, kind="stable")
            digests, sizes, owners = digests[order], sizes[order], owners[order]
        self._parts, self._named, self._recent = [], DigestTiers(), set()
        return GroupObjects(digests.view(np.uint8).data, sizes.data, owners.data)

    def _bring(self, table: ObjectTable, owners: npt.NDArray[np.uint32]) -> None:
        # A group of one part is returned without a copy.
        if len(owners):
            self._parts.append((table, owners))


def _sorted(addresses: Collection[Address]) -> Digests:
    return to_digests(sorted(addresses))


def _table(objects: Objects) -> ObjectTable:
    ordered = sorted(objects)
    sizes = np.fromiter(map(objects.__getitem__, ordered), np.uint64, len(ordered))
    return ObjectTable(to_digests(ordered), sizes)
