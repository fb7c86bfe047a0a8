"""
Estimate what a copy would do: ask the destination for every object, and count, without writing anything.

The requests are those of a run without retries and duplicate deliveries, driven by one orchestrator, at a destination
that nothing else changes. There are three cases in which the number of requests is only approximate, and the estimate
is marked inexact. First, the destination has objects that no batch of the job has: their positions between those of
the job are estimated. Second, the job has several groups: the objects that one batch copied appear in the listings of
another, and groups that are complete at the same time are checked together, by fewer requests. Third, an object is
copied in parts or by the server: see `objects`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from snapferry.orchestrator.planning.plan import Group, Plan
from snapferry.orchestrator.planning.snapshots import PLANNED, Snapshots
from snapferry.orchestrator.planning.surplus import refusal, surplus
from snapferry.stores.address import Address
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.manifest.known_lines import NamedObjects
from snapferry.stores.pools.existence import addresses_of_a_piece
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.messages import JobSpec

from .figures import Traffic, estimate_of
from .objects import ObjectRequests


def estimate_job(
    spec: JobSpec, snapshots: Snapshots, plan: Plan, source: StreamStore, destination: StreamStore
) -> dict[str, Any]:
    """
    Return the estimate of a job, as docs/json.md describes it. Asks the destination for every object.

    Raises `StoreError` where a store does not answer.
    """
    copies = ObjectRequests(spec, source, destination)
    found = _Estimator(snapshots, plan, source, destination, copies)
    found.count_objects()
    found.count_requests()
    read, written = _manifests(snapshots, source, destination)
    estimate = estimate_of(
        spec,
        snapshots,
        plan,
        objects={"present": plan.objects - found.to_copy, "to_copy": found.to_copy},
        size_bytes={"to_copy": found.bytes_to_copy},
        exact=found.exact and copies.exact,
        source=Traffic(found.read, read, found.bytes_to_copy),
        destination=Traffic(found.asked + found.written, written),
    )
    if spec.prune is not None:
        surplus_ids, source_has = surplus(source, destination)
        estimate["delete"] = surplus_ids
        estimate["delete_refused"] = refusal(spec.prune, len(surplus_ids), source_has)
    return estimate


class _Estimator:
    """
    Simulates a job from its plan, with 64 bytes of memory per object.

    *held* are the addresses that the destination already has, and *brought* those that the job would have copied by
    then.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        plan: Plan,
        source: StreamStore,
        destination: StreamStore,
        copies: ObjectRequests,
    ) -> None:
        # It imports NumPy, which every orchestrator and every command without a broker would import otherwise.
        from snapferry.stores.bulk.tables import AddressTable

        self._snapshots = snapshots
        self._plan = plan
        self._source = source
        self._destination = destination
        self._writing = destination.accounting
        self._copies = copies
        self._held = AddressTable()
        self._brought = AddressTable()
        # For each batch, how many keys a listing returned from its first address to its last; None without a listing.
        self._between: list[int | None] = []
        self.exact = True
        self.to_copy = self.bytes_to_copy = 0
        self.asked: Counter[str] = Counter()
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def count_objects(self) -> None:
        """Ask the destination for the objects of every batch."""
        for number in range(self._plan.batches):
            checkpoint()
            objects = self._plan.batch(number).objects
            found = self._destination.survey(objects)
            absent = set(found.needed)
            self._between.append(found.keys_between)
            self._held.update([address for address in objects if address not in absent])
            self._count(objects, found.needed)

    def count_requests(self) -> None:
        """
        Count the requests by which the job would ask the destination. To be called after `count_objects`.

        Groups are simulated in order, and all batches of a group at once.
        """
        # A directory takes no requests. Then no manifest need be read.
        if not self._writing.to_survey(1, 0):
            return
        if len(self._plan.groups) > 1:
            self.exact = False
        for group in self._plan.groups:
            unknown_in_group = 0
            for number in group.batches:
                checkpoint()
                wanted = sorted(self._plan.batch(number).objects)
                unknown = self._unknown(wanted, self._between[number])
                unknown_in_group += unknown
                self._ask(wanted, unknown)
            for number in group.batches:
                self._bring(sorted(self._plan.batch(number).objects))
            named = self._named(group)
            piece_addresses = addresses_of_a_piece(len(named))
            pieces = max(1, -(-len(named) // piece_addresses))
            for piece in named.chunks(piece_addresses):
                checkpoint()
                self._ask(piece, unknown_in_group // pieces)

    def _ask(self, wanted: list[Address], unknown: int) -> None:
        """Count the requests to ask for the *wanted* addresses, between which there are *unknown* other keys."""
        held, brought = (table.between(wanted[0], wanted[-1]) for table in (self._held, self._brought))
        there = _merged(held, brought)
        if unknown:
            self.exact = False
            self.asked += self._writing.to_survey(len(wanted), len(there) + unknown)
        else:
            self.asked += self._writing.to_survey_among(wanted, there)

    def _bring(self, wanted: list[Address]) -> None:
        held = set(self._held.between(wanted[0], wanted[-1]))
        self._brought.update([address for address in wanted if address not in held])

    def _count(self, objects: Mapping[Address, int], needed: list[Address]) -> None:
        self.to_copy += len(needed)
        for address in needed:
            read, written = self._copies.of(objects[address])
            self.read += read
            self.written += written
            self.bytes_to_copy += objects[address]

    def _unknown(self, ordered: list[Address], between: int | None) -> int:
        """Return how many keys that no batch of the job has a listing returned between *ordered* addresses."""
        if between is None:
            return 0
        return max(0, between - self._held.count_between(ordered[0], ordered[-1]))

    def _named(self, group: Group) -> AddressSet:
        """Return all addresses that the manifests of *group* name."""
        named = NamedObjects()
        if group.named == len(group.positions):
            for number in group.batches:
                named.addresses.update(self._plan.batch(number).objects)
            return named.addresses
        for index in group.snapshots:
            with self._source.read_manifest(self._snapshots.ids[index]) as manifest:
                named.add(manifest)
        return named.addresses


def _merged(one: list[Address], other: list[Address]) -> list[Address]:
    """Return two sorted lists without common elements as one sorted list."""
    return sorted([*one, *other]) if one and other else one or other


def _manifests(
    snapshots: Snapshots, source: StreamStore, destination: StreamStore
) -> tuple[Counter[str], Counter[str]]:
    """Return the requests for the manifests, at the source and at the destination."""
    planned = [snapshots.ids[index] for index in snapshots.of(PLANNED)]
    there = destination.manifests_present(planned)
    read: Counter[str] = Counter()
    written: Counter[str] = Counter()
    for snapshot_id in planned:
        # A manifest is read for the plan, for the re-check of its objects, and to be written.
        for _ in range(2 if snapshot_id in there else 3):
            read += source.accounting.to_read_manifest()
        written += destination.accounting.to_publish(0, already=snapshot_id in there)
    return read, written
