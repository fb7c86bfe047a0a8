"""
What a job would do: asked of the destination, and counted, without writing anything.

The requests are those of a run in which nothing is retried or delivered twice,
one orchestrator drives the job, and nobody else changes the destination. An
estimate is called inexact where its requests are about as many: where the
destination holds objects that the job does not know, for how they lie between
its own is estimated; and where it depends on the order in which the workers
come to the batches of several groups, for what one of them has copied lies in
the listings of another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from stores.address_set import AddressSet
from stores.requests import HEAD, Requests
from stores.snapshot_store import PIECE_ADDRESSES, SnapshotStore
from workers.describe import size
from workers.messages import Budget, JobRequest, Price

from .plan import Group, Plan
from .prepare import PLANNED, TRUSTED, UNREADABLE, Snapshots
from .prune import refusal, surplus


def survey(
    request: JobRequest, snapshots: Snapshots, plan: Plan, source: SnapshotStore, destination: SnapshotStore
) -> dict[str, Any]:
    """
    Return the estimate of a job, as docs/json.md describes it. Asks the destination for every object.

    Raises `StoreError` where a store gives no answer.
    """
    found = _Survey(snapshots, plan, source, destination)
    for group in plan.groups:
        found.add(group)
    found.compare_orders()
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
        **_requests_and_cost(request, snapshots, source, destination, found),
    }
    estimate["refused"] = over_budget(request.budget, estimate)
    if request.prune is not None:
        doomed, source_has = surplus(source, destination)
        estimate["delete"] = doomed
        estimate["delete_refused"] = refusal(request.prune, len(doomed), source_has)
    return estimate


class _Survey:
    """
    Goes through a plan as the job would, in 64 bytes for each of its objects.

    *there* are the addresses that the job would know to be at the destination by then, *held* those that it
    holds already.
    """

    def __init__(
        self, snapshots: Snapshots, plan: Plan, source: SnapshotStore, destination: SnapshotStore
    ) -> None:
        from stores.tables import AddressTable

        self._snapshots = snapshots
        self._plan = plan
        self._source = source
        self._destination = destination
        self._there = AddressTable()
        self._held = AddressTable()
        self.exact = True
        self.to_copy = self.bytes_to_copy = 0
        self.asked: Counter[str] = Counter()
        self._asked_again: list[Requests] = []
        self.read: Counter[str] = Counter()
        self.written: Counter[str] = Counter()

    def add(self, group: Group) -> None:
        """Go through the batches of *group* and its publishing."""
        needed = AddressSet()
        between = []
        for number in group.batches:
            objects = self._plan.batch(number).objects
            found = self._destination.survey(objects)
            between.append(found.keys_between)
            absent = set(found.needed)
            present = [address for address in objects if address not in absent]
            self._held.update(present)
            self._there.update(present)
            needed.update(found.needed)
            self._count(objects, found.needed)
        strangers = 0
        for number, keys in zip(group.batches, between, strict=True):
            ordered = sorted(self._plan.batch(number).objects)
            unknown = self._strangers(ordered, keys)
            strangers += unknown
            self._ask(ordered, unknown)
        for piece in needed.chunks(PIECE_ADDRESSES):
            self._there.update(piece)
        named = self._named(group)
        pieces = max(1, -(-len(named) // PIECE_ADDRESSES))
        for piece in named.chunks(PIECE_ADDRESSES):
            self._asked_again.append(self._ask(piece, strangers // pieces))

    def compare_orders(self) -> None:
        """
        Call the estimate inexact if the order of the groups' batches matters. Called when all groups are added.

        The more keys there are the more pages they take, so where the fewest and the most that a question can
        meet are answered by as many pages, any number between them is. Single questions follow no such rule.
        """
        # Where questions cost no requests, as at a directory, there is nothing to compare.
        if not (self.exact and self.asked) or len(self._plan.groups) == 1:
            return
        again = iter(self._asked_again)
        for group in self._plan.groups:
            for number in group.batches:
                wanted = sorted(self._plan.batch(number).objects)
                held = self._held.between(wanted[0], wanted[-1])
                own = set(wanted).difference(held)
                there = self._there.between(wanted[0], wanted[-1])
                fewest = self._destination.requests_to_ask_among(wanted, held)
                self._compare(wanted, fewest, [address for address in there if address not in own])
            for piece in self._named(group).chunks(PIECE_ADDRESSES):
                self._compare(piece, next(again), self._there.between(piece[0], piece[-1]))

    def _compare(self, wanted: list[str], fewest: Requests, there: list[str]) -> None:
        most = self._destination.requests_to_ask_among(wanted, there)
        if most != fewest or (most[HEAD] and len(wanted) > 1):
            self.exact = False

    def _count(self, objects: Mapping[str, int], needed: list[str]) -> None:
        self.to_copy += len(needed)
        for address in needed:
            read, written = self._destination.requests_to_copy(self._source, objects[address])
            self.read += read
            self.written += written
            self.bytes_to_copy += objects[address]

    def _strangers(self, ordered: list[str], between: int | None) -> int:
        """Return how many keys a listing showed between *ordered* addresses that the job does not know."""
        if between is None:
            return 0
        return max(0, between - self._held.count_between(ordered[0], ordered[-1]))

    def _ask(self, wanted: list[str], strangers: int) -> Requests:
        if not strangers:
            there = self._there.between(wanted[0], wanted[-1])
            requests = self._destination.requests_to_ask_among(wanted, there)
        else:
            self.exact = False
            known = self._there.count_between(wanted[0], wanted[-1])
            requests = self._destination.requests_to_ask(len(wanted), known + strangers)
        self.asked += requests
        return requests

    def _named(self, group: Group) -> AddressSet:
        """Return every address that the manifests of *group* name."""
        named = AddressSet()
        if group.asked == len(group.positions):
            for number in group.batches:
                named.update(self._plan.batch(number).objects)
            return named
        for index in group.snapshots:
            with self._source.read_manifest(self._snapshots.ids[index]) as manifest:
                for files in manifest.files():
                    named.update(files.checksums)
        return named


def _requests_and_cost(
    request: JobRequest,
    snapshots: Snapshots,
    source: SnapshotStore,
    destination: SnapshotStore,
    found: _Survey,
) -> dict[str, Any]:
    planned = [snapshots.ids[index] for index in snapshots.of(PLANNED)]
    there = destination.manifests_present(planned)
    manifests_read: Counter[str] = Counter()
    manifests_written: Counter[str] = Counter()
    for snapshot_id in planned:
        # A manifest is read to plan, to know its objects when they are asked for again, and to be written.
        for _ in range(2 if snapshot_id in there else 3):
            manifests_read += source.requests_to_read_manifest()
        manifests_written += destination.requests_to_publish(0, already=snapshot_id in there)
    objects_read, objects_written = found.read, found.asked + found.written
    budget = request.budget
    cost = None
    if budget.prices:
        sender, taker = request.source, request.destination
        cost = _cost(budget.prices, sender.url, manifests_read, 0)
        cost += _cost(budget.prices, sender.objects_url or sender.url, objects_read, found.bytes_to_copy)
        cost += _cost(budget.prices, taker.url, manifests_written, 0)
        cost += _cost(budget.prices, taker.objects_url or taker.url, objects_written, 0)
    return {
        "requests": {
            "source": dict(objects_read + manifests_read),
            "destination": dict(objects_written + manifests_written),
        },
        "cost": None if cost is None else round(cost, 6),
        "currency": budget.currency,
    }


def _cost(prices: tuple[Price, ...], url: str, requests: Counter[str], bytes_read: int) -> float:
    """Return what requests to a store cost, by the price with the longest beginning of its URL."""
    fitting = [price for price in prices if url.startswith(price.store)]
    if not fitting:
        return 0.0
    price = max(fitting, key=lambda price: len(price.store))
    sent = sum(price.requests.get(name, 0.0) * count / 1000 for name, count in requests.items())
    return sent + price.egress * bytes_read / 1e9


def over_budget(budget: Budget, found: dict[str, Any]) -> str:
    """Return in words by what an estimate exceeds the budget, "" if it does not."""
    objects, size_bytes = found["objects"]["to_copy"], found["bytes"]["to_copy"]
    over = []
    if budget.max_objects is not None and objects > budget.max_objects:
        over.append(f"{objects:,} objects to copy, more than --max-objects {budget.max_objects:,}")
    if budget.max_bytes is not None and size_bytes > budget.max_bytes:
        over.append(f"{size(size_bytes)} to copy, more than --max-bytes {budget.max_bytes:,}")
    if budget.max_cost is not None and (found["cost"] or 0.0) > budget.max_cost:
        over.append(f"{found['cost']:.4f} {budget.currency}, more than --max-cost {budget.max_cost:g}")
    return f"over budget: {'; '.join(over)}" if over else ""
