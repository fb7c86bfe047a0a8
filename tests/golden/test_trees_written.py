"""A tree that we make of a snapshot is the one that snapdir makes of it, with the same permissions."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.stores.backends.tree.writing.target import TreeTarget
from tests.golden.odd_trees import ODD_TREES, random_tree
from tests.golden.oracle import Oracle
from tests.golden.trees import TREES
from tests.opening import open_store

# Others have names that snapdir cannot read back.
RANDOM_TREES = (1, 2, 3)


def described(tree: Path) -> dict[str, tuple[int, bytes | None]]:
    """Return path -> mode with type, and bytes, of all that is in *tree*."""
    found: dict[str, tuple[int, bytes | None]] = {".": (tree.lstat().st_mode, None)}
    for folder, folders, files in os.walk(tree):
        for name in [*folders, *files]:
            path = Path(folder, name)
            mode = path.lstat().st_mode
            found[str(path.relative_to(tree))] = mode, path.read_bytes() if name in files else None
    return found


def fetch(store: Path, snapshot: str, dest: Path, **options: bool) -> None:
    opened = open_store(f"file://{store}")
    with opened.read_manifest(snapshot) as manifest:
        opened.fetch_files(manifest, TreeTarget(str(dest), **options))


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_trees_are_those_of_snapdir(tmp_path: Path, oracle: Oracle) -> None:
    root = tmp_path / "tree"
    for name, make in (TREES | ODD_TREES).items():
        (root / name).mkdir(parents=True)
        make(root / name)
    for seed in RANDOM_TREES:
        random_tree(root / f"random {seed}", seed)
    root.chmod(0o1751)
    store = tmp_path / "store"
    snapshot = oracle.push(root, f"file://{store}")
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    oracle.pull(snapshot, f"file://{store}", theirs)

    fetch(store, snapshot, ours)

    assert described(ours) == described(theirs)


def test_a_tree_that_changed_is_repaired_and_an_exact_mirror_on_request(
    tmp_path: Path, oracle: Oracle
) -> None:
    root, store, dest = tmp_path / "tree", tmp_path / "store", tmp_path / "dest"
    root.mkdir()
    TREES["links"](root)
    TREES["nested"](root)
    TREES["modes"](root)
    snapshot = oracle.push(root, f"file://{store}")
    fetch(store, snapshot, dest)
    right = described(dest)
    # The length and the age of a wrong file are those of the right one.
    times = (dest / "target").stat()
    (dest / "target").write_bytes(b"A" * times.st_size)
    os.utime(dest / "target", ns=(times.st_atime_ns, times.st_mtime_ns))
    (dest / "a-b").chmod(0o600)
    (dest / "folder").chmod(0o700)
    shutil.rmtree(dest / "a" / "b")
    (dest / "a" / "stranger").mkdir()
    (dest / "a" / "stranger" / "file").write_bytes(b"stranger")
    (dest / "zero").unlink()
    (dest / "zero").symlink_to("target")

    fetch(store, snapshot, dest)

    kept = {"a/stranger", "a/stranger/file"}
    assert {path: found for path, found in described(dest).items() if path not in kept} == right
    assert (dest / "a" / "stranger" / "file").read_bytes() == b"stranger"

    fetch(store, snapshot, dest, delete=True)

    assert described(dest) == right
