"""
The plan: which objects travel together, and which snapshots are published together.

A pure function of the manifests and the batch settings, so any orchestrator can
compute any part of it again. An object that several snapshots name belongs to
the first of them and is in exactly one batch.

*Groups.* Before a manifest is written, the destination is asked for every object
of it. Asking that for each snapshot alone would cost most where snapshots share
most. So neighbours form a group until the objects that they bring are half of
those to be asked for: all these questions together are at most twice as many as
there are objects, and once more for the last group. Where snapshots share
nothing, each is a group of its own.

*Batches.* The objects that a group brings are sorted, so a batch is one
contiguous range of the destination's keys and one ranged listing can answer for it.
Objects too large for any batch come first, each alone: what takes longest begins earliest.
What a batch costs beside its objects is the less the more of them it has; but few
batches cannot be shared among many workers. So batches grow with their group.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from snapferry.stores.address import DIGEST_BYTES, Address, addresses_in, digests_of
from snapferry.stores.bulk.address_set import AddressSet

from .gather import MANY, Brought, Gather, GatherFew, Objects

if TYPE_CHECKING:
    from snapferry.stores.bulk.tables import ObjectTable

# Questions of a group's re-check for each object that it brings.
QUESTIONS_PER_OBJECT: Final = 2

# A group is cut into about so many batches, as long as they have no fewer objects than this.
BATCHES: Final = 64
FEW_OBJECTS: Final = 1000

# The advisory sizes of a plan are at most this in all, so that the 64-bit counters of the ledger cannot overflow.
LARGEST_SUM: Final = 2**62

# So many addresses are looked at together.
_CHUNK: Final = 4096


@dataclass(frozen=True)
class Batch:
    """
    Objects that one task copies: their *digests*, run together, and their advisory *sizes* in bytes.

    *positions* are their places in the plan: the first one's alone where they
    follow each other.
    """

    number: int
    digests: bytes
    sizes: tuple[int, ...]
    positions: tuple[int, ...] = (0,)

    @classmethod
    def of(cls, number: int, objects: Mapping[Address, int], positions: tuple[int, ...]) -> Self:
        """Return the batch of *objects*, address -> advisory size."""
        return cls(number, digests_of(objects), tuple(objects.values()), positions)

    @property
    def objects(self) -> dict[Address, int]:
        """The objects: address -> advisory size in bytes."""
        return dict(zip(addresses_in(self.digests), self.sizes, strict=True))

    @property
    def size_bytes(self) -> int:
        """The sum of the advisory sizes."""
        return sum(self.sizes)


def pack_batches(objects: Objects, *, max_objects: int, max_bytes: int) -> Iterator[Batch]:
    """
    Pack *objects* (address -> advisory size in bytes) into batches, numbered from 0.

    Each has at most *max_objects* objects, fewer where there are few in all, and
    *max_bytes* bytes; an object larger than *max_bytes* travels alone, ahead of
    the others. Every object is in exactly one batch, and places follow the
    order of the batches.
    """
    large = sorted(address for address, size in objects.items() if size > max_bytes)
    ordered = large + sorted(objects.keys() - large)
    sizes = [objects[address] for address in ordered]
    for number, (first, end) in enumerate(_cut(sizes, max_objects, max_bytes)):
        yield Batch.of(number, dict(zip(ordered[first:end], sizes[first:end], strict=True)), (first,))


def _cut(sizes: Sequence[int], max_objects: int, max_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield where each batch begins and ends; those larger than *max_bytes* come first in *sizes*."""
    max_objects = min(max_objects, max(FEW_OBJECTS, len(sizes) // BATCHES))
    if len(sizes) and max(sizes) * max_objects <= max_bytes:
        # Nearly always: bytes never fill a batch.
        for first in range(0, len(sizes), max_objects):
            yield first, min(first + max_objects, len(sizes))
        return
    first = filled = 0
    for at, size in enumerate(sizes):
        if at > first and (at - first == max_objects or filled + size > max_bytes):
            yield first, at
            first, filled = at, 0
        filled += size
    if len(sizes):
        yield first, len(sizes)


def _largest_first(brought: Brought, max_bytes: int) -> Brought:
    """Move those larger than *max_bytes* to the front; both parts stay in order."""
    sizes = brought.sizes
    if not len(sizes) or max(sizes) <= max_bytes:
        return brought
    large = [at for at, size in enumerate(sizes) if size > max_bytes]
    ranges = [(at, at + 1) for at in large]
    ranges += [(one + 1, other) for one, other in pairwise([-1, *large, len(sizes)]) if one + 1 < other]
    digests = b"".join(brought.digests[DIGEST_BYTES * first : DIGEST_BYTES * end] for first, end in ranges)
    moved_sizes, owners = array("Q"), array("I")
    for first, end in ranges:
        moved_sizes.frombytes(sizes[first:end].cast("B"))
        owners.frombytes(brought.owners[first:end].cast("B"))
    return Brought(memoryview(digests), memoryview(moved_sizes), memoryview(owners))


@dataclass(frozen=True)
class Group:
    """
    Snapshots that are published together.

    *snapshots* are their indexes, *batches* and *positions* those of the objects that they bring; *asked* is how
    many objects their manifests name together.
    """

    number: int
    snapshots: tuple[int, ...]
    batches: range
    positions: range
    asked: int


class SnapshotPlan(NamedTuple):
    """A snapshot in the plan: its distinct objects and their bytes, and how many of them an earlier one brings."""

    objects: int
    size_bytes: int
    shared: int


class Plan:
    """
    The plan of a job: 45 bytes an object, in the order of their batches. Made by `Planner`.

    *groups* in the order of publishing; *snapshots* by their index, those that are planned. *digests* are those of
    the objects, run together; *sizes*, *owners* and *firsts* are 8, 4 and 8 bytes an entry: the objects' advisory
    sizes, the snapshots that they are brought for first, and the place where each batch begins.
    """

    def __init__(
        self,
        groups: list[Group],
        snapshots: dict[int, SnapshotPlan],
        digests: bytes | bytearray | memoryview,
        sizes: array[int] | memoryview[int],
        owners: array[int] | memoryview[int],
        firsts: array[int] | memoryview[int],
    ) -> None:
        self.groups = groups
        self.snapshots = snapshots
        self.digests = digests
        self.sizes = sizes
        self.owners = owners
        self.firsts = firsts

    @property
    def objects(self) -> int:
        """How many distinct objects there are."""
        return len(self.sizes)

    @property
    def size_bytes(self) -> int:
        """The sum of their advisory sizes."""
        return sum(self.sizes)

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return len(self.firsts)

    def batch(self, number: int) -> Batch:
        """Return a batch by its number."""
        first = self.firsts[number]
        end = self.firsts[number + 1] if number + 1 < self.batches else self.objects
        digests = bytes(self.digests[DIGEST_BYTES * first : DIGEST_BYTES * end])
        return Batch(number, digests, tuple(self.sizes[first:end]), (first,))

    def address(self, position: int) -> Address:
        """Return the address at a place of the plan."""
        return self._addresses(position, position + 1)[0]

    def size(self, position: int) -> int:
        """Return the advisory size in bytes of the object at a place of the plan."""
        return self.sizes[position]

    def owner(self, position: int) -> int:
        """Return the index of the snapshot that an object is brought for first."""
        return self.owners[position]

    def positions(self, addresses: Collection[str]) -> dict[Address, int]:
        """Return the places of *addresses*; those that are not in the plan are left out."""
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
        """Yield ranges of batches from *first* on: at most *most* in each, and each within one group."""
        for group in self.groups:
            start = max(first, group.batches.start)
            while start < group.batches.stop:
                end = min(start + most, group.batches.stop)
                yield range(start, end)
                start = end

    def _addresses(self, first: int, end: int) -> list[Address]:
        return addresses_in(self.digests[DIGEST_BYTES * first : DIGEST_BYTES * end])


def empty_plan(digests: bytes | bytearray = b"") -> Plan:
    """Return the plan of nothing."""
    return Plan([], {}, digests, array("Q"), array("I"), array("Q"))


def _bound_sum(plan: Plan) -> None:
    """Cut sizes that cannot be true where their sum is beyond `LARGEST_SUM`: only the largest, all to one size."""
    if plan.size_bytes <= LARGEST_SUM:
        return
    largest = LARGEST_SUM // plan.objects
    plan.sizes = array("Q", (min(size, largest) for size in plan.sizes))


class Planner:
    """
    Makes a plan of snapshots that are shown to it one by one, in their order.

    With *only*, no objects but those are planned: the others are taken to be
    there, until the re-check says otherwise.
    """

    def __init__(self, *, max_objects: int, max_bytes: int, only: AddressSet | None = None) -> None:
        self._max_objects = max_objects
        self._max_bytes = max_bytes
        self._gather: Gather = GatherFew(only)
        self._members: list[int] = []
        self._digests = bytearray()
        self._plan = empty_plan(self._digests)

    def add(self, index: int, objects: Objects | ObjectTable) -> None:
        """Add the snapshot with *index*: address -> advisory size in bytes, or the same as a table."""
        few = self._gather
        if isinstance(few, GatherFew) and (
            not isinstance(objects, Mapping) or len(few.seen) + len(objects) > MANY
        ):
            self._gather = few.as_many()
        added = self._gather.add(index, objects)
        self._plan.snapshots[index] = SnapshotPlan(added.objects, added.size_bytes, added.objects - added.new)
        self._members.append(index)
        if self._gather.asked <= QUESTIONS_PER_OBJECT * self._gather.brought:
            self._close()

    @property
    def objects(self) -> int:
        """How many distinct objects are planned so far."""
        return self._plan.objects + self._gather.brought

    def finish(self) -> Plan:
        """Return the plan of all that was added. The planner is of no use afterwards."""
        if self._members:
            self._close()
        self._gather = GatherFew(None)
        _bound_sum(self._plan)
        return self._plan

    def _close(self) -> None:
        plan = self._plan
        assert isinstance(plan.sizes, array)
        assert isinstance(plan.owners, array)
        assert isinstance(plan.firsts, array)
        first_batch, first_place, asked = plan.batches, plan.objects, self._gather.asked
        brought = _largest_first(self._gather.close(), self._max_bytes)
        cuts = _cut(brought.sizes, self._max_objects, self._max_bytes)
        plan.firsts.extend(first_place + first for first, _ in cuts)
        self._digests += brought.digests
        plan.sizes.frombytes(brought.sizes.cast("B"))
        plan.owners.frombytes(brought.owners.cast("B"))
        plan.groups.append(
            Group(
                len(plan.groups),
                tuple(self._members),
                range(first_batch, plan.batches),
                range(first_place, plan.objects),
                asked,
            )
        )
        self._members = []
