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
from collections.abc import Callable, Sequence
from functools import cached_property
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
from snapferry.stores.requests import HEAD, LIST, Requests
from snapferry.stores.stream_store import Survey

LISTING_KEYS_PER_PAGE: Final = 1000

# Many addresses are divided into pieces, each a range of the store's keys, and this many pieces are asked for at once.
# Each piece may cost one page more than its addresses fill, so few addresses make few pieces. A piece is in memory.
PIECES_AT_ONCE: Final = 4
PIECE_PAGES: Final = 2, 10

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


class Page(NamedTuple):
    """
    What one page of a listing tells about the addresses that are asked for.

    *keys* counts its keys up to the last address that is asked for. *answered* counts the addresses of the whole
    question, in order, that are answered by this page and those before it. *last* is the last address on the page, ""
    if there is none.
    """

    keys: int
    answered: int
    last: str


Pager = Callable[[int], Page]


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
        asked = ask(ordered, listing.page)
        there.update(compress(listing.found, starmap(space.is_whole, listing.found.items())))
        ordered, between = ordered[asked.answered :], asked.keys_between
    sizes = backend.sizes(list(map(space.key, ordered)))
    whole = list(compress(ordered, map(space.is_whole, ordered, sizes)))
    # Before most manifests nothing is missing; then nothing is looked up.
    if len(there) + len(whole) == distinct and there.isdisjoint(whole):
        return Survey([], between)
    there.update(whole)
    return Survey([address for address in wanted if address not in there], between)


def lengths(backend: Backend, space: Namespace, wanted: Sequence[Address]) -> dict[Address, int | None]:
    """
    Return the length in bytes of what *backend* has under each of *wanted* in *space*, None where there is nothing.

    Asks as `survey` does, and raises as it does.
    """
    ordered = sorted(dict.fromkeys(wanted))
    found: dict[Address, int | None] = dict.fromkeys(ordered)
    if backend.capabilities.pages_listings:
        listing = _Listing(backend, space, ordered)
        ordered = ordered[ask(ordered, listing.page).answered :]
        found.update(listing.found)
    found.update(zip(ordered, backend.sizes(list(map(space.key, ordered))), strict=True))
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
    asked = ask(wanted, held.page)
    return +Requests({LIST: asked.pages, HEAD: len(wanted) - asked.answered})


class Asked(NamedTuple):
    """How many addresses were *answered*, in order, by how many *pages*."""

    answered: int
    pages: int
    keys_between: int | None


def ask(ordered: Sequence[str], page_at: Pager) -> Asked:
    """Ask by pages, each from the first address without an answer, as long as that is cheaper."""
    if len(ordered) < 2:
        return Asked(0, 0, None)
    answered = pages = keys = covered = 0
    while answered < len(ordered):
        begin = _place(ordered[answered])
        page = page_at(answered)
        stuck = page.answered == answered
        pages, keys, answered = pages + 1, keys + page.keys, page.answered
        if answered == len(ordered):
            return Asked(answered, pages, keys)
        span = _place(page.last) - begin if page.last else 0
        covered += span
        left = len(ordered) - answered
        expected = bisect_right(ordered, _place(page.last) + span, lo=answered, key=_place) - answered
        if stuck or (expected < HEADS_FOR_A_LIST and (expected < left or left < 2)):
            break
    whole = _place(ordered[-1]) - _place(ordered[0])
    return Asked(answered, pages, round(keys * whole / covered) if covered else keys)


def _place(address: str) -> int:
    return int(address[:_DIGITS] or "0", 16)


class _Listing:
    """Pages of a backend's listing. *found* collects those of *ordered* that they show, with their lengths in bytes."""

    def __init__(self, backend: Backend, space: Namespace, ordered: Sequence[Address]) -> None:
        self._backend = backend
        self._space = space
        self._ordered = ordered
        self.found: dict[Address, int] = {}

    @cached_property
    def _wanted(self) -> dict[str, Address]:
        # Keys are compared, because parsing the key of every listed object would take longer than all else. Where
        # nothing is listed, as in a new store, they are not even made.
        return dict(zip(map(self._space.key, self._ordered), self._ordered, strict=True))

    def page(self, at: int) -> Page:
        space, ordered = self._space, self._ordered
        keys, sizes = list_page(self._backend, space, ordered, at)
        for key, size in zip(keys, sizes, strict=True):
            if key in self._wanted:
                self.found[self._wanted[key]] = size
        last = next(filter(None, (address_of(key, space.prefix) for key in reversed(keys))), "")
        return page_of(space, ordered, keys, last)


def list_page(
    backend: Backend, space: Namespace, ordered: Sequence[Address], at: int
) -> tuple[list[str], list[int]]:
    """Return the keys and sizes that one page of a listing shows from address *at* of *ordered* up to the last."""
    last_key = space.key(ordered[-1])
    keys: list[str] = []
    sizes: list[int] = []
    # Foreign keys may lie between the start of the listing and the first address that is asked for.
    listed = backend.keys(space.prefix, start_after=space.key(ordered[at])[:-1])
    for key, size, _ in islice(listed, LISTING_KEYS_PER_PAGE):
        if key > last_key:
            break
        keys.append(key)
        sizes.append(size)
    return keys, sizes


def page_of(space: Namespace, ordered: Sequence[Address], keys: Sequence[str], last: str) -> Page:
    """Return what the page with *keys*, as `list_page` returns them, tells. *last* is the last address among them."""
    if len(keys) < LISTING_KEYS_PER_PAGE:
        # The listing ended, or passed the last address that is asked for.
        return Page(len(keys), len(ordered), last)
    return Page(len(keys), bisect_right(ordered, keys[-1], key=space.key), last)


class _Held:
    """The pages of a store that holds exactly *there*."""

    def __init__(self, ordered: Sequence[str], there: Sequence[str]) -> None:
        self._ordered = ordered
        self._there = there

    def page(self, at: int) -> Page:
        ordered, there = self._ordered, self._there
        begin = bisect_left(there, ordered[at])
        end = bisect_right(there, ordered[-1], lo=begin)
        shown = there[begin : min(end, begin + LISTING_KEYS_PER_PAGE)]
        if len(shown) < LISTING_KEYS_PER_PAGE:
            return Page(len(shown), len(ordered), "")
        return Page(len(shown), bisect_right(ordered, shown[-1]), shown[-1])
