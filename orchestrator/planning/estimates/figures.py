"""What the estimates of all actions have: the frame of the document, the cost, and the comparison with the budget."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.snapshots import PLANNED, TRUSTED, UNREADABLE, Snapshots
from snapferry.stores.requests import Requests
from snapferry.stores.text.format import counted, size
from snapferry.workers.copying.transfer.budget import cost_of
from snapferry.workers.messages import Budget, JobSpec


class Traffic(NamedTuple):
    """What a job asks of one side: requests for *objects* and for *manifests*, and the bytes of objects read there."""

    objects: Requests = Requests()
    manifests: Requests = Requests()
    bytes_read: int = 0

    @property
    def requests(self) -> dict[str, int]:
        """All requests, by operation."""
        return dict(self.objects + self.manifests)


def estimate_of(
    spec: JobSpec,
    snapshots: Snapshots,
    plan: Plan,
    *,
    objects: dict[str, int],
    size_bytes: dict[str, int],
    exact: bool,
    source: Traffic,
    destination: Traffic,
) -> dict[str, Any]:
    """
    Return the estimate of a job.

    *objects* and *size_bytes* have the counts besides the totals; ``to_copy`` is among both. Requests that cannot be
    known before are not *exact*.
    """
    estimate: dict[str, Any] = {
        "snapshots": {
            "total": len(snapshots.ids),
            "planned": len(snapshots.of(PLANNED)),
            "trusted": len(snapshots.of(TRUSTED)),
            "unreadable": len(snapshots.of(UNREADABLE)),
        },
        "objects": {"total": plan.objects, **objects},
        "bytes": {"total": plan.size_bytes, **size_bytes},
        "batches": plan.batches,
        "groups": len(plan.groups),
        "exact": exact,
        "requests": {"source": source.requests, "destination": destination.requests},
        "cost": _cost(spec, source, destination),
        "currency": spec.budget.currency,
    }
    return estimate | {"refused": over_budget(spec.budget, estimate)}


def _cost(spec: JobSpec, source: Traffic, destination: Traffic) -> float | None:
    """Return what the requests and the bytes that are read cost, None without prices."""
    prices = spec.budget.prices
    if not prices:
        return None
    cost = 0.0
    for store, traffic in ((spec.source, source), (spec.destination, destination)):
        cost += cost_of(prices, store.url, traffic.manifests, 0)
        cost += cost_of(prices, store.objects_url or store.url, traffic.objects, traffic.bytes_read)
    return round(cost, 6)


def total(requests: Iterable[Requests]) -> Requests:
    """Return the sum of *requests*."""
    return sum(requests, Requests())


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
