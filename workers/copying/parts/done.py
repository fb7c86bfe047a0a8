"""The parts of an object that are done, by this process or by others, as far as their records prove it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from snapferry.stores.errors import PartsGone
from snapferry.stores.pools.in_parts import DonePart, PartsCopy
from snapferry.workers.ledger import Ledger, PartsOf

from .claims import of_owner

# The most records of each part that are read. If there are more, some program floods the list.
_MOST_EACH: Final = 4
_MOST_MORE: Final = 1000


class DoneParts:
    """
    The *parts* of *copy* that are done. *on_bytes* is called once for each, with its length.

    A record that no process with access to the destination has signed is ignored. Of several records of a part, the
    last one counts.
    """

    def __init__(
        self, copy: PartsCopy, ledger: Ledger, of: PartsOf, on_bytes: Callable[[int], None] | None
    ) -> None:
        self.parts: dict[int, DonePart] = {}
        self._copy = copy
        self._ledger = ledger
        self._of = of
        self._on_bytes = on_bytes
        self._counted: set[int] = set()
        self._read = 0
        self._read_in_all = 0

    @property
    def missing(self) -> set[int]:
        """The parts that are not done."""
        return set(range(self._copy.shape.parts)) - self.parts.keys()

    def read(self) -> None:
        """Read what is new. Raises `RedisError`, and `PartsGone` if there is far too much."""
        while True:
            length, records = self._ledger.finished_parts(self._of, self._read)
            if length < self._read:
                # The list was lost and begun anew.
                self._read = 0
                continue
            if not records:
                return
            self._read += len(records)
            self._read_in_all += len(records)
            if self._read_in_all > _MOST_EACH * self._copy.shape.parts + _MOST_MORE:
                raise PartsGone("", self._copy.address, "a program floods the list of its parts")
            for record in records:
                if (done := self._copy.part_in(record)) is not None:
                    self.parts[done.part] = done

    def keep(self) -> None:
        """Keep only parts that the destination still has. Raises `StoreError`."""
        kept = self._copy.kept(self.parts)
        self.parts = {part: done for part, done in self.parts.items() if part in kept}

    def count(self) -> None:
        """Call *on_bytes* for each part that is done and was not counted yet. Raises what that raises."""
        for part in sorted(self.parts.keys() - self._counted):
            self._counted.add(part)
            if self._on_bytes is not None:
                start, stop = self._copy.shape.range_of(part)
                self._on_bytes(stop - start)

    def settled(self) -> Mapping[int, DonePart]:
        """Read again, and return all parts that are done."""
        of_owner(self.read)
        return self.parts
