"""Small stores for tests (the golden tests use the real snapdir)."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping
from pathlib import Path

from snapferry.stores.address import SnapshotId
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import snapshot_id
from snapferry.stores.snapshot_store import SnapshotStore
from tests.integration.raw_store import manifest_of, write_snapshots


def random_files(count: int, *, size: int = 512, seed: int = 1) -> dict[str, bytes]:
    """Return *count* files of distinct content, *size* bytes each, and an empty one."""
    random_ = random.Random(seed)
    files = {f"./dir {n % 7}/file-{n:05}": random_.randbytes(size) for n in range(count)}
    return files | {"./empty": b""}


def fill(store: SnapshotStore, files: Mapping[str, bytes]) -> SnapshotId:
    """Let *store* write a snapshot of *files*; return its id."""
    for data in set(files.values()):
        store.put_object(digest(data), data)
    text = manifest_of(files)
    identifier = snapshot_id(text)
    store.put_manifest(identifier, text)
    return identifier


def make_store(root: Path, files: Mapping[str, bytes]) -> SnapshotId:
    """Write a snapshot of *files* into the store at *root*, which need not be there; return its id."""
    # Past the product, which takes care for power cuts.
    (found,) = write_snapshots(root, [files])
    return found


def tree(root: Path) -> dict[str, bytes]:
    """Return every file below *root*, relative path to content."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                found[os.path.relpath(path, root)] = file.read()
    return found


def assert_published_means_complete(store: SnapshotStore) -> None:
    """Check G1 and G2 on *store*: every manifest that can be read has all its objects, each hashing right."""
    for identifier in store.list_manifest_ids():
        with store.read_manifest(identifier) as manifest:
            for address in manifest.objects():
                assert digest(store.get_object(address)) == address
