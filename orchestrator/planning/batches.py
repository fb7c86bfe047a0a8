"""
Batches: the objects that one task copies.

The objects that a group brings are sorted, so a batch is one contiguous range of the destination's keys, and one
ranged listing can answer for it. Objects too large for any batch come first, each alone, because they take
longest. Larger batches cost less per object, but a few batches cannot be shared among many workers. So the size of
batches grows with that of their group.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Self

from snapferry.stores.address import DIGEST_BYTES, Address, addresses_in, digests_of
from snapferry.workers.messages import GROUP_BATCHES

from .gather import GroupObjects, Objects

# A group is cut into about `JobSpec.group_batches` batches, as long as each has at least so many objects.
FEW_OBJECTS: Final = 1000


@dataclass(frozen=True)
class Batch:
    """
    The objects that one task copies: their *digests*, concatenated, and their advisory *sizes* in bytes.

    *positions* are their positions in the plan: only the first one where they are consecutive. *lines* has a line for
    each object, see `plan.Lines`, or is empty.
    """

    number: int
    digests: bytes
    sizes: tuple[int, ...]
    positions: tuple[int, ...] = (0,)
    lines: tuple[bytes, ...] = ()

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

    Each batch has at most *max_objects* objects, fewer if there are few in all, and *max_bytes* bytes. An object larger
    than *max_bytes* gets a batch of its own, before the others. Every object is in exactly one batch, and positions
    follow the order of the batches.
    """
    large = sorted(address for address, size in objects.items() if size > max_bytes)
    ordered = large + sorted(objects.keys() - large)
    sizes = [objects[address] for address in ordered]
    for number, (first, end) in enumerate(cut(sizes, max_objects, max_bytes)):
        yield Batch.of(number, dict(zip(ordered[first:end], sizes[first:end], strict=True)), (first,))


def cut(
    sizes: Sequence[int],
    max_objects: int,
    max_bytes: int,
    batches: int = GROUP_BATCHES,
    *,
    evenly: bool = False,
) -> Iterator[tuple[int, int]]:
    """
    Yield the begin and end of each batch in *sizes*. A size larger than *max_bytes* is a batch of its own.

    Batches have fewer than *max_objects* objects where there would be fewer than *batches* of them, but not less than
    `FEW_OBJECTS`. *evenly*: the last one is not much smaller than the others, unless there are very many of them, or
    for *max_bytes*.
    """
    if evenly:
        most = min(max_objects, max(FEW_OBJECTS, -(-len(sizes) // batches)))
        max_objects = -(-len(sizes) // max(1, -(-len(sizes) // most)))
    else:
        max_objects = min(max_objects, max(FEW_OBJECTS, len(sizes) // batches))
    if len(sizes) and max(sizes) * max_objects <= max_bytes:
        # The usual case: no batch reaches the limit of bytes.
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


def largest_first(objects: GroupObjects, max_bytes: int) -> GroupObjects:
    """Return *objects* with those larger than *max_bytes* at the front; both parts stay in order."""
    sizes = objects.sizes
    if not len(sizes) or max(sizes) <= max_bytes:
        return objects
    large = [at for at, size in enumerate(sizes) if size > max_bytes]
    ranges = [(at, at + 1) for at in large]
    ranges += [(one + 1, other) for one, other in pairwise([-1, *large, len(sizes)]) if one + 1 < other]
    digests = b"".join(objects.digests[DIGEST_BYTES * first : DIGEST_BYTES * end] for first, end in ranges)
    moved_sizes, owners = array("Q"), array("I")
    for first, end in ranges:
        moved_sizes.frombytes(sizes[first:end].cast("B"))
        owners.frombytes(objects.owners[first:end].cast("B"))
    return GroupObjects(memoryview(digests), memoryview(moved_sizes), memoryview(owners))
