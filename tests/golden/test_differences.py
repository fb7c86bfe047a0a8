"""Where snapdir and we differ on purpose, as docs/compare.md lists. Other differences are faults."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.address import SnapshotId, manifest_key, object_key, parse_snapshot_id
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.errors import IntegrityError, ManifestSyntaxError, NotAnObject, StoreFault
from snapferry.stores.hashing import digest
from snapferry.stores.inspection.sizes import snapshot_size
from tests.golden.files import contents, copy_snapshot
from tests.golden.oracle import Oracle, Refused
from tests.opening import open_store

# snapdir adds a suffix with the number of its process to the name of a temporary file.
LONG, TOO_LONG = 230, 250


def pull(store: Path, snapshot: str, dest: Path) -> None:
    opened = open_store(f"file://{store}")
    with opened.read_manifest(snapshot) as manifest:
        opened.fetch_files(manifest, TreeTarget(str(dest)))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    made = tmp_path / "tree"
    made.mkdir()
    return made


@pytest.mark.parametrize("name", ["n" * TOO_LONG, "é" * 127, "ends\r"])
def test_names_that_snapdir_pushes_and_does_not_restore(
    name: str, tree: Path, oracle: Oracle, tmp_path: Path
) -> None:
    (tree / name).write_bytes(b"x")
    snapshot = oracle.push(tree, f"file://{tmp_path}/store")

    with pytest.raises(Refused):
        oracle.pull(snapshot, f"file://{tmp_path}/store", tmp_path / "theirs")
    pull(tmp_path / "store", snapshot, tmp_path / "ours")

    assert contents(tmp_path / "ours") == contents(tree)


def test_a_long_name_that_snapdir_restores(tree: Path, oracle: Oracle, tmp_path: Path) -> None:
    (tree / ("n" * LONG)).write_bytes(b"x")
    snapshot = oracle.push(tree, f"file://{tmp_path}/store")

    oracle.pull(snapshot, f"file://{tmp_path}/store", tmp_path / "theirs")

    assert contents(tmp_path / "theirs") == contents(tree)


def test_snapdir_reads_an_object_through_a_link(tree: Path, oracle: Oracle, tmp_path: Path) -> None:
    (tree / "file").write_bytes(b"x")
    snapshot = oracle.push(tree, f"file://{tmp_path}/store")
    path = tmp_path / "store" / object_key(digest(b"x"))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")

    assert oracle.verify(snapshot, f"file://{tmp_path}/store")
    with pytest.raises(NotAnObject):
        open_store(f"file://{tmp_path}/store").check_object(digest(b"x"))


def test_snapdir_copies_nothing_where_the_manifest_is(tree: Path, oracle: Oracle, tmp_path: Path) -> None:
    (tree / "file").write_bytes(b"x")
    snapshot = oracle.push(tree, f"file://{tmp_path}/store")
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / ".objects")

    oracle.sync(snapshot, f"file://{tmp_path}/store", f"file://{tmp_path}/copy")
    assert not (tmp_path / "copy" / ".objects").exists()
    copy_snapshot(open_store(f"file://{tmp_path}/store"), open_store(f"file://{tmp_path}/copy"), snapshot)

    assert contents(tmp_path / "copy") == contents(tmp_path / "store")


def test_snapdir_leaves_out_what_cannot_be_listed(tree: Path, oracle: Oracle, tmp_path: Path) -> None:
    oracle.push(tree, f"file://{tmp_path}/store")
    (tmp_path / "store" / ".manifests" / "abc").touch()

    assert oracle.size(f"file://{tmp_path}/store")["files"] == 0
    with pytest.raises(StoreFault):
        open_store(f"file://{tmp_path}/store").list_manifest_ids()


def test_snapdir_follows_links_and_keeps_hard_links_in_the_directory_of_a_pull(
    tree: Path, oracle: Oracle, tmp_path: Path
) -> None:
    (tree / "folder").mkdir()
    (tree / "folder" / "file").write_bytes(b"x")
    (tree / "shared").write_bytes(b"y")
    snapshot = oracle.push(tree, f"file://{tmp_path}/store")
    for name in ("theirs", "ours"):
        (tmp_path / name).mkdir()
        (tmp_path / f"outside {name}").mkdir()
        (tmp_path / name / "folder").symlink_to(tmp_path / f"outside {name}")
        (tmp_path / f"linked {name}").write_bytes(b"y")
        (tmp_path / f"linked {name}").chmod(0o600)
        os.link(tmp_path / f"linked {name}", tmp_path / name / "shared")

    oracle.pull(snapshot, f"file://{tmp_path}/store", tmp_path / "theirs")
    pull(tmp_path / "store", snapshot, tmp_path / "ours")

    assert contents(tmp_path / "ours") == contents(tree)
    assert contents(tmp_path / "outside ours") == {}
    assert (tmp_path / "linked ours").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "outside theirs" / "file").read_bytes() == b"x"
    assert (tmp_path / "linked theirs").stat().st_mode & 0o777 == 0o644


def test_an_empty_directory_in_the_place_of_a_file(tree: Path, oracle: Oracle, tmp_path: Path) -> None:
    (tree / "file").write_bytes(b"x")
    snapshot = oracle.push(tree, f"file://{tmp_path}/store")
    for name in ("theirs", "ours"):
        (tmp_path / name / "file").mkdir(parents=True)

    with pytest.raises(Refused):
        oracle.pull(snapshot, f"file://{tmp_path}/store", tmp_path / "theirs")
    pull(tmp_path / "store", snapshot, tmp_path / "ours")

    assert (tmp_path / "theirs" / "file").is_dir()
    assert contents(tmp_path / "ours") == contents(tree)


@pytest.mark.parametrize("hashed", [hashlib.md5, hashlib.sha1, hashlib.sha512, hashlib.sha256])
def test_snapdir_counts_checksums_of_any_length(hashed: Any, oracle: Oracle, tmp_path: Path) -> None:
    """As with its option --checksum-bin. A checksum as long as one of BLAKE3 cannot be told from it."""
    checksum = hashed(b"x").hexdigest()
    snapshot = planted(tmp_path / "store", "./file", checksum)

    for found in (oracle.size(f"file://{tmp_path}/store"), oracle.size(f"file://{tmp_path}/store", snapshot)):
        assert (found["files"], found["objects"], found["logical_bytes"]) == (1, 1, 1)
    store = open_store(f"file://{tmp_path}/store")
    if len(checksum) == len(digest(b"x")):
        assert snapshot_size(store, parse_snapshot_id(snapshot)).files == 1
        return
    with pytest.raises(IntegrityError, match=f"has a checksum of {4 * len(checksum)} bits"):
        snapshot_size(store, parse_snapshot_id(snapshot))


def planted(store: Path, path: str, checksum: str = "") -> str:
    """File a manifest with nothing but the file *path* in *store*, and return its id."""
    text = f"F 644 {checksum or digest(b'x')} 1 {path}\n".encode()
    open_store(f"file://{store}").put_object(digest(b"x"), b"x")
    target = store / manifest_key(SnapshotId(digest(text)))
    target.parent.mkdir(parents=True)
    target.write_bytes(text)
    return digest(text)


def test_snapdir_writes_where_a_path_leads(oracle: Oracle, tmp_path: Path) -> None:
    snapshot = planted(tmp_path / "store", "./../stranger")

    oracle.pull(snapshot, f"file://{tmp_path}/store", tmp_path / "dest")
    assert (tmp_path / "stranger").read_bytes() == b"x"
    (tmp_path / "stranger").unlink()
    shutil.rmtree(tmp_path / "dest", ignore_errors=True)

    with pytest.raises(ManifestSyntaxError):
        pull(tmp_path / "store", snapshot, tmp_path / "dest")
    assert not (tmp_path / "stranger").exists()


def test_directories_that_a_manifest_only_implies(oracle: Oracle, tmp_path: Path) -> None:
    snapshot = planted(tmp_path / "store", "./folder/file")
    umask = os.umask(0o022)
    try:
        oracle.pull(snapshot, f"file://{tmp_path}/store", tmp_path / "theirs")
        pull(tmp_path / "store", snapshot, tmp_path / "ours")
    finally:
        os.umask(umask)

    assert (tmp_path / "theirs" / "folder").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "ours" / "folder").stat().st_mode & 0o777 == 0o700
