"""
Which of many things a store holds, for few requests.

A store that pages its listings answers many questions by one LIST, and one by a
HEAD. Which of the two is cheaper depends on how many other keys lie between
those that are asked for. Addresses are digests, spread evenly, so one page tells:
it spans as much of all addresses as a thousand keys of this store take, and as
many of the next questions as fall into such a span the next page would answer.

*never more than one by one*: every page begins at an address that nothing has
been answered about yet, so it answers one question at least.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from itertools import compress, islice
from operator import not_
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

# Many addresses are asked for in pieces, each a range of the store's keys, so many pieces at once. Each may cost a
# page more than its addresses fill, so few objects have few of them; and what is asked for at once is in memory.
PIECES_AT_ONCE: Final = 4
PIECE_PAGES: Final = 2, 10

# One question after the other, where a backend spreads each over cores by itself.
LARGE_PIECE_ADDRESSES: Final = 50_000

# Price lists ask about as much for one LIST as for so many HEADs.
HEADS_FOR_A_LIST: Final = 10

# Addresses are compared by so many of their digits where only distances matter.
_DIGITS: Final = 16


class Namespace(NamedTuple):
    """One of the two kinds of things in a store: where they are filed, and what length makes one whole."""

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
    What one page of a listing says of the addresses that are asked for.

    *keys* is how many keys up to the last of those asked for it has. *answered* is how many addresses of the
    whole question, in order, it and what came before it settle; *last* is the last address that it shows, "" if none.
    """

    keys: int
    answered: int
    last: str


_Pager = Callable[[int], _Page]


def survey(backend: Backend, space: Namespace, wanted: Sequence[Address]) -> Survey:
    """
    Ask *backend* which of *wanted* it lacks in *space*.

    Nothing is asked twice. Raises what the backend raises: no answer is not "absent".
    """
    # Those that are in order already, as nearly always, are sorted in one look at each; a set would lose the order.
    ordered = sorted(dict.fromkeys(wanted))
    lacking: set[Address] = set()
    between: int | None = None
    if backend.capabilities.pages_listings:
        listing = _Listing(backend, space, ordered)
        asked = _ask(ordered, listing.page)
        lacking.update(ordered[: asked.answered])
        lacking -= listing.present
        ordered, between = ordered[asked.answered :], asked.keys_between
    sizes = backend.sizes(list(map(space.key, ordered)))
    lacking.update(compress(ordered, map(not_, map(space.is_whole, ordered, sizes))))
    # Where nothing is missing, as before most manifests, nothing is looked up either.
    return Survey([address for address in wanted if address in lacking] if lacking else [], between)


def absent(backend: Backend, space: Namespace, addresses: AddressSet) -> AddressSet:
    """
    Return those of *addresses* that *backend* lacks in *space*, however many there are.

    Asked in pieces, some of them at once where the backend pages its listings. Raises what it raises.
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
    """Return how many of *count* addresses are asked for together, of a store that pages its listings."""
    least, most = PIECE_PAGES
    pages = -(-count // (PIECES_AT_ONCE * LISTING_KEYS_PER_PAGE))
    return LISTING_KEYS_PER_PAGE * min(max(least, pages), most)


def requests_to_ask(wanted: int, keys_between: int) -> Requests:
    """
    Return about what `survey` sends for *wanted* distinct addresses to a store that pages its listings.

    *keys_between* as in `Survey`, spread evenly.
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
    Return what `survey` sends for *wanted* to a store that pages its listings and holds just what is *there*.

    Both are sorted, without duplicates. Exact.
    """
    held = _Held(wanted, there)
    asked = _ask(wanted, held.page)
    return +Requests({LIST: asked.pages, HEAD: len(wanted) - asked.answered})


class _Asked(NamedTuple):
    """How far listings went: *answered* of the addresses in order, by *pages*."""

    answered: int
    pages: int
    keys_between: int | None


def _ask(ordered: Sequence[str], page_at: _Pager) -> _Asked:
    """Ask by pages, each from the first address that is not answered yet, for as long as that is cheaper."""
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
    """Pages of a backend's listing; gathers what they show of *ordered* in *present*."""

    def __init__(self, backend: Backend, space: Namespace, ordered: Sequence[Address]) -> None:
        self._backend = backend
        self._space = space
        self._ordered = ordered
        self._unanswered = frozenset(ordered)
        self.present: set[Address] = set()

    def page(self, at: int) -> _Page:
        space, ordered = self._space, self._ordered
        last_key = space.key(ordered[-1])
        keys, key, last = 0, "", ""
        # Strangers may lie between where this begins and the first address that is asked for.
        listed = self._backend.keys(space.prefix, start_after=space.key(ordered[at])[:-1])
        for found in islice(listed, LISTING_KEYS_PER_PAGE):
            if found.key > last_key:
                break
            keys, key = keys + 1, found.key
            address = address_of(key, space.prefix)
            if address is None:
                continue
            last = address
            if address in self._unanswered and space.is_whole(address, found.size):
                self.present.add(address)
        if keys < LISTING_KEYS_PER_PAGE:
            # The listing came to its end, or behind the last address that is asked for.
            return _Page(keys, len(ordered), last)
        return _Page(keys, bisect_right(ordered, key, key=space.key), last)


class _Held:
    """The pages that a store would give that holds just what is *there*."""

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
