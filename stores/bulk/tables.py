"""
Addresses and objects by the million: 32 and 40 bytes each, sorted.

Python's sets and dictionaries take some 200 bytes for an address. Arrays here are of NumPy's fixed-width bytes, which
are compared byte by byte, as addresses are. Elements are never taken out one by one, because NumPy drops zero bytes at
their end.

Import this module only where a set is large: importing NumPy takes as long as starting everything else.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

# NumPy's linear algebra, which is not used here, starts a thread for each core when it is imported, and each of them
# spins for a while.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # noqa: TID251 - it is given, not read

try:
    import numpy as np
    import numpy.typing as npt
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "numpy is not installed, and more than 50,000 objects need it; run: pip install 'snapferry[local]'",
        name=error.name,
    ) from None

from snapferry.stores.address import DIGEST_BYTES, Address, addresses_in, digests_of

Digests = npt.NDArray[np.bytes_]
Mask = npt.NDArray[np.bool_]

_DIGEST: Final = np.dtype("S32")
_RECORD: Final = np.dtype("S40")
RECORD_BYTES: Final = _RECORD.itemsize
_BIG_ENDIAN: Final = np.dtype(">u8")

# Rows that are looked up at once: bounds the memory of a look-up.
_ROWS: Final = 1 << 20


class ObjectTable(NamedTuple):
    """The distinct objects of a snapshot: their digests, rising, and advisory sizes in bytes."""

    digests: Digests
    sizes: npt.NDArray[np.uint64]

    def chosen(self, mask: Mask) -> ObjectTable:
        """Return the objects that *mask* selects."""
        return self if mask.all() else ObjectTable(self.digests[mask], self.sizes[mask])

    def between(self, first: bytes, last: bytes) -> ObjectTable:
        """
        Return the objects from the digest *first* to the digest *last*, both included.

        If *first* is above *last*, the range goes on from the last address to the first one.
        """
        above, below = self.digests >= first, self.digests <= last
        return self.chosen(above & below if first <= last else above | below)

    def sample(self, sample: int, samples: int) -> ObjectTable:
        """Return the objects in one of so many *samples*, from 0, by the remainder of their addresses."""
        heads = np.ascontiguousarray(self.digests.view(np.uint8).reshape(-1, DIGEST_BYTES)[:, :8])
        return self.chosen(heads.view(_BIG_ENDIAN).ravel() % np.uint64(samples) == np.uint64(sample))

    @property
    def size_bytes(self) -> int:
        """The sum of the sizes, which may be more than 64 bits hold."""
        low = int((self.sizes & np.uint64(0xFFFFFFFF)).sum())
        return low + (int((self.sizes >> np.uint64(32)).sum()) << 32)


def records_of(addresses: Sequence[str], sizes: Iterable[int]) -> bytes:
    """Return objects as an `ObjectTableBuilder` takes them, `RECORD_BYTES` each: each address with its size."""
    digests = np.frombuffer(digests_of(addresses), _DIGEST) if addresses else np.empty(0, _DIGEST)
    return _records(digests, np.fromiter(sizes, _BIG_ENDIAN, len(addresses)))


def _records(digests: Digests, sizes: npt.NDArray[np.uint64]) -> bytes:
    count = len(digests)
    rows = np.empty((count, RECORD_BYTES), np.uint8)
    rows[:, :DIGEST_BYTES] = digests.view(np.uint8).reshape(count, DIGEST_BYTES)
    # Big-endian: records of one object are then in the order of their sizes.
    rows[:, DIGEST_BYTES:] = sizes.astype(_BIG_ENDIAN, copy=False).view(np.uint8).reshape(count, 8)
    return rows.tobytes()


class TooManyObjects(Exception):
    """There are more distinct objects than a table may have."""


class ObjectTableBuilder:
    """
    Collects the objects of a snapshot, in any order and with repetitions; at most *most* distinct ones.

    *most* bounds the memory, however often an object is added.
    """

    def __init__(self, most: int) -> None:
        self._records = bytearray()
        self._most = most

    def add(self, records: bytes | bytearray) -> None:
        """Add objects as `records_of` returned them. Raises `TooManyObjects`."""
        self._records += records
        if len(self._records) > RECORD_BYTES * (self._most + _ROWS):
            table = self._table()
            if len(table.digests) > self._most:
                raise TooManyObjects
            self._records += _records(*table)

    def finish(self) -> ObjectTable:
        """
        Return the table. Of an object with several sizes the largest counts. Do not use the builder afterwards.

        Raises `TooManyObjects`.
        """
        table = self._table()
        if len(table.digests) > self._most:
            raise TooManyObjects
        return table

    def _table(self) -> ObjectTable:
        records = np.frombuffer(self._records, _RECORD) if self._records else np.empty(0, _RECORD)
        records.sort()
        rows = records.view(np.uint8).reshape(-1, _RECORD.itemsize)
        digests = np.ascontiguousarray(rows[:, :32]).view(_DIGEST).ravel()
        sizes = np.ascontiguousarray(rows[:, 32:]).view(_BIG_ENDIAN).ravel()
        # Back to the machine's own order of bytes, in place.
        sizes = (
            sizes.byteswap(inplace=True).view(np.uint64)
            if sys.byteorder == "little"
            else sizes.view(np.uint64)
        )
        del records, rows
        self._records = bytearray()
        last = np.ones(len(digests), np.bool_)
        last[:-1] = digests[:-1] != digests[1:]
        return ObjectTable(digests, sizes).chosen(last)


class AddressTable:
    """A growing set of addresses. It is sorted as a whole when it is read."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._distinct = 0
        self._sorted = True

    def update(self, addresses: Sequence[str]) -> None:
        """Add *addresses*."""
        self.add_digests(digests_of(addresses))

    def add_digests(self, digests: bytes | bytearray) -> None:
        """Add the addresses with these *digests*, concatenated."""
        self._bytes += digests
        self._sorted = False
        # Addresses that many manifests share must not pile up.
        if len(self._bytes) // _DIGEST.itemsize > 2 * max(self._distinct, _ROWS):
            self._sort()

    def __len__(self) -> int:
        self._sort()
        return len(self._bytes) // _DIGEST.itemsize

    def chunks(self, count: int) -> Iterator[list[Address]]:
        """Yield the addresses in order, *count* at a time."""
        return map(addresses_in, self.digest_chunks(count))

    def digest_chunks(self, count: int) -> Iterator[bytes]:
        """Yield the digests of the addresses, as `chunks` does, each concatenated."""
        self._sort()
        step = count * _DIGEST.itemsize
        for at in range(0, len(self._bytes), step):
            yield bytes(self._bytes[at : at + step])

    def between(self, first: str, last: str) -> list[Address]:
        """Return the addresses from *first* to *last*, both included, in order."""
        begin, end = self._places(first, last)
        return addresses_in(self._bytes[_DIGEST.itemsize * begin : _DIGEST.itemsize * end])

    def count_between(self, first: str, last: str) -> int:
        """Return how many addresses there are from *first* to *last*."""
        begin, end = self._places(first, last)
        return end - begin

    def _places(self, first: str, last: str) -> tuple[int, int]:
        self._sort()
        if not self._bytes:
            return 0, 0
        table = np.frombuffer(self._bytes, _DIGEST)
        one, other = to_digests([first, last])
        begin, end = np.searchsorted(table, one), np.searchsorted(table, other, "right")
        return int(begin), max(int(begin), int(end))

    def mask(self, digests: Digests) -> Mask:
        """Return for each of *digests* whether it is in the set."""
        self._sort()
        return (
            found_in(np.frombuffer(self._bytes, _DIGEST), digests)
            if self._bytes
            else found_in(digests[:0], digests)
        )

    def _sort(self) -> None:
        if self._sorted or not self._bytes:
            return
        every = np.frombuffer(self._bytes, _DIGEST)
        every[self._distinct :].sort()
        if self._distinct:
            # Two runs in order: a stable sort merges them.
            every.sort(kind="stable")
        first = np.ones(len(every), np.bool_)
        first[1:] = every[1:] != every[:-1]
        if not first.all():
            self._bytes = bytearray(every[first].tobytes())
        self._distinct = len(self._bytes) // _DIGEST.itemsize
        self._sorted = True


class DigestTiers:
    """
    A set of digests to which sorted arrays are added without moving everything each time.

    Each tier is more than twice as large as the next one, so there are few.
    """

    def __init__(self) -> None:
        self._tiers: list[Digests] = []

    def __len__(self) -> int:
        return sum(map(len, self._tiers))

    def add(self, digests: Digests) -> None:
        """Add *digests*: sorted, distinct, and not in the set yet."""
        if not len(digests):
            return
        self._tiers.append(digests)
        while len(self._tiers) > 1 and len(self._tiers[-2]) < 2 * len(self._tiers[-1]):
            merged = np.concatenate([self._tiers.pop(), self._tiers.pop()])
            # Two runs in order: a stable sort merges them.
            merged.sort(kind="stable")
            self._tiers.append(merged)

    def mask(self, digests: Digests) -> Mask:
        """Return for each of *digests* whether it is in the set."""
        found = np.zeros(len(digests), np.bool_)
        for tier in self._tiers:
            found |= found_in(tier, digests)
        return found


def found_in(table: Digests, digests: Digests) -> Mask:
    """Return for each of *digests* whether it is in *table*, which is sorted and distinct."""
    found = np.zeros(len(digests), np.bool_)
    if not len(table):
        return found
    for at in range(0, len(digests), _ROWS):
        rows = digests[at : at + _ROWS]
        places = np.minimum(np.searchsorted(table, rows), len(table) - 1)
        found[at : at + _ROWS] = table[places] == rows
    return found


def to_digests(addresses: Sequence[str]) -> Digests:
    """Return *addresses* as digests, in their order."""
    if not addresses:
        return np.empty(0, _DIGEST)
    return np.frombuffer(digests_of(addresses), _DIGEST)
