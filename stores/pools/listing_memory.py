"""
Find out which objects a store lacks, for questions in no order that one process asks in many calls.

The files of a push come in the order of their paths, so the objects of each batch spread over all addresses. Without a
memory, each batch would list the whole store. Here pages that were listed once are kept, and answer later questions.

*bounded*: a memory keeps at most `MOST_KEYS` listed keys, 32 bytes each. A store with more of them is asked for each
object.
*at most twice the cost of the best way*: requests for single objects are counted. When they would have paid for listing
all that is not listed yet, it is listed. So the cost never grows with the size of the store times the number of calls.
*old answers do no harm*: an object that was deleted since is missed by the check before the manifest is written, and
one that was written since is written again with the same bytes.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from snapferry.stores.address import (
    DIGEST_BYTES,
    OBJECTS,
    Address,
    address_of,
    digests_of,
    object_key,
)
from snapferry.stores.backend import Backend

from .existence import HEADS_FOR_A_LIST, LISTING_KEYS_PER_PAGE, OBJECT_SPACE

MOST_KEYS: Final = 500_000
"""Keys that a memory keeps, 16 MB of them."""

MOST_ALONE: Final = 100_000
"""Objects that a memory keeps because they were written, or found by a request of their own: about 10 MB of them."""

MAX_AGE_S: Final = 3600.0
"""Seconds after which a memory forgets everything."""

# Above all addresses.
_END: Final = "g"

# Digits of an address that are compared where only distances matter, and the size of the space of such numbers.
_DIGITS: Final = 13
_SPACE: Final = 16**_DIGITS


class _Page(NamedTuple):
    """What is there from the address *first* to *last*: the digests of whole objects, concatenated, rising."""

    first: str
    last: str
    digests: bytes

    def holds(self, address: str) -> bool:
        digest = bytes.fromhex(address)
        digests = self.digests
        places = range(0, len(digests), DIGEST_BYTES)
        place = DIGEST_BYTES * bisect_left(places, digest, key=lambda at: digests[at : at + DIGEST_BYTES])
        return digests[place : place + DIGEST_BYTES] == digest


class ListingMemory:
    """What listings of one store showed of its objects. Safe to share between threads."""

    def __init__(
        self,
        *,
        most_keys: int = MOST_KEYS,
        max_age_s: float = MAX_AGE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most_keys = most_keys
        self._max_age_s = max_age_s
        self._clock = clock
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._since = self._clock()
        # In order, without an overlap.
        self._pages: list[_Page] = []
        self._firsts: list[str] = []
        self._there: set[bytes] = set()
        self._keys = 0
        self._covered = 0
        self._asked_alone = 0

    def needed(self, backend: Backend, wanted: Sequence[Address], *, again: bool = False) -> list[Address]:
        """
        Return those of *wanted* that *backend* lacked, in their order: now, or when it was asked in an earlier call.

        With *again*, those that it lacked in an earlier call are asked for, each by itself.

        Many calls cost at most about twice what the cheaper of listing all and asking for each costs, and one page.
        Raises what the backend raises: an unanswered question is never "absent".
        """
        lacking: set[Address] = set()
        with self._lock:
            if self._clock() - self._since > self._max_age_s:
                self._forget()
            unknown = self._look_up(sorted(set(wanted)), lacking)
            doubtful = lacking.copy() if again else set()
            while unknown and self._is_worth_listing(len(unknown)) and self._list_page(backend, unknown[0]):
                unknown = self._look_up(unknown, lacking)
            self._asked_alone += len(unknown)
        alone = sorted(doubtful.union(unknown))
        sizes = backend.sizes([object_key(address) for address in alone])
        found = [
            address
            for address, size in zip(alone, sizes, strict=True)
            if OBJECT_SPACE.is_whole(address, size)
        ]
        self.add(found)
        lacking.update(unknown)
        lacking.difference_update(found)
        return [address for address in wanted if address in lacking]

    def add(self, addresses: Iterable[Address]) -> None:
        """Record that the objects at *addresses* are there. Older records may be dropped for these."""
        digests = list(map(bytes.fromhex, addresses))
        with self._lock:
            if len(self._there) + len(digests) > MOST_ALONE:
                self._there.clear()
            self._there.update(digests[:MOST_ALONE])

    def _look_up(self, ordered: Sequence[Address], lacking: set[Address]) -> list[Address]:
        """Add those of *ordered* that are known to be absent to *lacking*; return those of which nothing is known."""
        unknown = []
        for address in ordered:
            if self._there and bytes.fromhex(address) in self._there:
                continue
            page = self._page_of(address)
            if page is None:
                unknown.append(address)
            elif not page.holds(address):
                lacking.add(address)
        return unknown

    def _page_of(self, address: str) -> _Page | None:
        number = bisect_right(self._firsts, address) - 1
        return self._pages[number] if number >= 0 and address <= self._pages[number].last else None

    def _is_worth_listing(self, unknown: int) -> bool:
        if not self._pages:
            # The first page is also a sample: it shows how many keys the store has.
            return unknown > 1
        left = self._keys_in(_SPACE - self._covered)
        pages = math.ceil(max(1.0, left / LISTING_KEYS_PER_PAGE))
        return (
            self._keys + left <= self._most_keys and self._asked_alone + unknown >= HEADS_FOR_A_LIST * pages
        )

    def _keys_in(self, span: int) -> float:
        """Return how many keys of the store are expected in a *span* of addresses."""
        return self._keys * max(0, span) / max(1, self._covered)

    def _list_page(self, backend: Backend, address: Address) -> bool:
        """
        List a page from where nothing is known before *address*; return whether anything is known now.

        The first page begins at *address*, because nothing is known of how many keys lie before it.
        """
        number = bisect_right(self._firsts, address)
        before = self._pages[number - 1].last if number else ""
        after = self._firsts[number] if number < len(self._pages) else _END
        first: str
        start_after: str
        if not self._pages:
            first, start_after = address, object_key(address)[:-1]
        elif before:
            # No address equals this `first`.
            first, start_after = f"{before}0", object_key(Address(before))
        else:
            first = start_after = ""
        keys, last, whole = 0, "", []
        for found in islice(backend.keys(OBJECTS, start_after=start_after), LISTING_KEYS_PER_PAGE):
            listed = address_of(found.key, OBJECTS)
            if listed is not None and listed >= after:
                last = after
                break
            keys += 1
            if listed is None:
                continue
            last = listed
            if OBJECT_SPACE.is_whole(listed, found.size):
                whole.append(listed)
        if keys < LISTING_KEYS_PER_PAGE:
            # The listing ended, or reached the next page.
            last = after
        if not last:
            return False
        self._pages.insert(number, _Page(first, last, digests_of(whole)))
        self._firsts.insert(number, first)
        self._keys += keys
        self._covered += _place(last) - _place(first)
        return True


def _place(address: str) -> int:
    """Return where *address* lies in the space of addresses, from 0 to `_SPACE`."""
    if address == _END:
        return _SPACE
    return int(address[:_DIGITS] or "0", 16)
