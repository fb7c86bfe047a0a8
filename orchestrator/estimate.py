"""
What a job would do: asked of the destination, and counted, without writing anything.

The requests are those of a run in which nothing is retried or delivered twice,
and in which nobody else changes the destination.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from typing import Any

from stores.snapshot_store import SnapshotStore
from workers.describe import size
from workers.messages import Budget, JobRequest, Price

from .plan import Plan
from .prepare import PLANNED, TRUSTED, UNREADABLE, Snapshots
from .prune import refusal, surplus


def survey(
    request: JobRequest, snapshots: Snapshots, plan: Plan, source: SnapshotStore, destination: SnapshotStore
) -> dict[str, Any]:
    """
    Return the estimate of a job, as docs/json.md describes it. Asks the destination for every object.

    Raises `StoreError` where a store gives no answer.
    """
    asked: Counter[str] = Counter()
    read: Counter[str] = Counter()
    written: Counter[str] = Counter()
    exact = True
    to_copy = bytes_to_copy = 0
    brought: list[str] = []
    for group in plan.groups:
        new: list[str] = []
        held = 0
        for number in group.batches:
            objects = plan.batch(number).objects
            found = destination.survey(objects)
            ordered = sorted(objects)
            before = bisect_right(brought, ordered[-1]) - bisect_left(brought, ordered[0])
            if found.keys_between is None:
                exact = exact and not destination.requests_to_ask(1, 1)
            else:
                held += found.keys_between
            asked += destination.requests_to_ask(len(objects), (found.keys_between or 0) + before)
            for address in found.needed:
                ours, theirs = destination.requests_to_copy(source, objects[address])
                read += ours
                written += theirs
            to_copy += len(found.needed)
            bytes_to_copy += sum(objects[address] for address in found.needed)
            new += found.needed
        brought = sorted([*brought, *new])
        asked += destination.requests_to_ask(group.asked, held + len(brought))
    return _document(request, snapshots, plan, source, destination) | {
        "objects": {"total": plan.objects, "present": plan.objects - to_copy, "to_copy": to_copy},
        "bytes": {"total": plan.size_bytes, "to_copy": bytes_to_copy},
        **_requests_and_cost(request, snapshots, source, destination, asked, read, written, bytes_to_copy),
        "exact": exact,
    }


def _document(
    request: JobRequest, snapshots: Snapshots, plan: Plan, source: SnapshotStore, destination: SnapshotStore
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "snapshots": {
            "total": len(snapshots.ids),
            "planned": len(snapshots.of(PLANNED)),
            "trusted": len(snapshots.of(TRUSTED)),
            "unreadable": len(snapshots.of(UNREADABLE)),
        },
        "batches": plan.batches,
        "groups": len(plan.groups),
    }
    if request.prune is not None:
        doomed, source_has = surplus(source, destination)
        found["delete"] = doomed
        found["delete_refused"] = refusal(request.prune, len(doomed), source_has)
    return found


def _requests_and_cost(
    request: JobRequest,
    snapshots: Snapshots,
    source: SnapshotStore,
    destination: SnapshotStore,
    asked: Counter[str],
    read: Counter[str],
    written: Counter[str],
    bytes_to_copy: int,
) -> dict[str, Any]:
    planned = [snapshots.ids[index] for index in snapshots.of(PLANNED)]
    there = destination.manifests_present(planned)
    for snapshot_id in planned:
        # Once to plan, twice to publish.
        for _ in range(3):
            read += source.requests_to_publish(0, already=True)
        written += destination.requests_to_publish(0, already=snapshot_id in there)
    sides = {"source": dict(read), "destination": dict(asked + written)}
    budget = request.budget
    cost = None
    if budget.prices:
        cost = sum(
            _cost(budget.prices, reference.url, sides[side], bytes_to_copy if side == "source" else 0)
            for side, reference in (("source", request.source), ("destination", request.destination))
        )
    return {
        "requests": sides,
        "cost": None if cost is None else round(cost, 6),
        "currency": budget.currency,
    }


def _cost(prices: tuple[Price, ...], url: str, requests: dict[str, int], bytes_read: int) -> float:
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
        over.append(f"{objects:,} objects, more than --max-objects {budget.max_objects:,}")
    if budget.max_bytes is not None and size_bytes > budget.max_bytes:
        over.append(f"{size(size_bytes)}, more than --max-bytes {budget.max_bytes:,}")
    if budget.max_cost is not None and (found["cost"] or 0.0) > budget.max_cost:
        over.append(f"{found['cost']:.4f} {budget.currency}, more than --max-cost {budget.max_cost:g}")
    return f"it would copy and spend {'; '.join(over)}. Nothing was written." if over else ""
