"""Delete the manifests at a mirror's destination that the source does not have. Objects are never deleted."""

from __future__ import annotations

from collections.abc import Callable

from snapferry.orchestrator.planning.surplus import refusal, surplus
from snapferry.stores.address import SnapshotId
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.messages import Prune


def prune(
    options: Prune,
    source: StreamStore,
    destination: StreamStore,
    record: Callable[[list[SnapshotId]], object],
) -> str:
    """
    Delete the surplus manifests; return "", or why nothing was deleted.

    Lists both stores again, and calls *record* with the ids before it deletes them. Raises `StoreError`, and whatever
    stops the job; some manifests may be deleted then. May be repeated.
    """
    surplus_ids, source_has = surplus(source, destination)
    refused = refusal(options, len(surplus_ids), source_has)
    if refused or not surplus_ids:
        return refused
    record(surplus_ids)
    for snapshot_id in surplus_ids:
        checkpoint()
        destination.delete_manifest(snapshot_id)
    # What the receipt calls deleted must not be there again after a loss of power.
    destination.flush()
    return ""
