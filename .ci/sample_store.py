"""
A small sample for demos: a tree of files, and a store that holds it.

    sample_store.py tree DIRECTORY           make a tree of files in DIRECTORY
    sample_store.py store DIRECTORY STORE    store the tree in STORE as a snapshot, and print its id
"""

from __future__ import annotations

import random
import shutil
import sys
import sysconfig
from pathlib import Path

from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.backends.tree.place import TreePlace
from snapferry.stores.backends.tree.snapshot import read_tree
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
    """Store the tree at *root* as a snapshot, in this process. Return the snapshot id."""
    tree = TreeBackend(TreePlace(str(root)))
    with read_tree(tree) as manifest:
        store.push(manifest, tree)
        return manifest.id


def main() -> None:
    """Run one of the two commands."""
    match sys.argv[1:]:
        case ["tree", root]:
            make_tree(Path(root))
        case ["store", root, store]:
            print(fill_store(Path(root), open_store(store)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
