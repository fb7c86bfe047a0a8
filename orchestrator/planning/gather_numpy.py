"""Gather snapshots in tables. Imported only where a job is large: see `snapferry.stores.bulk.tables`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from snapferry.stores.address import Address
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.bulk.tables import Digests, DigestTiers, ObjectTable, found_in, to_digests

from .gather import Added, Brought, Gather, Objects


class GatherMany(Gather):
    """As `gather.GatherFew`."""

    def __init__(self, only: AddressSet | None) -> None:
        self._only = None if only is None else _sorted([a for chunk in only.chunks(1 << 20) for a in chunk])
        self._seen = DigestTiers()
        self._asked = DigestTiers()
        self._parts: list[tuple[ObjectTable, npt.NDArray[np.uint32]]] = []

    @property
    def asked(self) -> int:
        return len(self._asked)

    @property
    def brought(self) -> int:
        return sum(len(part.digests) for part, _ in self._parts)

    def add(self, index: int, objects: Objects | ObjectTable) -> Added:
        table = objects if isinstance(objects, ObjectTable) else _table(objects)
        new = table.chosen(~self._seen.mask(table.digests))
        if self._only is not None:
            new = new.chosen(found_in(self._only, new.digests))
        self._seen.add(new.digests)
        self._asked.add(table.chosen(~self._asked.mask(table.digests)).digests)
        self._bring(new, np.full(len(new.digests), index, np.uint32))
        return Added(len(table.digests), table.size_bytes, len(new.digests))

    def close(self) -> Brought:
        (table, owners), *others = self._parts or [(_table({}), np.empty(0, np.uint32))]
        digests, sizes = table
        if others:
            digests = np.concatenate([part.digests for part, _ in self._parts])
            sizes = np.concatenate([part.sizes for part, _ in self._parts])
            owners = np.concatenate([of for _, of in self._parts])
            order = np.argsort(digests, kind="stable")
            digests, sizes, owners = digests[order], sizes[order], owners[order]
        self._parts, self._asked = [], DigestTiers()
        return Brought(digests.view(np.uint8).data, sizes.data, owners.data)

    def _bring(self, table: ObjectTable, owners: npt.NDArray[np.uint32]) -> None:
        # One part alone is handed on as it is, without a copy.
        if len(owners):
            self._parts.append((table, owners))

    def take_over(
        self,
        seen: Collection[Address],
        asked: Collection[Address],
        brought: Objects,
        owners: Mapping[Address, int],
    ) -> None:
        """Go on where another way of gathering stopped."""
        self._seen.add(_sorted(seen))
        self._asked.add(_sorted(asked))
        table = _table(brought)
        of = np.fromiter((owners[address] for address in sorted(brought)), np.uint32, len(owners))
        self._bring(table, of)


def _sorted(addresses: Collection[Address]) -> Digests:
    return to_digests(sorted(addresses))


def _table(objects: Objects) -> ObjectTable:
    ordered = sorted(objects)
    sizes = np.fromiter(map(objects.__getitem__, ordered), np.uint64, len(ordered))
    return ObjectTable(to_digests(ordered), sizes)
