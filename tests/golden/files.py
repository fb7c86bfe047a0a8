"""What is in a directory, to the last bit that a store's reader could see."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snapferry.stores.snapshot_store import SnapshotStore


def contents(root: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return relative path -> (mode, bytes) of everything below *root*; folders have no bytes."""
    found: dict[str, tuple[int, bytes | None]] = {}
    for folder, folders, files in os.walk(root):
        for name in folders + files:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            found[str(path.relative_to(root))] = (mode, path.read_bytes() if stat.S_ISREG(mode) else None)
    return found


def manifests_in(root: Path) -> list[str]:
    """Return the names of all files below the manifests' folder of the store at *root*."""
    return [str(path) for path in (root / ".manifests").rglob("*") if path.is_file()]


def copy_snapshot(source: SnapshotStore, destination: SnapshotStore, snapshot: str) -> None:
    """Copy a snapshot with nothing but the two calls of `SnapshotStore` that write."""
    with source.read_manifest(snapshot) as manifest:
        for address, size in manifest.objects().items():
            destination.copy_object(source, address, size_hint=size)
        destination.publish(manifest)
