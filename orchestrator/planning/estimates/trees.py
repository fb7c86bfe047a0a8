"""Estimate what a push or a pull would do."""

from __future__ import annotations

from typing import Any

from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.snapshots import Snapshots
from snapferry.stores.backends.tree.writing.opened import target_of
from snapferry.stores.manifest.tree_entries import tree_entries
from snapferry.stores.requests import Requests
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.messages import JobSpec
from snapferry.workers.messages.files import file_of

from .figures import Traffic, estimate_of, total


def estimate_push(
    spec: JobSpec, snapshots: Snapshots, plan: Plan, source: StreamStore, destination: StreamStore
) -> dict[str, Any]:
    """
    Return the estimate of a push: what it would read, and what it would send at most.

    No file is read, so it is not known which objects the destination has, and which files have the same bytes.
    """
    accounting = destination.accounting
    requests = Requests()
    for number in range(plan.batches):
        checkpoint()
        sizes = plan.batch(number).sizes
        # The objects of a batch are asked for before they are sent, and all of the snapshot before it is published.
        requests += accounting.to_survey(len(sizes), 0) + accounting.to_survey(len(sizes), len(sizes))
        if accounting.to_write_object(1):
            requests += total(accounting.to_write_object(size) for size in sizes)
    return estimate_of(
        spec,
        snapshots,
        plan,
        objects={"present": 0, "to_copy": plan.objects, "to_read": plan.objects},
        size_bytes={"to_copy": plan.size_bytes, "to_read": plan.size_bytes},
        exact=False,
        source=Traffic(),
        destination=Traffic(requests, accounting.to_publish(0, already=False)),
    )


def estimate_pull(
    spec: JobSpec, snapshots: Snapshots, plan: Plan, source: StreamStore, destination: StreamStore
) -> dict[str, Any]:
    """
    Return the estimate of a pull: what it would write, and what it would remove if it deletes.

    The files that are in the tree are read; nothing is changed. Raises `StoreError`.
    """
    target = target_of(destination, look_only=True)
    accounting = source.accounting
    lacking = lacking_bytes = read_bytes = 0
    requests = Requests()
    for number in range(plan.batches):
        checkpoint()
        batch = plan.batch(number)
        # An object that several files of a batch have is read once.
        objects: dict[str, int] = {}
        for line, size in zip(batch.lines, batch.sizes, strict=True):
            file = file_of(line, size)
            if not target.is_right(file):
                lacking += 1
                lacking_bytes += size
                objects[file.address] = size
        read_bytes += sum(objects.values())
        requests += total(accounting.to_read_object(size) for size in objects.values())
    # The manifest is read for the plan, and for the check at the end.
    manifests = accounting.to_read_manifest() + accounting.to_read_manifest()
    estimate = estimate_of(
        spec,
        snapshots,
        plan,
        objects={"present": plan.objects - lacking, "to_copy": lacking},
        size_bytes={"to_copy": lacking_bytes, "to_read": read_bytes},
        exact=True,
        source=Traffic(requests, manifests, read_bytes),
        destination=Traffic(),
    )
    if not spec.tree.delete:
        return estimate
    with source.read_manifest(snapshots.ids[0]) as manifest:
        return estimate | {"remove": target.surplus(tree_entries(manifest)).document()}
