"""What every store must do with trees of files: `StreamStore.push` and `StreamStore.fetch_files`."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.errors import IntegrityError, ManifestSyntaxError, ObjectMissing
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.snapshot_store import SnapshotStore

# Longer than a part of an upload.
EMPTY = digest(b"")
LARGE = random.Random(7).randbytes(8 * 1024 * 1024 + 1)


class FilesContract:
    """Part of `StoreContract`, whose fixtures it uses."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        files = {
            "a": b"a",
            "dir/b": b"b" * 100_000,
            "dir/deep/c": LARGE,
            "dir/same": b"a",
            "empty": b"",
        }
        for path, data in files.items():
            (tmp_path / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "tree" / path).write_bytes(data)
        return tmp_path / "tree"

    def test_a_tree_is_pushed_and_fetched(self, store: SnapshotStore, tree: Path) -> None:
        store.put_object(digest(b"a"), b"a")
        with _manifest_of(tree) as manifest:
            store.push(manifest, DirectoryBackend(str(tree)))
            store.push(manifest, DirectoryBackend(str(tree)))
            fetched = TreeTarget(str(tree.parent / "fetched"))
            store.fetch_files(manifest, fetched)

            assert store.list_manifest_ids() == [manifest.id]
            assert store.objects_needed(manifest.objects()) == []
        assert _contents(tree.parent / "fetched") == _contents(tree)

    def test_a_file_that_has_changed_is_not_pushed(self, store: SnapshotStore, tree: Path) -> None:
        with _manifest_of(tree) as manifest:
            (tree / "dir" / "b").write_bytes(b"c" * 100_000)
            with pytest.raises(IntegrityError) as caught:
                store.push(manifest, DirectoryBackend(str(tree)))

            assert (caught.value.store, caught.value.subject) == (f"file://{tree}", "./dir/b")
            assert not store.has_object(digest(b"b" * 100_000))
            assert not store.has_object(digest(b"c" * 100_000))
            assert store.list_manifest_ids() == []

    def test_a_file_that_is_missing_is_not_pushed(self, store: SnapshotStore, tree: Path) -> None:
        with _manifest_of(tree) as manifest:
            (tree / "dir" / "deep" / "c").unlink()
            with pytest.raises(ObjectMissing) as caught:
                store.push(manifest, DirectoryBackend(str(tree)))

            assert (caught.value.store, caught.value.subject) == (f"file://{tree}", "./dir/deep/c")
            assert store.list_manifest_ids() == []

    def test_only_files_with_other_bytes_are_replaced(self, store: SnapshotStore, tree: Path) -> None:
        with _manifest_of(tree) as manifest:
            store.push(manifest, DirectoryBackend(str(tree)))
            kept = (tree / "dir" / "b").stat().st_ino
            before = _contents(tree)
            (tree / "a").write_bytes(b"other")
            (tree / "stranger").write_bytes(b"is none of the snapshot")
            store.fetch_files(manifest, TreeTarget(str(tree)))

        assert _contents(tree) == before | {"stranger": b"is none of the snapshot"}
        assert (tree / "dir" / "b").stat().st_ino == kept

    def test_permissions_and_directories_are_restored(self, store: SnapshotStore, tree: Path) -> None:
        store.put_object(digest(b"x"), b"x")
        store.put_object(digest(b""), b"")
        text = render(
            [
                Entry("D", "750", EMPTY, 0, "./"),
                Entry("D", "1777", EMPTY, 0, "./empty/"),
                Entry("D", "555", EMPTY, 0, "./locked/"),
                Entry("D", "0", EMPTY, 0, "./locked/none/"),
                Entry("F", "0", digest(b""), 0, "./locked/none/zero"),
                Entry("F", "4755", digest(b"x"), 1, "./locked/run"),
            ]
        )
        dest = tree.parent / "restored"
        with Manifest.from_bytes(snapshot_id(text), text) as manifest:
            store.fetch_files(manifest, TreeTarget(str(dest)))
            before = _inodes(dest)
            (dest / "empty").rmdir()
            (dest / "locked" / "run").chmod(0o644)
            store.fetch_files(manifest, TreeTarget(str(dest)))

        modes = {
            str(path.relative_to(dest)): path.stat().st_mode & 0o7777 for path in [dest, *dest.rglob("*")]
        }
        assert modes == {
            ".": 0o750, "empty": 0o1777, "locked": 0o555, "locked/none": 0, "locked/none/zero": 0,
            "locked/run": 0o4755,
        }  # fmt: skip
        assert _inodes(dest) == before

    def test_an_object_that_is_missing_or_corrupt_is_not_fetched(
        self, store: SnapshotStore, objects: Backend, tree: Path
    ) -> None:
        with _manifest_of(tree) as manifest:
            store.push(manifest, DirectoryBackend(str(tree)))
            objects.write(object_key(digest(b"a")), b"b")
            with pytest.raises(IntegrityError):
                store.fetch_files(manifest, TreeTarget(str(tree.parent / "fetched")))
            objects.delete(object_key(digest(b"a")))
            with pytest.raises(ObjectMissing):
                store.fetch_files(manifest, TreeTarget(str(tree.parent / "fetched")))

        assert not (tree.parent / "fetched" / "a").exists()

    @pytest.mark.parametrize(
        "path", ["./../outside", "/outside", "./dir/../../outside", "./dir/./a", "./", ".."]
    )
    def test_a_path_that_leads_out_of_the_tree_is_refused(
        self, store: SnapshotStore, tree: Path, path: str
    ) -> None:
        (tree.parent / "outside").write_bytes(b"x")
        text = render([Entry("F", "644", digest(b"x"), 1, path)])
        with Manifest.from_bytes(snapshot_id(text), text) as manifest:
            with pytest.raises(ManifestSyntaxError):
                store.push(manifest, DirectoryBackend(str(tree)))
            store.put_object(digest(b"x"), b"x")
            with pytest.raises(ManifestSyntaxError):
                store.fetch_files(manifest, TreeTarget(str(tree)))

        assert store.list_manifest_ids() == []


def _inodes(tree: Path) -> dict[str, int]:
    return {str(path.relative_to(tree)): path.stat().st_ino for path in tree.rglob("*") if path.is_file()}


def _manifest_of(tree: Path) -> Manifest:
    text = render(
        Entry("F", f"{(tree / path).stat().st_mode & 0o7777:o}", digest(data), len(data), f"./{path}")
        for path, data in _contents(tree).items()
    )
    return Manifest.from_bytes(snapshot_id(text), text)


def _contents(tree: Path) -> dict[str, bytes]:
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
