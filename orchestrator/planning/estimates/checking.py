"""
Estimate what a verify or a heal would do.

No object is read, so what is wrong is not known. A heal would replace wrong objects besides the missing ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from snapferry.orchestrator.planning.batches import Batch
from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.snapshots import PLANNED, Snapshots
from snapferry.stores.requests import RequestAccounting, Requests
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.messages import JobSpec

from .figures import Traffic, estimate_of, total


def estimate_verify(
    spec: JobSpec, snapshots: Snapshots, plan: Plan, source: StreamStore, destination: StreamStore
) -> dict[str, Any]:
    """
    Return the estimate of a verify: what it would read. Asks nothing.

    A verify that stops at a number of bytes begins its batches in the order of the plan, until they have that many.
    """
    options, accounting = spec.verify, source.accounting
    objects = size_bytes = 0
    requests = Requests()
    bounded = False
    for batch in _batches(plan):
        if options.max_bytes is not None and size_bytes >= options.max_bytes and objects:
            bounded = True
            break
        objects += len(batch.objects)
        size_bytes += sum(batch.sizes)
        if options.fast:
            # As if the store held nothing else.
            wanted = sorted(batch.objects)
            requests += accounting.to_survey_among(wanted, wanted)
        else:
            requests += _to_read(accounting, batch.sizes)
    read = {"to_ask": objects, "to_read": 0} if options.fast else {"to_ask": 0, "to_read": objects}
    manifests = total(accounting.to_read_manifest() for _ in snapshots.ids)
    estimate = estimate_of(
        spec,
        snapshots,
        plan,
        objects={"present": 0, "to_copy": 0, **read},
        size_bytes={"to_copy": 0, "to_read": 0 if options.fast else size_bytes},
        exact=not options.fast and not bounded and options.max_seconds is None,
        source=Traffic(requests, manifests, 0 if options.fast else size_bytes),
        destination=Traffic(),
    )
    return estimate | {"bounded": "max_bytes" if bounded else None}


def estimate_heal(
    spec: JobSpec, snapshots: Snapshots, plan: Plan, source: StreamStore, destination: StreamStore
) -> dict[str, Any]:
    """
    Return the estimate of a heal: what it would read, and the missing objects that it would fetch.

    Asks the store that is healed for every object. Raises `StoreError` where it does not answer.
    """
    at_source, there = source.accounting, destination.accounting
    missing = missing_bytes = 0
    fetched, asked = Requests(), Requests()
    for batch in _batches(plan):
        objects = batch.objects
        needed = destination.survey(list(objects)).needed
        sizes = [objects[address] for address in needed]
        missing += len(needed)
        missing_bytes += sum(sizes)
        fetched += _to_read(at_source, sizes)
        # Each object is read, each missing one also after it was written; then all are asked for.
        wanted = sorted(objects)
        asked += _to_read(there, batch.sizes) + _to_read(there, sizes) + there.to_survey_among(wanted, wanted)
        asked += total(there.to_write_object(size) for size in sizes)
    planned = snapshots.of(PLANNED)
    manifests = total(there.to_publish(0, already=True) + there.to_read_manifest() for _ in planned)
    read_bytes = plan.size_bytes - missing_bytes
    return estimate_of(
        spec,
        snapshots,
        plan,
        objects={
            "present": plan.objects - missing,
            "to_copy": missing,
            "to_read": plan.objects - missing,
        },
        size_bytes={"to_copy": missing_bytes, "to_read": read_bytes},
        exact=False,
        source=Traffic(fetched, Requests(), missing_bytes),
        destination=Traffic(asked, manifests, read_bytes),
    )


def _batches(plan: Plan) -> Iterator[Batch]:
    for number in range(plan.batches):
        checkpoint()
        yield plan.batch(number)


def _to_read(accounting: RequestAccounting, sizes: tuple[int, ...] | list[int]) -> Requests:
    """Return the requests that read objects of *sizes* bytes."""
    # Without a request for one, a directory needs none for any.
    if not sizes or not accounting.to_read_object(1):
        return Requests()
    return total(accounting.to_read_object(size) for size in sizes)
