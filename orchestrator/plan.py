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
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

# Questions of a group's re-check for each object that it brings.
QUESTIONS_PER_OBJECT = 2

_DIGEST_BYTES = 32


@dataclass(frozen=True)
class Batch:
    """
    Objects that one task copies: address -> advisory size in bytes.

    *positions* are their places in the plan: the first one's alone where they
    follow each other.
    """

    number: int
    objects: Mapping[str, int]
    positions: tuple[int, ...] = (0,)

    @property
    def size_bytes(self) -> int:
        """The sum of the advisory sizes."""
        return sum(self.objects.values())


def pack(objects: Mapping[str, int], *, max_objects: int, max_bytes: int) -> Iterator[Batch]:
    """
    Pack *objects* (address -> advisory size in bytes) into batches, numbered from 0.

    Each has at most *max_objects* objects and *max_bytes* bytes; an object
    larger than *max_bytes* travels alone. Every object is in exactly one batch,
    and places follow the order of the batches.
    """
    number = place = 0
    current: dict[str, int] = {}
    filled = 0
    for address in sorted(objects):
        size = objects[address]
        if size > max_bytes:
            yield Batch(number, {address: size}, (place,))
            number, place = number + 1, place + 1
            continue
        if len(current) == max_objects or filled + size > max_bytes:
            yield Batch(number, current, (place,))
            number, place = number + 1, place + len(current)
            current, filled = {}, 0
        current[address] = size
        filled += size
    if current:
        yield Batch(number, current, (place,))


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


@dataclass(frozen=True)
class SnapshotPlan:
    """A snapshot in the plan: its distinct objects and their bytes, and how many of them an earlier one brings."""

    objects: int
    size_bytes: int
    shared: int


class Plan:
    """
    The plan of a job: 45 bytes an object, in the order of their batches. Made by `Planner`.

    *groups* in the order of publishing; *snapshots* by their index, those that are planned.
    """

    def __init__(self) -> None:
        self.groups: list[Group] = []
        self.snapshots: dict[int, SnapshotPlan] = {}
        self._digests = bytearray()
        self._sizes = array("Q")
        self._owners = array("I")
        self._firsts = array("Q")

    @property
    def objects(self) -> int:
        """How many distinct objects there are."""
        return len(self._sizes)

    @property
    def size_bytes(self) -> int:
        """The sum of their advisory sizes."""
        return sum(self._sizes)

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return len(self._firsts)

    def batch(self, number: int) -> Batch:
        """Return a batch by its number."""
        first = self._firsts[number]
        end = self._firsts[number + 1] if number + 1 < len(self._firsts) else len(self._sizes)
        places = range(first, end)
        return Batch(number, {self.address(at): self._sizes[at] for at in places}, (first,))

    def address(self, position: int) -> str:
        """Return the address at a place of the plan."""
        return self._digests[_DIGEST_BYTES * position : _DIGEST_BYTES * (position + 1)].hex()

    def size(self, position: int) -> int:
        """Return the advisory size in bytes of the object at a place of the plan."""
        return self._sizes[position]

    def owner(self, position: int) -> int:
        """Return the index of the snapshot that an object is brought for first."""
        return self._owners[position]

    def positions(self, addresses: Collection[str]) -> dict[str, int]:
        """Return the places of *addresses*; those that are not in the plan are left out."""
        wanted = {bytes.fromhex(address): address for address in addresses}
        found = {}
        for position in range(self.objects):
            digest = bytes(self._digests[_DIGEST_BYTES * position : _DIGEST_BYTES * (position + 1)])
            if digest in wanted:
                found[wanted.pop(digest)] = position
                if not wanted:
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


class Planner:
    """
    Makes a plan of snapshots that are shown to it one by one, in their order.

    With *only*, no objects but those are planned: the others are taken to be
    there, until the re-check says otherwise.
    """

    def __init__(self, *, max_objects: int, max_bytes: int, only: Collection[str] | None = None) -> None:
        self._max_objects = max_objects
        self._max_bytes = max_bytes
        self._only = only
        self._plan = Plan()
        self._seen: set[str] = set()
        self._members: list[int] = []
        self._asked: set[str] = set()
        self._brought: dict[str, int] = {}
        self._owner: dict[str, int] = {}

    def add(self, index: int, objects: Mapping[str, int]) -> None:
        """Add the snapshot with *index*: address -> advisory size in bytes."""
        new: Iterable[str] = objects.keys() - self._seen
        if self._only is not None:
            new = [address for address in new if address in self._only]
        for address in new:
            self._brought[address] = objects[address]
            self._owner[address] = index
        before = len(self._seen)
        self._seen.update(new)
        shared = len(objects) - (len(self._seen) - before)
        self._plan.snapshots[index] = SnapshotPlan(len(objects), sum(objects.values()), shared)
        self._members.append(index)
        self._asked.update(objects)
        if len(self._asked) <= QUESTIONS_PER_OBJECT * len(self._brought):
            self._close()

    def finish(self) -> Plan:
        """Return the plan of all that was added. The planner is of no use afterwards."""
        if self._members:
            self._close()
        self._seen.clear()
        return self._plan

    def _close(self) -> None:
        plan = self._plan
        first_batch, first_place = plan.batches, plan.objects
        for batch in pack(self._brought, max_objects=self._max_objects, max_bytes=self._max_bytes):
            plan._firsts.append(first_place + batch.positions[0])
            plan._digests += bytes.fromhex("".join(batch.objects))
            plan._sizes.extend(batch.objects.values())
            plan._owners.extend(map(self._owner.__getitem__, batch.objects))
        plan.groups.append(
            Group(
                len(plan.groups),
                tuple(self._members),
                range(first_batch, plan.batches),
                range(first_place, plan.objects),
                len(self._asked),
            )
        )
        self._members, self._asked, self._brought, self._owner = [], set(), {}, {}
