"""Mirror: delete the manifests at the destination that the source does not have. Objects stay, always."""

from __future__ import annotations

from collections.abc import Callable

from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.messages import Prune


def surplus(source: SnapshotStore, destination: SnapshotStore) -> tuple[list[str], int]:
    """
    Return the ids that the destination has and the source does not, and how many the source has.

    Raises `StoreError` where one of them does not list its manifests: no answer is never an empty store.
    """
    here = set(source.list_manifest_ids())
    return [snapshot for snapshot in destination.list_manifest_ids() if snapshot not in here], len(here)


def refusal(options: Prune, deletions: int, source_has: int) -> str:
    """Return why nothing may be deleted, "" if it may."""
    if not deletions:
        return ""
    if not source_has and not options.force:
        return (
            f"the source lists no snapshot at all, so --delete would delete all {deletions} at the destination;"
            " if that is meant, add --force-delete"
        )
    if options.max_delete is not None and deletions > options.max_delete:
        return f"--delete would delete {deletions} manifests, more than --max-delete {options.max_delete}"
    return ""


def prune(
    options: Prune,
    source: SnapshotStore,
    destination: SnapshotStore,
    record: Callable[[list[str]], object],
) -> str:
    """
    Delete what is surplus; return "", or why nothing was deleted.

    Both stores are listed anew. *record* is told what will be deleted, before
    it is. Raises `StoreError`, and whatever stops the job; some manifests may be deleted then. May be called again.
    """
    doomed, source_has = surplus(source, destination)
    why_not = refusal(options, len(doomed), source_has)
    if why_not or not doomed:
        return why_not
    record(doomed)
    for snapshot_id in doomed:
        checkpoint()
        destination.delete_manifest(snapshot_id)
    return ""
