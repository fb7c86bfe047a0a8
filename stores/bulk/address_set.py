"""A set of addresses of any size: a Python set while it is small, then a table with 32 bytes for each address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import TYPE_CHECKING, Final

from snapferry.stores.address import Address, addresses_in, digests_of

if TYPE_CHECKING:
    # It imports NumPy, which a small set does without.
    from .tables import AddressTable

# A larger set is kept in a table.
MANY: Final = 50_000

# Addresses that are compared at once.
_CHUNK: Final = 10_000


class AddressSet:
    """Distinct addresses."""

    def __init__(self, addresses: Iterable[Address] = ()) -> None:
        self._few: set[Address] = set()
        self._many: AddressTable | None = None
        self.update(addresses)

    def update(self, addresses: Iterable[Address]) -> None:
        """Add *addresses*."""
        if self._many is not None:
            self._many.update(list(addresses))
            return
        self._few.update(addresses)
        if len(self._few) > MANY:
            # As above.
            from .tables import AddressTable

            self._many = AddressTable()
            self._many.update(list(self._few))
            self._few = set()

    def add_digests(self, digests: bytes | bytearray) -> None:
        """Add the addresses with these *digests*, concatenated."""
        if self._many is None:
            self.update(addresses_in(digests))
        else:
            self._many.add_digests(digests)

    def __len__(self) -> int:
        return len(self._few) if self._many is None else len(self._many)

    def among(self, addresses: Sequence[Address]) -> list[Address]:
        """Return those of *addresses* that are in the set, in their order."""
        if self._many is None:
            return [address for address in addresses if address in self._few] if self._few else []
        # As above; `update` has imported it.
        from .tables import to_digests

        return list(compress(addresses, self._many.mask(to_digests(addresses))))

    def common(self, others: AddressSet) -> int:
        """Return how many addresses both sets contain."""
        one, other = sorted((self, others), key=len)
        return sum(len(other.among(chunk)) for chunk in one.chunks(_CHUNK))

    @property
    def is_table(self) -> bool:
        """Return whether the addresses are in a table, so that NumPy is imported already."""
        return self._many is not None

    def digest_chunks(self, count: int) -> Iterator[bytes]:
        """Yield the digests of the addresses, sorted, *count* at a time, each time concatenated."""
        return map(digests_of, self.chunks(count)) if self._many is None else self._many.digest_chunks(count)

    def chunks(self, count: int) -> Iterator[list[Address]]:
        """Yield the addresses, sorted, *count* at a time."""
        if self._many is not None:
            yield from self._many.chunks(count)
            return
        ordered = sorted(self._few)
        for at in range(0, len(ordered), count):
            yield ordered[at : at + count]
