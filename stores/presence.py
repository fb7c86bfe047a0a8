"""
Which of many things a store holds, for few requests.

Where a store pages its listings, one ranged LIST answers a thousand questions;
where strangers fill its pages it is given up, and what it did not get to is
asked one by one. `requests_to_ask` says what that costs, by the same rules.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from .address import EMPTY_ADDRESS, MANIFESTS, OBJECTS, address_of, manifest_key, object_key
from .base import Backend
from .requests import HEAD, LIST, Requests

# A listing answers 1,000 existence questions a request. Where strangers fill its pages, it is given up
# after this share of the requests that asking one by one would cost.
LISTING_KEYS_PER_PAGE = 1000
LISTING_MAX_SHARE = 0.02


class Survey(NamedTuple):
    """
    What a store was found to lack.

    *needed* are the addresses that are absent, in the order in which they were
    asked for. *keys_between* is how many keys of the store lie from the first
    to the last of those asked for, in byte order; None where no listing told.
    """

    needed: list[str]
    keys_between: int | None


class Namespace(NamedTuple):
    """One of the two kinds of things in a store: where they are filed, and what length makes one whole."""

    prefix: str
    key: Callable[[str], str]
    is_whole: Callable[[str, int | None], bool]


def _is_whole_object(address: str, size: int | None) -> bool:
    return size is not None and (size > 0 or address == EMPTY_ADDRESS)


def _is_whole_manifest(snapshot_id: str, size: int | None) -> bool:
    return bool(size)


OBJECT_SPACE: Final = Namespace(OBJECTS, object_key, _is_whole_object)
MANIFEST_SPACE: Final = Namespace(MANIFESTS, manifest_key, _is_whole_manifest)


def survey(backend: Backend, space: Namespace, wanted: Sequence[str]) -> Survey:
    """
    Ask *backend* which of *wanted* it lacks in *space*; each must have passed `parse_address`.

    Nothing is asked twice. Raises what the backend raises: no answer is not "absent".
    """
    unasked = sorted(set(wanted))
    present: set[str] = set()
    between: int | None = None
    pages = _pages_worth_listing(len(unasked))
    if backend.capabilities.pages_listings and pages:
        present, unasked, between = _listed(backend, space, unasked, pages)
    sizes = backend.sizes([space.key(address) for address in unasked])
    present.update(
        address for address, size in zip(unasked, sizes, strict=True) if space.is_whole(address, size)
    )
    return Survey([address for address in wanted if address not in present], between)


def requests_to_ask(wanted: int, keys_between: int) -> Requests:
    """
    Return what `survey` sends for *wanted* distinct addresses to a store that pages its listings.

    *keys_between* as in `Survey`. Exact as long as the listing gets through, but
    for one page less where *keys_between* is a multiple of 1,000 and the store
    holds nothing behind them. Where the listing is given up, what is left to ask
    singly is what addresses that are spread evenly leave.
    """
    pages = _pages_worth_listing(wanted)
    if not pages:
        return +Requests({HEAD: wanted})
    listed = pages * LISTING_KEYS_PER_PAGE
    left = math.ceil(wanted * (1 - listed / keys_between)) if keys_between > listed else 0
    return +Requests({LIST: min(pages, 1 + keys_between // LISTING_KEYS_PER_PAGE), HEAD: left})


def requests_to_ask_among(wanted: Sequence[str], there: Sequence[str]) -> Requests:
    """
    Return what `survey` sends for *wanted* to a store that pages its listings and holds just what is *there*.

    Both are sorted, without duplicates. Exact.
    """
    pages = _pages_worth_listing(len(wanted))
    if not pages:
        return +Requests({HEAD: len(wanted)})
    first, end = bisect_left(there, wanted[0]), bisect_right(there, wanted[-1])
    listed = pages * LISTING_KEYS_PER_PAGE
    left = len(wanted) - bisect_right(wanted, there[first + listed - 1]) if end - first >= listed else 0
    # The first key behind the last one wanted ends the listing, and so does the end of the store.
    seen = end - first + (end < len(there))
    return +Requests({LIST: min(pages, max(1, math.ceil(seen / LISTING_KEYS_PER_PAGE))), HEAD: left})


def _pages_worth_listing(count: int) -> int:
    """Return how many pages may be asked for to find *count* keys; 0 where single questions cost no more."""
    pages = 1 + int(count * LISTING_MAX_SHARE)
    return pages if count > pages else 0


def _listed(
    backend: Backend, space: Namespace, ordered: list[str], pages: int
) -> tuple[set[str], list[str], int | None]:
    """Return which of *ordered* a ranged listing shows, those that it did not get to, and the keys between."""
    last_key = space.key(ordered[-1])
    unanswered = set(ordered)
    present: set[str] = set()
    between = 0
    for found in backend.keys(space.prefix, start_after=space.key(ordered[0])[:-1]):
        if found.key > last_key:
            break
        between += 1
        address = address_of(found.key, space.prefix)
        if address in unanswered and space.is_whole(address, found.size):
            present.add(address)
        if between == pages * LISTING_KEYS_PER_PAGE:
            beyond = [address for address in ordered if space.key(address) > found.key]
            return present, beyond, None if beyond else between
    return present, [], between
