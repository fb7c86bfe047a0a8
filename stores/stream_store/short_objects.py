"""The verbs of a store for many short objects at once. A store that gains nothing by them leaves every object out."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence

from snapferry.stores.address import Address
from snapferry.stores.backend import SendsMany
from snapferry.stores.streams import Upload

Staged = Mapping[Address, tuple[Upload, int]]
"""Address -> the upload of an object that is all but visible, and its length in bytes."""


class ShortObjects:
    """
    Many short objects of a store, each of at most `SHORT_BYTES` (`stores.pools.together`).

    Handle an object that is left out by itself, which also gives its error. That it is left out tells nothing about it.

    `fetch_objects` and `stage_objects` take some objects, one after the other. The others take any number, given with
    their advisory sizes, and keep *most* of them in flight at once. Close their iterators if they are not read to
    their end.
    """

    @property
    def sends_many(self) -> SendsMany | None:
        """The backend that keeps many objects in flight from one thread, None where there is none."""
        return None

    def fetch_objects(self, addresses: Sequence[Address], size_hints: Sequence[int]) -> list[bytes | None]:
        """
        Return those of *addresses*, verified, that are best fetched together; None for each that is left out.

        At most `MOST_TOGETHER` objects are worth it.
        """
        return [None] * len(addresses)

    def stage_objects(
        self, source: ShortObjects, addresses: Sequence[Address], size_hints: Sequence[int]
    ) -> dict[Address, tuple[Upload, int]]:
        """As `StreamStore.stage_object`, for those of *addresses* that both stores handle together."""
        return {}

    def fetch_each(
        self, objects: Iterable[tuple[Address, int]], most: int
    ) -> Generator[tuple[Address, bytes]]:
        """Yield *objects*, verified, in any order."""
        yield from ()

    def copy_each(
        self, source: ShortObjects, objects: Iterable[tuple[Address, int]], most: int
    ) -> Generator[tuple[Address, int]]:
        """As `StreamStore.copy_object`: yield the address and the length in bytes of each that was copied."""
        yield from ()

    def stage_each(
        self, source: ShortObjects, objects: Iterable[tuple[Address, int]], most: int
    ) -> Generator[Staged]:
        """As `StreamStore.stage_object`: yield some that were staged at a time."""
        yield from ()
