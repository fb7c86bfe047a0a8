"""The manifests that a mirror deletes: those at the destination that the source does not have."""

from __future__ import annotations

from snapferry.stores.address import SnapshotId
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.text.format import counted
from snapferry.workers.messages import Prune


def surplus(source: StreamStore, destination: StreamStore) -> tuple[list[SnapshotId], int]:
    """
    Return the ids that the destination has and the source does not, and how many ids the source has.

    Raises `StoreError` where a store does not list its manifests: no answer is never an empty store.
    """
    at_source = set(source.list_manifest_ids())
    ids = [snapshot_id for snapshot_id in destination.list_manifest_ids() if snapshot_id not in at_source]
    return ids, len(at_source)


def refusal(options: Prune, deletions: int, source_has: int) -> str:
    """Return why nothing may be deleted, "" if everything may."""
    if not deletions:
        return ""
    if not source_has and not options.force:
        return (
            "the source lists no snapshot at all, so --delete would delete every manifest at the destination,"
            f" {deletions:,} in all; if that is meant, add --force-delete"
        )
    if options.max_delete is not None and deletions > options.max_delete:
        return f"--delete would delete {counted(deletions, 'manifest')}, more than --max-delete {options.max_delete}"
    return ""
