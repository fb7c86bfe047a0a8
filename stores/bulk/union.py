"""
Distinct objects of any number, each with the size that was added first.

A Python dictionary while there are few, then a table with 41 bytes for each object.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from snapferry.stores.address import Address

if TYPE_CHECKING:
    # It imports NumPy, which few objects do without.
    from .union_table import UnionTable

# More objects are kept in a table.
MANY: Final = 50_000

# Objects that are taken out of a table at once.
CHUNK: Final = 10_000


class Counted(NamedTuple):
    """How many objects, and the sum of their sizes in bytes."""

    objects: int = 0
    size_bytes: int = 0


class ObjectUnion:
    """Distinct objects. An object that is added again keeps its first size, and counts as repeated."""

    def __init__(self) -> None:
        self._few: dict[Address, int] = {}
        self._repeated: set[Address] = set()
        self._many: UnionTable | None = None

    def add(self, addresses: Sequence[Address], sizes: Iterable[int]) -> None:
        """Add *addresses* with their *sizes*, each less than 2**64."""
        if self._many is not None:
            self._many.add(addresses, sizes)
            return
        few, repeated = self._few, self._repeated
        for address, size in zip(addresses, sizes, strict=True):
            if address in few:
                repeated.add(address)
            else:
                few[address] = size
        if len(few) > MANY:
            # As above.
            from .union_table import UnionTable

            self._many = UnionTable()
            self._many.add(list(few), few.values())
            again = list(repeated)
            self._many.add(again, map(few.__getitem__, again))
            self._few, self._repeated = {}, set()

    def add_all(self, other: ObjectUnion) -> None:
        """Add the objects of *other*, each once."""
        for addresses, sizes in other.chunks():
            self.add(addresses, sizes)

    def chunks(self) -> Iterator[tuple[list[Address], list[int]]]:
        """Yield the objects and their sizes, some at a time. Do not add meanwhile."""
        if self._many is not None:
            yield from self._many.chunks(CHUNK)
        elif self._few:
            yield list(self._few), list(self._few.values())

    def __len__(self) -> int:
        return len(self._few) if self._many is None else len(self._many)

    def exceeds(self, most: int) -> bool:
        """Return whether there are more than *most* objects. May be called after each addition, unlike `len`."""
        return len(self._few) > most if self._many is None else self._many.exceeds(most)

    def total(self) -> Counted:
        """Return the distinct objects and their bytes."""
        if self._many is not None:
            return Counted(len(self._many), self._many.size_bytes())
        return Counted(len(self._few), sum(self._few.values()))

    def repeated(self) -> Counted:
        """Return those that were added more than once."""
        if self._many is not None:
            return Counted(*self._many.repeated())
        return Counted(len(self._repeated), sum(map(self._few.__getitem__, self._repeated)))
