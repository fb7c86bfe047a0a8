"""
Find out which of many objects or manifests a store has, with few requests.

A store that pages its listings answers many questions with one LIST, and one question with a HEAD. Which is cheaper
depends on how many other keys lie between the wanted ones. Addresses are digests, spread evenly, so one page shows
that: it spans the part of the address space that 1,000 keys of this store take. The next page would answer the
questions that fall into a span of that size.

*never more requests than questions*: every page begins at an address without an answer, so it answers at least one.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import compress, islice, starmap
from typing import Final, NamedTuple

from snapferry.stores.address import (
    EMPTY_ADDRESS,
    MANIFESTS,
    OBJECTS,
    Address,
    SnapshotId,
    address_of,
    manifest_key,
    object_key,
)
from snapferry.stores.backend import Backend
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.requests import HEAD, LIST, Requests
from snapferry.stores.stream_store import Survey

LISTING_KEYS_PER_PAGE: Final = 1000

# Many addresses are divided into pieces, each a range of the store's keys, and this many pieces are asked for at once.
# Each piece may cost one page more than its addresses fill, so few addresses make few pieces. A piece is in memory.
PIECES_AT_ONCE: Final = 4
PIECE_PAGES: Final = 2, 10

# One piece after the other, where a backend spreads each over cores by itself.
LARGE_PIECE_ADDRESSES: Final = 50_000

# In price lists one LIST costs about as much as this many HEADs.
HEADS_FOR_A_LIST: Final = 10

# Digits of an address that are compared where only distances matter.
_DIGITS: Final = 16


class Namespace(NamedTuple):
    """Objects or manifests: where they are filed, and which length makes one whole."""

    prefix: str
    key: Callable[[Address], str]
    is_whole: Callable[[str, int | None], bool]


def _is_whole_object(address: str, size: int | None) -> bool:
    return size is not None and (size > 0 or address == EMPTY_ADDRESS)


def _manifest_key(address: Address) -> str:
    return manifest_key(SnapshotId(address))


def _is_whole_manifest(snapshot_id: str, size: int | None) -> bool:
    return bool(size)


OBJECT_SPACE: Final = Namespace(OBJECTS, object_key, _is_whole_object)
MANIFEST_SPACE: Final = Namespace(MANIFESTS, _manifest_key, _is_whole_manifest)


class _Page(NamedTuple):
    """
    What one page of a listing tells about the addresses that are asked for.

    *keys* counts its keys up to the last address that is asked for. *answered* counts the addresses of the whole
    question, in order, that are answered by this page and those before it. *last* is the last address on the page, ""
    if there is none.
    """

    keys: int
    answered: int
    last: str


_Pager = Callable[[int], _Page]


def survey(backend: Backend, space: Namespace, wanted: Sequence[Address]) -> Survey:
    """
    Ask *backend* which of *wanted* it lacks in *space*.

    Nothing is asked twice. Raises what the backend raises: an unanswered question is never "absent".
    """
    # Addresses nearly always come in order, and are then sorted in one pass; a set would lose the order.
    ordered = sorted(dict.fromkeys(wanted))
    distinct = len(ordered)
    there: set[Address] = set()
    between: int | None = None
    if backend.capabilities.pages_listings:
        listing = _Listing(backend, space, ordered)
        asked = _ask(ordered, listing.page)
        there.update(compress(listing.found, starmap(space.is_whole, listing.found.items())))
        ordered, between = ordered[asked.answered :], asked.keys_between
    sizes = backend.sizes(list(map(space.key, ordered)))
    there.update(compress(ordered, map(space.is_whole, ordered, sizes)))
    # Before most manifests nothing is missing; then the comprehension is skipped.
    lacks_some = len(there) < distinct
    return Survey([address for address in wanted if address not in there] if lacks_some else [], between)


def lengths(backend: Backend, space: Namespace, wanted: Sequence[Address]) -> dict[Address, int | None]:
    """
    Return the length in bytes of what *backend* has under each of *wanted* in *space*, None where there is nothing.

    Asks as `survey` does, and raises as it does.
    """
    ordered = sorted(dict.fromkeys(wanted))
    found: dict[Address, int | None] = dict.fromkeys(ordered)
    if backend.capabilities.pages_listings:
        listing = _Listing(backend, space, ordered)
        ordered = ordered[_ask(ordered, listing.page).answered :]
        found.update(listing.found)
    found.update(zip(ordered, backend.sizes(list(map(space.key, ordered))), strict=True))
    return found


def absent(backend: Backend, space: Namespace, addresses: AddressSet) -> AddressSet:
    """
    Return those of *addresses* that *backend* lacks in *space*, any number of them.

    They are asked for in pieces, several at once where the backend pages its listings. Raises what the backend raises.
    """
    found = AddressSet()
    piece_addresses = addresses_of_a_piece(len(addresses))
    if not backend.capabilities.pages_listings or len(addresses) <= piece_addresses:
        for piece in addresses.chunks(LARGE_PIECE_ADDRESSES):
            found.update(survey(backend, space, piece).needed)
        return found
    with ThreadPoolExecutor(PIECES_AT_ONCE) as pool:
        asked: deque[Future[Survey]] = deque()
        for piece in addresses.chunks(piece_addresses):
            if len(asked) == PIECES_AT_ONCE:
                found.update(asked.popleft().result().needed)
            asked.append(pool.submit(copy_context().run, survey, backend, space, piece))
        for answer in asked:
            found.update(answer.result().needed)
    return found


def addresses_of_a_piece(count: int) -> int:
    """Return how many of *count* addresses make a piece, for a store that pages its listings."""
    least, most = PIECE_PAGES
    pages = -(-count // (PIECES_AT_ONCE * LISTING_KEYS_PER_PAGE))
    return LISTING_KEYS_PER_PAGE * min(max(least, pages), most)


def requests_to_ask(wanted: int, keys_between: int) -> Requests:
    """
    Return the approximate requests of `survey` for *wanted* distinct addresses at a store that pages its listings.

    *keys_between* as in `Survey`; exact if they are spread evenly.
    """
    if wanted < 2:
        return +Requests({HEAD: wanted})
    pages = 1 + keys_between // LISTING_KEYS_PER_PAGE
    answers = wanted / max(1.0, keys_between / LISTING_KEYS_PER_PAGE)
    if pages <= 2 or answers >= HEADS_FOR_A_LIST:
        return Requests({LIST: pages})
    return +Requests({LIST: 1, HEAD: wanted - max(1, math.floor(answers))})


def requests_to_ask_among(wanted: Sequence[str], there: Sequence[str]) -> Requests:
    """
    Return the requests of `survey` for *wanted* at a store that pages its listings and holds exactly *there*.

    Both are sorted, without duplicates. Exact.
    """
    held = _Held(wanted, there)
    asked = _ask(wanted, held.page)
    return +Requests({LIST: asked.pages, HEAD: len(wanted) - asked.answered})


class _Asked(NamedTuple):
    """How many addresses were *answered*, in order, by how many *pages*."""

    answered: int
    pages: int
    keys_between: int | None


def _ask(ordered: Sequence[str], page_at: _Pager) -> _Asked:
    """Ask by pages, each from the first address without an answer, as long as that is cheaper."""
    if len(ordered) < 2:
        return _Asked(0, 0, None)
    answered = pages = keys = covered = 0
    while answered < len(ordered):
        begin = _place(ordered[answered])
        page = page_at(answered)
        stuck = page.answered == answered
        pages, keys, answered = pages + 1, keys + page.keys, page.answered
        if answered == len(ordered):
            return _Asked(answered, pages, keys)
        span = _place(page.last) - begin if page.last else 0
        covered += span
        left = len(ordered) - answered
        expected = bisect_right(ordered, _place(page.last) + span, lo=answered, key=_place) - answered
        if stuck or (expected < HEADS_FOR_A_LIST and (expected < left or left < 2)):
            break
    whole = _place(ordered[-1]) - _place(ordered[0])
    return _Asked(answered, pages, round(keys * whole / covered) if covered else keys)


def _place(address: str) -> int:
    return int(address[:_DIGITS] or "0", 16)


class _Listing:
    """Pages of a backend's listing. *found* collects those of *ordered* that they show, with their lengths in bytes."""

    def __init__(self, backend: Backend, space: Namespace, ordered: Sequence[Address]) -> None:
        self._backend = backend
        self._space = space
        self._ordered = ordered
        # Keys are compared, because parsing the key of every listed object would take longer than all else.
        self._wanted = dict(zip(map(space.key, ordered), ordered, strict=True))
        self.found: dict[Address, int] = {}

    def page(self, at: int) -> _Page:
        space, ordered, wanted = self._space, self._ordered, self._wanted
        last_key = space.key(ordered[-1])
        keys: list[str] = []
        # Foreign keys may lie between the start of the listing and the first address that is asked for.
        listed = self._backend.keys(space.prefix, start_after=space.key(ordered[at])[:-1])
        for key, size, _ in islice(listed, LISTING_KEYS_PER_PAGE):
            if key > last_key:
                break
            keys.append(key)
            if key in wanted:
                self.found[wanted[key]] = size
        last = next(filter(None, (address_of(key, space.prefix) for key in reversed(keys))), "")
        if len(keys) < LISTING_KEYS_PER_PAGE:
            # The listing ended, or passed the last address that is asked for.
            return _Page(len(keys), len(ordered), last)
        return _Page(len(keys), bisect_right(ordered, keys[-1], key=space.key), last)


class _Held:
    """The pages of a store that holds exactly *there*."""

    def __init__(self, ordered: Sequence[str], there: Sequence[str]) -> None:
        self._ordered = ordered
        self._there = there

    def page(self, at: int) -> _Page:
        ordered, there = self._ordered, self._there
        begin = bisect_left(there, ordered[at])
        end = bisect_right(there, ordered[-1], lo=begin)
        shown = there[begin : min(end, begin + LISTING_KEYS_PER_PAGE)]
        if len(shown) < LISTING_KEYS_PER_PAGE:
            return _Page(len(shown), len(ordered), "")
        return _Page(len(shown), bisect_right(ordered, shown[-1]), shown[-1])
