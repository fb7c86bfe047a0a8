"""Stores for tests, written past the product: in a second what its care for power cuts takes minutes for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from snapferry.stores.address import SnapshotId, manifest_key, object_key
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render


def manifest_of(files: Mapping[str, bytes]) -> bytes:
    """Return the manifest text of *files*."""
    return render(Entry("F", "644", digest(data), len(data), path) for path, data in files.items())


def write_raw(root: Path, key: str, data: bytes) -> None:
    """File *data* under *key* in the store at *root*."""
    path = root / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_snapshots(root: Path, snapshots: Iterable[Mapping[str, bytes]]) -> list[SnapshotId]:
    """Write snapshots, path -> content, and their objects into a new store at *root*; return their ids."""
    filed: set[bytes] = set()
    ids = []
    for files in snapshots:
        for data in set(files.values()) - filed:
            write_raw(root, object_key(digest(data)), data)
        filed.update(files.values())
        text = manifest_of(files)
        ids.append(SnapshotId(digest(text)))
        write_raw(root, manifest_key(ids[-1]), text)
    return ids
