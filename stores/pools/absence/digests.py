"""
Find out which of many objects a store lacks, as `existence.survey` does, without a Python object for each.

Imported only where many are asked for: importing NumPy takes time.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import starmap
from typing import Final, overload

from snapferry.stores.address import (
    ADDRESS_LENGTH,
    DIGEST_BYTES,
    Address,
    address_of,
    addresses_in,
    digests_of,
)
from snapferry.stores.backend import Backend
from snapferry.stores.bulk.tables import Mask
from snapferry.stores.pools.existence import Namespace, Page, ask, list_page, page_of

import numpy as np  # isort: skip - `tables` limits the threads of NumPy before it is imported

_DIGEST: Final = np.dtype("S32")

# No prefix of keys has this digit.
_ZERO: Final = "0"


def absent_digests(backend: Backend, space: Namespace, wanted: bytes) -> bytes:
    """
    Return the digests of those of *wanted* that *backend* lacks in *space*. Both are rising, and concatenated.

    Raises what the backend raises: an unanswered question is never "absent".
    """
    ordered = _Addresses(wanted)
    there: Mask = np.zeros(len(ordered), np.bool_)
    answered = 0
    if backend.capabilities.pages_listings:
        answered = ask(ordered, _Listing(backend, space, ordered, there).page).answered
    left = ordered[answered:]
    sizes = backend.sizes(list(map(space.key, left)))
    there[answered:] |= np.fromiter(map(space.is_whole, left, sizes), np.bool_, len(left))
    return np.frombuffer(wanted, _DIGEST)[~there].tobytes()


class _Addresses(Sequence[Address]):
    """The addresses with these *digests*, each made when it is asked for."""

    def __init__(self, digests: bytes) -> None:
        self.digests = digests

    def __len__(self) -> int:
        return len(self.digests) // DIGEST_BYTES

    @overload
    def __getitem__(self, at: int) -> Address: ...
    @overload
    def __getitem__(self, at: slice) -> list[Address]: ...
    def __getitem__(self, at: int | slice) -> Address | list[Address]:
        if isinstance(at, slice):
            first, end, _ = at.indices(len(self))
            return addresses_in(self.digests[DIGEST_BYTES * first : DIGEST_BYTES * end])
        place = DIGEST_BYTES * range(len(self))[at]
        return Address(self.digests[place : place + DIGEST_BYTES].hex())


class _Listing:
    """Pages of a backend's listing. Notes in *there* which of *ordered* they show to be whole."""

    def __init__(self, backend: Backend, space: Namespace, ordered: _Addresses, there: Mask) -> None:
        self._backend = backend
        self._space = space
        self._ordered = ordered
        self._there = there

    def page(self, at: int) -> Page:
        keys, sizes = list_page(self._backend, self._space, self._ordered, at)
        last = self._note(at, keys, sizes)[-DIGEST_BYTES:].hex()
        return page_of(self._space, self._ordered, keys, last)

    def _note(self, at: int, keys: Sequence[str], sizes: Sequence[int]) -> bytes:
        """
        Note the objects with these *keys*, of these *sizes* in bytes, and return their digests.

        The page was asked for to find the object at *at*.
        """
        digests = plain_digests(self._space, keys)
        if digests is None:
            addresses = [address_of(key, self._space.prefix) for key in keys]
            sizes = [size for size, address in zip(sizes, addresses, strict=True) if address is not None]
            digests = digests_of(filter(None, addresses))
        if not digests:
            return digests
        begin = DIGEST_BYTES * at
        if self._ordered.digests[begin : begin + len(digests)] == digests and min(sizes) > 0:
            # Most pages, before a manifest is published: what is asked for is there, and little else.
            self._there[at : at + len(digests) // DIGEST_BYTES] = True
        else:
            found, table = np.frombuffer(digests, _DIGEST), np.frombuffer(self._ordered.digests, _DIGEST)
            places = np.minimum(np.searchsorted(table, found), len(table) - 1)
            wanted = table[places] == found
            whole = np.ones(len(found), np.bool_)
            # Nearly always nothing is empty. Then no call for each is needed.
            if min(sizes) <= 0:
                each = zip(addresses_in(digests), sizes, strict=True)
                whole = np.fromiter(starmap(self._space.is_whole, each), np.bool_)
            self._there[places[wanted]] = whole[wanted]
        return digests


def plain_digests(space: Namespace, keys: Sequence[str]) -> bytes | None:
    """Return the digests of the addresses with *keys* in *space*, concatenated. None if one has no such key."""
    shape = space.key(Address(_ZERO * ADDRESS_LENGTH))
    text = "".join(keys)
    if not text.isascii() or not {len(shape)}.issuperset(map(len, keys)):
        return None
    expected = np.frombuffer(shape.encode(), np.uint8)
    is_digit = expected == ord(_ZERO)
    rows = np.frombuffer(text.encode(), np.uint8).reshape(-1, len(shape))
    if (rows[:, ~is_digit] != expected[~is_digit]).any():
        return None
    digits = rows[:, is_digit].tobytes().decode()
    try:
        digests = bytes.fromhex(digits)
    except ValueError:
        return None
    # Capital letters, and spaces, are not those of an address.
    return digests if digests.hex() == digits else None
