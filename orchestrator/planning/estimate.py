"""
Estimate what a job would do: ask the destination for every object, and count, without writing anything.

The requests are those of a run without retries and duplicate deliveries, driven by one orchestrator, at a destination
that nothing else changes. There are two cases in which the number of requests is only approximate, and the estimate
is marked inexact. First, the destination has objects that no batch of the job has: their positions between those of
the job are estimated. Second, the number depends on the order in which workers take the batches of several groups,
because the objects that one batch copied appear in the listings of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from snapferry.stores.address import Address
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.pools.existence import addresses_of_a_piece
from snapferry.stores.requests import HEAD
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.text.format import counted, size
from snapferry.workers.copying.transfer.budget import cost_of
from snapferry.workers.messages import Budget, JobSpec

from .plan import Group, Plan
from .prepare import PLANNED, TRUSTED, UNREADABLE, Snapshots
from .surplus import refusal, surplus


def estimate_job(
    spec: JobSpec, snapshots: Snapshots, plan: Plan, source: StreamStore, destination: StreamStore
) -> dict[str, Any]:
    """
    Return the estimate of a job, as docs/json.md describes it. Asks the destination for every object.

    Raises `StoreError` where a store does not answer.
    """
    found = _Estimator(snapshots, plan, source, destination)
    found.count_objects()
    found.count_requests()
    estimate = {
        "snapshots": {
            "total": len(snapshots.ids),
            "planned": len(snapshots.of(PLANNED)),
            "trusted": len(snapshots.of(TRUSTED)),
            "unreadable": len(snapshots.of(UNREADABLE)),
        },
        "objects": {"total": plan.objects, "present": plan.objects - found.to_copy, "to_copy": found.to_copy},
        "bytes": {"total": plan.size_bytes, "to_copy": found.bytes_to_copy},
        "batches": plan.batches,
        "groups": len(plan.groups),
        "exact": found.exact,
        **_requests_and_cost(spec, snapshots, source, destination, found),
    }
    estimate["refused"] = over_budget(spec.budget, estimate)
    if spec.prune is not None:
        surplus_ids, source_has = surplus(source, destination)
        estimate["delete"] = surplus_ids
        estimate["delete_refused"] = refusal(spec.prune, len(surplus_ids), source_has)
    return estimate


def estimate_check(
    spec: JobSpec, snapshots: Snapshots, plan: Plan, source: StreamStore, destination: StreamStore
) -> dict[str, Any]:
    """Return the estimate of a job that only reads: what it would read, and what that costs. Asks nothing."""
    accounting = source.accounting
    objects_read: Counter[str] = Counter()
    manifests_read: Counter[str] = Counter()
    for number in range(plan.batches):
        checkpoint()
        for size_bytes in plan.batch(number).sizes:
            objects_read += accounting.to_read_object(size_bytes)
    for _ in snapshots.ids:
        manifests_read += accounting.to_read_manifest()
    budget, store = spec.budget, spec.source
    cost = None
    if budget.prices:
        cost = cost_of(budget.prices, store.url, manifests_read, 0)
        cost += cost_of(budget.prices, store.objects_url or store.url, objects_read, plan.size_bytes)
    estimate = {
        "snapshots": {
            "total": len(snapshots.ids),
            "planned": len(snapshots.of(PLANNED)),
            "trusted": 0,
            "unreadable": len(snapshots.of(UNREADABLE)),
        },
        "objects": {"total": plan.objects, "present": 0, "to_copy": 0, "to_read": plan.objects},
        "bytes": {"total": plan.size_bytes, "to_copy": 0, "to_read": plan.size_bytes},
        "batches": plan.batches,
        "groups": len(plan.groups),
        "exact": not spec.verify.fast,
        "requests": {"source": dict(objects_read + manifests_read), "destination": {}},
        "cost": None if cost is None else round(cost, 6),
        "currency": budget.currency,
    }
    estimate["refused"] = over_budget(budget, estimate)
    return estimate


class _Estimator:
    """
    Simulates a job from its plan, with 64 bytes of memory per object.

    *held* are the addresses that the destination already has, *needed* those that it lacks, and *brought* those of
    the needed ones that the job would have copied by then.
    """

    def __init__(
        self, snapshots: Snapshots, plan: Plan, source: StreamStore, destination: StreamStore
    ) -> None:
        from snapferry.stores.bulk.tables import AddressTable

        self._snapshots = snapshots
        self._plan = plan
        self._source = source
        self._destination = destination
        self._reading, self._writing = source.accounting, destination.accounting
        self._held = AddressTable()
        self._needed = AddressTable()
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
            self._needed.update(found.needed)
            self._count(objects, found.needed)

    def count_requests(self) -> None:
        """
        Count the requests by which the job would ask the destination. To be called after `count_objects`.

        Groups are simulated in order, and all batches of a group at once. If another order may take other requests,
        the estimate is marked inexact.
        """
        # A directory takes no requests. Then no manifest need be read.
        if not self._writing.to_survey(1, 0):
            return
        for group in self._plan.groups:
            unknown_in_group = 0
            for number in group.batches:
                checkpoint()
                wanted = sorted(self._plan.batch(number).objects)
                unknown = self._unknown(wanted, self._between[number])
                unknown_in_group += unknown
                self._ask_for_batch(wanted, unknown)
            for number in group.batches:
                self._bring(sorted(self._plan.batch(number).objects))
            named = self._named(group)
            piece_addresses = addresses_of_a_piece(len(named))
            pieces = max(1, -(-len(named) // piece_addresses))
            for piece in named.chunks(piece_addresses):
                checkpoint()
                self._ask_again(piece, unknown_in_group // pieces)

    def _ask_for_batch(self, wanted: list[Address], unknown: int) -> None:
        """Count for a batch: it finds what earlier groups brought, and maybe none of that, or what others bring."""
        held, brought, needed = self._around(wanted)
        own = set(wanted)
        others = [address for address in needed if address not in own]
        self._ask(wanted, unknown, _merged(held, brought), (held, _merged(held, others)))

    def _ask_again(self, wanted: list[Address], unknown: int) -> None:
        """Count for a group's re-check: it finds what its own and earlier groups brought, and maybe later ones."""
        held, brought, needed = self._around(wanted)
        there = _merged(held, brought)
        self._ask(wanted, unknown, there, (there, _merged(held, needed)))

    def _around(self, wanted: list[Address]) -> tuple[list[Address], list[Address], list[Address]]:
        first, last = wanted[0], wanted[-1]
        tables = self._held, self._brought, self._needed
        held, brought, needed = (table.between(first, last) for table in tables)
        return held, brought, needed

    def _ask(
        self,
        wanted: list[Address],
        unknown: int,
        there: list[Address],
        extremes: tuple[list[Address], list[Address]],
    ) -> None:
        """
        Count the requests to ask for the *wanted* addresses, where those in *there* exist, and *unknown* other keys.

        More keys take more pages. So if the fewest and the most keys that can exist, the *extremes*, take equally many
        pages, any number between them does as well. Requests for single objects follow no such rule.
        """
        if unknown:
            self.exact = False
            self.asked += self._writing.to_survey(len(wanted), len(there) + unknown)
            return
        self.asked += self._writing.to_survey_among(wanted, there)
        if self.exact and len(self._plan.groups) > 1:
            fewest, most = (self._writing.to_survey_among(wanted, each) for each in extremes)
            self.exact = most == fewest and not (most[HEAD] and len(wanted) > 1)

    def _bring(self, wanted: list[Address]) -> None:
        held = set(self._held.between(wanted[0], wanted[-1]))
        self._brought.update([address for address in wanted if address not in held])

    def _count(self, objects: Mapping[Address, int], needed: list[Address]) -> None:
        self.to_copy += len(needed)
        for address in needed:
            self.read += self._reading.to_read_object(objects[address])
            self.written += self._writing.to_write_object(objects[address])
            self.bytes_to_copy += objects[address]

    def _unknown(self, ordered: list[Address], between: int | None) -> int:
        """Return how many keys that no batch of the job has a listing returned between *ordered* addresses."""
        if between is None:
            return 0
        return max(0, between - self._held.count_between(ordered[0], ordered[-1]))

    def _named(self, group: Group) -> AddressSet:
        """Return all addresses that the manifests of *group* name."""
        named = AddressSet()
        if group.named == len(group.positions):
            for number in group.batches:
                named.update(self._plan.batch(number).objects)
            return named
        for index in group.snapshots:
            with self._source.read_manifest(self._snapshots.ids[index]) as manifest:
                manifest.add_addresses(named)
        return named


def _merged(one: list[Address], other: list[Address]) -> list[Address]:
    """Return two sorted lists without common elements as one sorted list."""
    return sorted([*one, *other]) if one and other else one or other


def _requests_and_cost(
    spec: JobSpec,
    snapshots: Snapshots,
    source: StreamStore,
    destination: StreamStore,
    found: _Estimator,
) -> dict[str, Any]:
    planned = [snapshots.ids[index] for index in snapshots.of(PLANNED)]
    there = destination.manifests_present(planned)
    manifests_read: Counter[str] = Counter()
    manifests_written: Counter[str] = Counter()
    for snapshot_id in planned:
        # A manifest is read for the plan, for the re-check of its objects, and to be written.
        for _ in range(2 if snapshot_id in there else 3):
            manifests_read += source.accounting.to_read_manifest()
        manifests_written += destination.accounting.to_publish(0, already=snapshot_id in there)
    objects_read, objects_written = found.read, found.asked + found.written
    budget = spec.budget
    cost = None
    if budget.prices:
        sender, taker = spec.source, spec.destination
        cost = cost_of(budget.prices, sender.url, manifests_read, 0)
        cost += cost_of(budget.prices, sender.objects_url or sender.url, objects_read, found.bytes_to_copy)
        cost += cost_of(budget.prices, taker.url, manifests_written, 0)
        cost += cost_of(budget.prices, taker.objects_url or taker.url, objects_written, 0)
    return {
        "requests": {
            "source": dict(objects_read + manifests_read),
            "destination": dict(objects_written + manifests_written),
        },
        "cost": None if cost is None else round(cost, 6),
        "currency": budget.currency,
    }


def over_budget(budget: Budget, found: dict[str, Any]) -> str:
    """Return by what an estimate exceeds the budget, in words, "" if it does not."""
    objects, size_bytes = found["objects"]["to_copy"], found["bytes"]["to_copy"]
    over = []
    if budget.max_objects is not None and objects > budget.max_objects:
        over.append(f"{counted(objects, 'object')} to copy, more than --max-objects {budget.max_objects:,}")
    if budget.max_bytes is not None and size_bytes > budget.max_bytes:
        over.append(f"{size(size_bytes)} to copy, more than --max-bytes {budget.max_bytes:,}")
    if budget.max_cost is not None and (found["cost"] or 0.0) > budget.max_cost:
        over.append(f"{found['cost']:.4f} {budget.currency}, more than --max-cost {budget.max_cost:g}")
    return f"over budget: {'; '.join(over)}" if over else ""
