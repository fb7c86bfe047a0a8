"""Kill a pull before every system call that changes the tree: every file is whole, and the next pull completes it."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from snapferry.stores.backends.directory.native import extension
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.snapshot_store import SnapshotStore

from .test_kill_points import Fuse, _fused, run_and_die

FILES = {
    "./a": b"new" * 100,
    "./dir/b": b"b",
    "./dir/link": b"in the place of a link",
    "./gone": b"in the place of a directory",
}
ENTRIES = [
    *(Entry("F", "4750", digest(data), len(data), path) for path, data in FILES.items()),
    Entry("D", "755", digest(b""), 0, "./"),
    Entry("D", "555", digest(b""), 0, "./dir/"),
    Entry("D", "700", digest(b""), 0, "./empty/"),
]
STEPS = ("mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir", "fchmod", "chmod")
MOST_POINTS = 1000


def set_up(tree: Path, outside: Path) -> None:
    (tree / "dir").mkdir(parents=True)
    (tree / "gone" / "deep").mkdir(parents=True)
    (tree / "gone" / "deep" / "x").write_bytes(b"x")
    (tree / "a").write_bytes(b"old" * 100)
    (tree / "stranger").write_bytes(b"stranger")
    (tree / "dir" / "link").symlink_to(outside / "file")


def fetch(store: SnapshotStore, tree: Path) -> None:
    text = render(ENTRIES)
    with Manifest.from_bytes(snapshot_id(text), text) as manifest:
        store.fetch_files(manifest, TreeTarget(str(tree), delete=True))


def fetch_and_die(store: SnapshotStore, tree: Path, point: int) -> None:
    fuse = Fuse(point)
    # The compiled extension makes the same system calls in the same order, where nobody sees them.
    extension._extension = None
    for name in STEPS:
        setattr(os, name, _fused(getattr(os, name), fuse))
    fetch(store, tree)


def test_a_pull_that_is_killed_anywhere_leaves_whole_files_and_is_completed(tmp_path: Path) -> None:
    store = SnapshotStore(MemoryBackend())
    for data in FILES.values():
        store.put_object(digest(data), data)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"outside")
    points = 0
    for point in range(MOST_POINTS):
        tree = tmp_path / f"tree {point}"
        set_up(tree, outside)
        killed = run_and_die(partial(fetch_and_die, store, tree, point))

        assert (tree / "a").read_bytes() in (b"old" * 100, b"new" * 100)
        if (tree / "dir" / "b").exists():
            assert (tree / "dir" / "b").read_bytes() == b"b"
            assert (tree / "dir" / "b").stat().st_mode & 0o7777 == 0o4750
        if not (tree / "stranger").exists():
            assert (tree / "gone").is_file()
        fetch(store, tree)
        found = {
            f"./{path.relative_to(tree)}": path.stat().st_mode & 0o7777 for path in [tree, *tree.rglob("*")]
        }
        assert found == {
            "./.": 0o755, "./dir": 0o555, "./empty": 0o700, **dict.fromkeys(FILES, 0o4750),
        }  # fmt: skip
        assert {path: (tree / path).read_bytes() for path in FILES} == FILES
        assert (outside / "file").read_bytes() == b"outside"
        if not killed:
            points = point
            break
    assert points > len(FILES) * 3
