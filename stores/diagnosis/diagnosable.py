"""What a backend can tell `snapferry doctor` about its store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

from ..backend import Backend
from .findings import Finding


@runtime_checkable
class Diagnosable(Protocol):
    """A backend that knows what can be wrong with its kind of store. Others get a `round_trip` alone."""

    def probe(self, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
        """
        Yield findings about the store before a copy. Write nothing but probes, and delete them.

        With *for_writing*, write a probe where keys of each of *spaces* go. Call it for a store that passed
        `Backend.check`. May be called again, and by several processes at once. Never raises `StoreError`.
        """

    def probe_beside(self, source: Backend, key: str) -> Iterator[Finding]:
        """Yield findings about copying to this store from *source*, which holds *key*. As `probe`; often nothing."""

    def clock(self) -> tuple[float, float] | None:
        """
        Return the earliest and the latest time that the store's clock may show now, in seconds since the epoch.

        None where the store has no clock or does not tell. Never raises `StoreError`.
        """
