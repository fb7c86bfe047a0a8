"""
A small sample for the demo: a tree of files, the store that holds it, and a check of any store.

    sample_store.py tree DIRECTORY           make a tree of files in DIRECTORY
    sample_store.py store DIRECTORY STORE    store the tree in STORE as a snapshot, and print its id
    sample_store.py verify STORE             read and hash everything in STORE
"""

from __future__ import annotations

import random
import shutil
import stat
import sys
import sysconfig
from pathlib import Path

from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore

PACKAGES = (
    "asyncio",
    "concurrent",
    "email",
    "encodings",
    "http",
    "importlib",
    "json",
    "logging",
    "unittest",
    "xml",
)
LARGE_BYTES = 64 * 1024 * 1024


def make_tree(root: Path) -> None:
    """Fill *root*: part of Python's library, duplicates, a large file, and unusual names."""
    library = Path(sysconfig.get_path("stdlib"))
    for package in PACKAGES:
        if (library / package).is_dir():
            shutil.copytree(
                library / package, root / "library" / package, ignore=shutil.ignore_patterns("__pycache__")
            )
    shutil.copytree(root / "library" / "json", root / "second copy of json")
    (root / "empty").touch()
    (root / "übersicht 概要.txt").write_text("A name that is not ASCII.\n", encoding="utf-8")
    (root / "link").symlink_to("empty")
    numbers = random.Random(1)
    with (root / "large.bin").open("wb") as file:
        for _ in range(LARGE_BYTES >> 20):
            file.write(numbers.randbytes(1 << 20))


def fill_store(root: Path, store: SnapshotStore) -> str:
    """Store every file below *root* as an object, then the manifest. Return the snapshot id."""
    entries: list[Entry] = []

    def file_directory(directory: Path, shown: str) -> tuple[str, int]:
        checksums, total = set(), 0
        for path in directory.iterdir():
            if path.is_dir():
                checksum, size = file_directory(path, f"{shown}{path.name}/")
            else:
                data = path.read_bytes()
                checksum, size = digest(data), path.lstat().st_size
                store.put_object(checksum, data)
                entries.append(Entry("F", permissions(path), checksum, size, shown + path.name))
            checksums.add(checksum)
            total += size
        merkle = digest("".join(sorted(checksums)).encode())
        entries.append(Entry("D", permissions(directory), merkle, total, shown))
        return merkle, total

    file_directory(root, "./")
    manifest = render(entries)
    snapshot = snapshot_id(manifest)
    store.put_manifest(snapshot, manifest)
    return snapshot


def permissions(path: Path) -> str:
    """Return the mode of *path* as a manifest shows it; of a link, its own mode."""
    return f"{stat.S_IMODE(path.lstat().st_mode):o}"


def verify(store: SnapshotStore) -> str:
    """Read and hash every manifest and object. Return a summary. Raises `StoreError`."""
    snapshots = store.list_manifest_ids()
    objects: set[str] = set()
    for snapshot in snapshots:
        with store.read_manifest(snapshot) as manifest:
            objects.update(manifest.objects())
    total = sum(len(store.get_object(address)) for address in sorted(objects))
    return f"{len(snapshots)} snapshot(s), {len(objects)} objects, {total:,} bytes: all match their addresses"


def main() -> None:
    """Run one of the three commands."""
    match sys.argv[1:]:
        case ["tree", root]:
            make_tree(Path(root))
        case ["store", root, store]:
            print(fill_store(Path(root), open_store(store)))
        case ["verify", store]:
            print(verify(open_store(store)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
