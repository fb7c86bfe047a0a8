"""JSON documents about what is in stores, for programs; docs/json.md describes them."""

from __future__ import annotations

from typing import Any

from snapferry.stores.bulk.union import Counted
from snapferry.stores.inspection.differences import ObjectChange, PathChange, SnapshotChange
from snapferry.stores.inspection.orphans import Orphans
from snapferry.stores.inspection.sizes import Sizes
from snapferry.stores.manifest.entry import Entry
from snapferry.stores.names.names import ListedName
from snapferry.stores.stream_store import ListedObject

from .text.format import moment
from .text.stores import SnapshotRow


def row_document(row: SnapshotRow) -> dict[str, Any]:
    """Return a snapshot of a store."""
    found = {
        "id": row.id,
        "names": list(row.names),
        "date": moment(row.modified),
        "manifest_bytes": row.manifest_bytes,
    }
    if row.error is not None:
        return found | {"files": None, "bytes": None, "objects": None, "error": str(row.error)}
    if row.counted is None:
        return found
    files, size_bytes, objects = row.counted
    return found | {"files": files, "bytes": size_bytes, "objects": objects, "error": None}


def sizes_document(sizes: Sizes, snapshot_id: str | None) -> dict[str, Any]:
    """Return the size of a store, or of the snapshot *snapshot_id*."""
    return {
        "snapshot": snapshot_id,
        "snapshots": sizes.snapshots,
        "files": sizes.files,
        "logical_bytes": sizes.logical_bytes,
        "objects": sizes.objects,
        "physical_bytes": sizes.physical_bytes,
        "shared": _counted(sizes.shared),
    }


def entry_document(entry: Entry) -> dict[str, Any]:
    """Return a line of a manifest."""
    return {
        "type": entry.type,
        "permissions": entry.permissions,
        "checksum": entry.checksum,
        "size": entry.size,
        "path": entry.path,
    }


def path_change_document(change: PathChange) -> dict[str, Any]:
    """Return a path that differs."""
    return {
        "status": str(change.change),
        "path": change.path,
        "before": entry_document(change.before) if change.before else None,
        "after": entry_document(change.after) if change.after else None,
    }


def snapshot_change_document(change: SnapshotChange) -> dict[str, Any]:
    """Return a snapshot that only one store has."""
    return {"status": str(change.change), "snapshot": change.id}


def object_change_document(change: ObjectChange) -> dict[str, Any]:
    """Return an object that only one store has, or that has another length there."""
    return {
        "status": str(change.change),
        "address": change.address,
        "before": change.before.length if change.before else None,
        "after": change.after.length if change.after else None,
    }


def orphans_document(orphans: Orphans) -> dict[str, Any]:
    """Return how many orphans there are, among how many objects."""
    return {
        "snapshots": orphans.snapshots,
        "objects": orphans.stored.objects,
        "bytes": orphans.stored.size_bytes,
        "orphan_objects": orphans.found.objects,
        "orphan_bytes": orphans.found.size_bytes,
        "youngest": moment(orphans.youngest),
    }


def orphan_document(orphan: ListedObject) -> dict[str, Any]:
    """Return one orphan."""
    return {"address": orphan.address, "bytes": orphan.length, "date": moment(orphan.modified)}


def _counted(counted: Counted | None) -> dict[str, int] | None:
    return None if counted is None else {"objects": counted.objects, "bytes": counted.size_bytes}


def name_document(listed: ListedName) -> dict[str, Any]:
    """Return a name as docs/json.md describes it."""
    record = listed.record
    return {
        "name": listed.name,
        "snapshot": record and record.snapshot_id,
        "dangling": listed.dangling,
        "carried": bool(record and record.origin),
        "error": listed.error and str(listed.error),
    }
