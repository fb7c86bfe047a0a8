"""The verbs of a store for many short objects at once. A store that is not faster so leaves every object out."""

from __future__ import annotations

from collections.abc import Sequence

from snapferry.stores.address import Address
from snapferry.stores.streams import Upload


class ShortObjects:
    """
    Many short objects of a store, each of at most `SHORT_BYTES` (`stores.pools.together`).

    *most*: how many may be in flight at once.
    """

    @property
    def many_in_flight(self) -> bool:
        """Whether one thread is enough here: the verbs of this class then keep many objects in flight at once."""
        return False

    def fetch_objects(
        self, addresses: Sequence[Address], size_hints: Sequence[int], most: int = 1
    ) -> list[bytes | None]:
        """
        Return those of the short objects *addresses*, verified, that are best fetched together; None for the others.

        None tells nothing about an object: ask for it by itself. Only objects of at most `SHORT_BYTES` each
        (`stores.pools.together`) are worth it. *most*: how many may be in flight at once.
        """
        return [None] * len(addresses)

    def copy_objects(
        self, source: ShortObjects, addresses: Sequence[Address], size_hints: Sequence[int], most: int = 1
    ) -> dict[Address, int]:
        """
        As `StreamStore.copy_object` for many, see `fetch_objects`: address -> its length in bytes.

        An object that is left out must be copied by itself, which also gives its error. It may be here already.
        """
        return {}

    def stage_objects(
        self, source: ShortObjects, addresses: Sequence[Address], size_hints: Sequence[int], most: int = 1
    ) -> dict[Address, tuple[Upload, int]]:
        """
        As `StreamStore.stage_object` for many, see `fetch_objects`: address -> its upload and its length in bytes.

        An object that is left out must be staged by itself, which also gives its error.
        """
        return {}
