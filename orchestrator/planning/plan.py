"""
The plan: which objects one task copies, and which snapshots are published together.

It is a pure function of the manifests and the batch settings, so any orchestrator can compute any part of it again.
An object that several snapshots name belongs to the first of them, and is in exactly one batch.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from snapferry.stores.address import DIGEST_BYTES, Address, addresses_in

from .batches import Batch

# Addresses that are searched together.
_CHUNK: Final = 4096


class SourceChanged(Exception):
    """The source, or the record of the job, no longer has what the plan was made from; the message names it."""


@dataclass(frozen=True)
class Group:
    """
    Snapshots that are published together.

    *snapshots* are their indexes. *batches* and *positions* are the ranges of the objects that the group brings: those
    that no earlier group names. *named* is how many distinct objects the group's manifests name.
    """

    number: int
    snapshots: tuple[int, ...]
    batches: range
    positions: range
    named: int


class SnapshotPlan(NamedTuple):
    """A snapshot in the plan: its distinct objects, their bytes, and how many of them an earlier snapshot brings."""

    objects: int
    size_bytes: int
    shared: int


class Lines(NamedTuple):
    """
    A line for each object of a plan, in the order of the plan: what a worker needs besides its address and size.

    *text* has all lines, concatenated. *ends* has the end of each in *text*, 8 bytes per entry.
    """

    ends: array[int] | memoryview[int]
    text: bytes | bytearray | memoryview

    def of(self, first: int, end: int) -> tuple[bytes, ...]:
        """Return the lines of the objects from position *first* to before *end*."""
        start = self.ends[first - 1] if first else 0
        ends = [stop - start for stop in self.ends[first:end]]
        text = bytes(self.text[start : start + ends[-1]]) if ends else b""
        return tuple(map(text.__getitem__, map(slice, [0, *ends], ends)))


class Plan:
    """
    The plan of a job: 45 bytes per object, in the order of the batches. `planner.Planner` makes it.

    *groups* are in the order of publishing. *snapshots* has the planned ones by their index. *digests* has those of the
    objects, concatenated. *sizes*, *owners* and *firsts* have 8, 4 and 8 bytes per entry: the objects' advisory sizes,
    the index of the snapshot that brings each object, and the position at which each batch begins. *lines* is None
    where workers need no more than these (`trees.file_planner` makes plans with lines).
    """

    def __init__(
        self,
        groups: list[Group],
        snapshots: dict[int, SnapshotPlan],
        digests: bytes | bytearray | memoryview,
        sizes: array[int] | memoryview[int],
        owners: array[int] | memoryview[int],
        firsts: array[int] | memoryview[int],
        lines: Lines | None = None,
    ) -> None:
        self.groups = groups
        self.snapshots = snapshots
        self.digests = digests
        self.sizes = sizes
        self.owners = owners
        self.firsts = firsts
        self.lines = lines

    @property
    def objects(self) -> int:
        """The number of distinct objects."""
        return len(self.sizes)

    @property
    def size_bytes(self) -> int:
        """The sum of their advisory sizes."""
        return sum(self.sizes)

    @property
    def batches(self) -> int:
        """The number of batches."""
        return len(self.firsts)

    def batch(self, number: int) -> Batch:
        """Return a batch by its number."""
        positions = self.positions_of(number)
        first, end = positions.start, positions.stop
        digests = bytes(self.digests[DIGEST_BYTES * first : DIGEST_BYTES * end])
        lines = self.lines.of(first, end) if self.lines is not None else ()
        return Batch(number, digests, tuple(self.sizes[first:end]), (first,), lines)

    def positions_of(self, number: int) -> range:
        """Return the positions of the objects of a batch."""
        end = self.firsts[number + 1] if number + 1 < self.batches else self.objects
        return range(self.firsts[number], end)

    def address(self, position: int) -> Address:
        """
        Return the address of the object at *position*.

        Raises `SourceChanged` if the plan has no such position: it is from a record that does not belong to the plan.
        """
        if not 0 <= position < self.objects:
            raise SourceChanged(
                f"the record of the job is damaged: it names object number {position + 1:,} of a plan with"
                f" {self.objects:,}"
            )
        return self._addresses(position, position + 1)[0]

    def size(self, position: int) -> int:
        """Return the advisory size in bytes of the object at *position*."""
        return self.sizes[position]

    def owner(self, position: int) -> int:
        """Return the index of the snapshot that brings the object at *position*."""
        return self.owners[position]

    def positions(self, addresses: Collection[str]) -> dict[Address, int]:
        """Return address -> position; addresses that are not in the plan are left out."""
        wanted = frozenset(addresses)
        found: dict[Address, int] = {}
        for first in range(0, self.objects, _CHUNK):
            chunk = self._addresses(first, min(first + _CHUNK, self.objects))
            if not wanted.isdisjoint(chunk):
                found.update((address, first + at) for at, address in enumerate(chunk) if address in wanted)
                if len(found) == len(wanted):
                    break
        return found

    def windows(self, first: int, most: int) -> Iterator[range]:
        """Yield ranges of batch numbers from *first* on: at most *most* in each, and each within one group."""
        for group in self.groups:
            start = max(first, group.batches.start)
            while start < group.batches.stop:
                end = min(start + most, group.batches.stop)
                yield range(start, end)
                start = end

    def _addresses(self, first: int, end: int) -> list[Address]:
        return addresses_in(self.digests[DIGEST_BYTES * first : DIGEST_BYTES * end])


def empty_plan(digests: bytes | bytearray = b"") -> Plan:
    """Return a plan without objects."""
    return Plan([], {}, digests, array("Q"), array("I"), array("Q"))
