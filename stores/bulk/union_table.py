"""The table of a large `union.ObjectUnion`. Imported only where one is large: importing NumPy takes time."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from snapferry.stores.address import DIGEST_BYTES, Address, addresses_in, digests_of

from .tables import Digests, Mask

import numpy as np  # isort: skip - `tables` limits the threads of NumPy before it is imported
import numpy.typing as npt  # isort: skip

_DIGEST: Final = np.dtype("S32")

# Objects that are added before they are merged, at least.
_ROWS: Final = 1 << 20


class UnionTable:
    """Digests, sizes, and whether an object was added more than once, as three columns, sorted when they are read."""

    def __init__(self) -> None:
        self._digests = bytearray()
        self._sizes = array("Q")
        self._again = bytearray()
        self._merged = 0

    def add(self, addresses: Sequence[Address], sizes: Iterable[int]) -> None:
        """Add *addresses* with their *sizes*, each less than 2**64."""
        self._digests += digests_of(addresses)
        self._sizes.extend(sizes)
        self._again += bytes(len(addresses))
        # Objects that many manifests share must not pile up.
        if len(self._sizes) > self._merged + max(self._merged // 2, _ROWS):
            self._merge()

    def __len__(self) -> int:
        self._merge()
        return len(self._sizes)

    def exceeds(self, most: int) -> bool:
        """Return whether there are more than *most* objects; sort only if there may be."""
        return len(self._sizes) > most and len(self) > most

    def size_bytes(self) -> int:
        """Return the sum of the sizes."""
        self._merge()
        return _sum(np.frombuffer(self._sizes, np.uint64))

    def repeated(self) -> tuple[int, int]:
        """Return how many objects were added more than once, and the sum of their sizes."""
        self._merge()
        again = np.frombuffer(self._again, np.bool_)
        return int(again.sum()), _sum(np.frombuffer(self._sizes, np.uint64)[again])

    def chunks(self, count: int) -> Iterator[tuple[list[Address], list[int]]]:
        """Yield the objects in order, with their sizes, *count* at a time."""
        self._merge()
        for at in range(0, len(self._sizes), count):
            digests = self._digests[DIGEST_BYTES * at : DIGEST_BYTES * (at + count)]
            yield addresses_in(digests), self._sizes[at : at + count].tolist()

    def _merge(self) -> None:
        if self._merged == len(self._sizes):
            return
        # Each column is released as soon as its successor is there: they are most of the memory of a large union.
        added = self._digests
        self._digests = bytearray()
        # Stable: of equal digests, the one that was added first comes first.
        order = np.argsort(np.frombuffer(added, _DIGEST), kind="stable")
        digests: Digests = np.frombuffer(added, _DIGEST)[order]
        del added
        first: Mask = np.ones(len(digests), np.bool_)
        first[1:] = digests[1:] != digests[:-1]
        starts = np.flatnonzero(first)
        digests = digests[first]
        # An object was added again if its run is longer than one row, or if it was so before the last merge.
        again = np.logical_or.reduceat(np.frombuffer(self._again, np.bool_)[order], starts)
        again |= np.diff(starts, append=len(order)) > 1
        sizes = np.frombuffer(self._sizes, np.uint64)[order[starts]]
        del order, first, starts
        self._sizes = array("Q")
        self._sizes.frombytes(sizes.view(np.uint8).data)
        self._again = bytearray(again.view(np.uint8).data)
        self._digests = bytearray(digests.view(np.uint8).data)
        self._merged = len(self._sizes)


def _sum(sizes: npt.NDArray[np.uint64]) -> int:
    """Return the sum of *sizes*, which may be more than 64 bits hold."""
    low = int((sizes & np.uint64(0xFFFFFFFF)).sum())
    return low + (int((sizes >> np.uint64(32)).sum()) << 32)
