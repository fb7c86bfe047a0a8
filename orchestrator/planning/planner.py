"""
Make a plan from the manifests of a job's snapshots.

*Groups.* Before a manifest is written, the re-check asks the destination for each of its objects. A re-check of each
snapshot alone would ask for shared objects again and again. So consecutive snapshots form a group until the objects
that they bring are half of the objects that they name. Then all groups together ask at most twice per object, plus once
more for the last group. A snapshot that shares nothing is a group of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from snapferry.stores.bulk.address_set import AddressSet
from snapferry.workers.messages import GROUP_BATCHES

from .batches import cut, largest_first
from .gather import Gatherer, Objects
from .gather_sets import SetGatherer
from .plan import Group, Plan, SnapshotPlan, empty_plan

if TYPE_CHECKING:
    # It imports NumPy, which takes longer than to plan a small job.
    from snapferry.stores.bulk.tables import ObjectTable

# The most questions of a group's re-check for each object that the group brings.
QUESTIONS_PER_OBJECT: Final = 2

# A planner that has seen this many objects continues with tables: smaller, and faster, the import of NumPy included.
MANY: Final = 50_000

# The largest sum of the advisory sizes of a plan: the 64-bit counters of the ledger cannot overflow.
LARGEST_SUM: Final = 2**62


class Planner:
    """
    Makes a plan of snapshots that are added one by one, in their order.

    *batches* and *evenly* are those of `batches.cut`. With *only*, no other objects are planned. The others count as
    present, until the re-check finds them absent. With *by_address*, all snapshots are one group, and its batches are
    strictly in the order of addresses.
    """

    def __init__(
        self,
        *,
        max_objects: int,
        max_bytes: int,
        batches: int = GROUP_BATCHES,
        evenly: bool = False,
        only: AddressSet | None = None,
        by_address: bool = False,
    ) -> None:
        self._max_objects = max_objects
        self._batches = batches
        self._evenly = evenly
        self._max_bytes = max_bytes
        self._by_address = by_address
        self._gatherer: Gatherer = SetGatherer(only)
        self._members: list[int] = []
        # The sum of the plan's sizes.
        self._size_bytes = 0
        self._digests = bytearray()
        self._plan = empty_plan(self._digests)

    def add(self, index: int, objects: Objects | ObjectTable) -> None:
        """Add the snapshot with *index*: its objects, as address -> advisory size in bytes or as a table."""
        few = self._gatherer
        if isinstance(few, SetGatherer) and (
            not isinstance(objects, Mapping) or len(few.seen) + len(objects) > MANY
        ):
            # NumPy takes longer to import than a small job to plan.
            from .gather_numpy import TableGatherer

            self._gatherer = TableGatherer.continuing(few)
        added = self._gatherer.add(index, objects)
        self._plan.snapshots[index] = SnapshotPlan(added.objects, added.size_bytes, added.objects - added.new)
        self._members.append(index)
        if not self._by_address and self._gatherer.named <= QUESTIONS_PER_OBJECT * self._gatherer.brought:
            self._close()

    @property
    def closed(self) -> bool:
        """Whether every snapshot that was added is in a group. Later snapshots change nothing of these groups."""
        return not self._members

    @property
    def plan(self) -> Plan:
        """The plan of the groups so far. It grows with each group."""
        return self._plan

    @property
    def objects(self) -> int:
        """The number of distinct objects planned so far."""
        return self._plan.objects + self._gatherer.brought

    def finish(self) -> Plan:
        """Return the plan of all snapshots that were added. To be called once, as the last method."""
        if self._members:
            self._close()
        self._gatherer = SetGatherer(None)
        return self._plan

    def _close(self) -> None:
        plan = self._plan
        assert isinstance(plan.sizes, array)
        assert isinstance(plan.owners, array)
        assert isinstance(plan.firsts, array)
        first_batch, first_position, named = plan.batches, plan.objects, self._gatherer.named
        objects = self._gatherer.close()
        if not self._by_address:
            objects = largest_first(objects, self._max_bytes)
        cuts = cut(objects.sizes, self._max_objects, self._max_bytes, self._batches, evenly=self._evenly)
        plan.firsts.extend(first_position + first for first, _ in cuts)
        self._digests += objects.digests
        sizes = bounded(objects.sizes, LARGEST_SUM - self._size_bytes)
        self._size_bytes += sum(sizes)
        plan.sizes.frombytes(memoryview(sizes).cast("B"))
        plan.owners.frombytes(objects.owners.cast("B"))
        plan.groups.append(
            Group(
                len(plan.groups),
                tuple(self._members),
                range(first_batch, plan.batches),
                range(first_position, plan.objects),
                named,
            )
        )
        self._members = []


def bounded(sizes: array[int] | memoryview[int], most: int) -> array[int] | memoryview[int]:
    """Return *sizes* with the largest cut to one size if their sum is above *most*: they cannot be true."""
    if sum(sizes) <= most:
        return sizes
    largest = most // len(sizes)
    return array("Q", (min(size, largest) for size in sizes))
