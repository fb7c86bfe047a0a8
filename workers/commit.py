"""
Publish a snapshot: the last step, and the only one that writes a manifest.

Presence of every object is asked from the destination itself, whatever any
ledger, queue or earlier answer says.
"""

from __future__ import annotations

from stores.errors import ManifestIncomplete
from stores.snapshot_store import SnapshotStore


def publish_snapshot(source: SnapshotStore, destination: SnapshotStore, snapshot_id: str) -> tuple[str, ...]:
    """
    Publish *snapshot_id* at *destination* if every object of it is there.

    Returns the addresses that are absent: none means that the manifest is
    published and was read back; otherwise nothing was written. Raises
    `StoreError`. May be called again, also at the same time as itself.
    """
    with source.read_manifest(snapshot_id) as manifest:
        try:
            destination.publish(manifest)
        except ManifestIncomplete as error:
            return error.missing
    return ()
