"""A tree stays beneath its root and whole, whatever a manifest lists and whatever is in its place."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.tree.writing import folders, folding, target, temporary
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.errors import (
    AccessDenied,
    ManifestSyntaxError,
    NotAnObject,
    ObjectMissing,
    StoreError,
    StoreFault,
    StoreFull,
)
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import Upload

EMPTY = digest(b"")
NOBODY = 65534


def file(path: str, data: bytes = b"x", mode: str = "644") -> Entry:
    return Entry("F", mode, digest(data), len(data), path)


def folder(path: str, mode: str = "755") -> Entry:
    return Entry("D", mode, EMPTY, 0, path)


def store_of(*contents: bytes) -> SnapshotStore:
    store = SnapshotStore(MemoryBackend())
    for data in contents:
        store.put_object(digest(data), data)
    return store


def fetch(store: SnapshotStore, entries: list[Entry], dest: TreeTarget) -> None:
    text = render(entries)
    with Manifest.from_bytes(snapshot_id(text), text) as manifest:
        store.fetch_files(manifest, dest)


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize(
    "entries",
    [
        [file("/etc/passwd")],
        [file("../outside")],
        [file("./../outside")],
        [file("./a/../../outside")],
        [file("./a/./b")],
        [file("./a//b")],
        [file("./")],
        [file(".")],
        [file("outside")],
        [file("./a/")],
        [file("./nul\0")],
        [folder("./a")],
        [folder("./../a/")],
        [folder(".//")],
        [file("./a"), file("./a")],
        [folder("./a/"), folder("./a/")],
        [file("./a"), folder("./a/")],
        [file("./a"), file("./a/b")],
        [file("./a"), file("./a-b"), file("./a.b"), file("./a/b")],
        [file("./a"), file("./a/b/c")],
        [file("./" + "n" * 256)],
        [file("./" + "\u00e9" * 128)],
        [file("./" + "a/" * 1_000_000 + "b")],
        [file("./a", mode="10644")],
        [file("./a", mode="888")],
        [file("./a", mode="-1")],
        [file("./a", mode="rwx")],
        [folder("./a/", mode="77777")],
    ],
)
def test_a_manifest_that_no_tree_can_be_made_of_writes_nothing(entries: list[Entry], tmp_path: Path) -> None:
    good = [file("./!first"), file("./~last")]
    with pytest.raises(ManifestSyntaxError) as caught:
        fetch(store_of(b"x"), [*good, *entries], TreeTarget(str(tmp_path / "tree")))

    assert len(str(caught.value).splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_names_that_look_alike_are_different_files(tmp_path: Path) -> None:
    paths = [
        "./a",
        "./A",
        "./a-b",
        "./a.b/c",
        "./\u00e9",
        "./e\u0301",
        "./ ",
        "./\\",
        "./-rf",
        "./" + "n" * 255,
    ]
    fetch(store_of(b"x"), [file(path) for path in paths], TreeTarget(str(tmp_path / "tree")))

    assert names(tmp_path / "tree") == {path[2:] for path in paths} | {"a.b"}


@pytest.mark.parametrize(
    ("fold", "paths", "told"),
    [
        (str.casefold, ["./dir/Read", "./dir/read"], "./dir/Read"),
        (str.casefold, ["./A/x", "./a/y"], "./A"),
        (lambda text: unicodedata.normalize("NFD", text), ["./\u00e9", "./e\u0301"], "./e\u0301"),
    ],
)
def test_names_that_the_file_system_takes_for_one_are_refused(
    fold: Callable[[str], str], paths: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "folding_of", lambda _: fold)
    with pytest.raises(StoreFault) as caught:
        fetch(store_of(b"x"), [file(path) for path in paths], TreeTarget(str(tmp_path / "tree")))

    assert caught.value.subject == told
    assert names(tmp_path / "tree") == set()


def test_a_file_system_that_keeps_all_names_apart_is_found(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    try:
        assert folding.folding_of(at) is None
    finally:
        os.close(at)
    assert os.listdir(tmp_path) == []


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    outside = tmp_path / "outside"
    (outside / "sub").mkdir(parents=True)
    (outside / "file").write_bytes(b"outside")
    (outside / "file").chmod(0o640)
    return outside


@pytest.mark.parametrize("delete", [False, True])
def test_links_in_the_tree_are_replaced_and_never_followed(
    delete: bool, outside: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "dir").symlink_to(outside)
    (tree / "deep").mkdir()
    (tree / "deep" / "sub").symlink_to("../../outside/sub")
    (tree / "file").symlink_to(outside / "file")
    (tree / "stranger").symlink_to(outside)
    entries = [
        file("./dir/file"),
        file("./dir/sub/x"),
        file("./deep/sub/x"),
        file("./file"),
        folder("./dir/"),
    ]
    fetch(store_of(b"x"), entries, TreeTarget(str(tree), delete=delete))

    assert names(outside) == {"file", "sub"}
    assert (outside / "file").read_bytes() == b"outside"
    assert (outside / "file").stat().st_mode & 0o777 == 0o640
    kept = set() if delete else {"stranger"}
    assert (
        names(tree)
        == {"dir", "dir/file", "dir/sub", "dir/sub/x", "deep", "deep/sub", "deep/sub/x", "file"} | kept
    )
    assert [path for path in tree.rglob("*") if path.is_symlink()] == [tree / name for name in kept]


def test_a_hard_link_to_a_file_outside_is_replaced_and_not_changed(outside: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    os.link(outside / "file", tmp_path / "tree" / "file")
    fetch(store_of(b"outside"), [file("./file", b"outside", "777")], TreeTarget(str(tmp_path / "tree")))

    assert (outside / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "tree" / "file").stat().st_mode & 0o777 == 0o777


def test_a_directory_with_files_gives_way_to_a_file_only_on_request(outside: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "a" / "deep").mkdir(parents=True)
    (tree / "a" / "deep" / "link").symlink_to(outside)
    (tree / "b").mkdir()
    entries = [file("./a"), file("./b")]
    with pytest.raises(NotAnObject):
        fetch(store_of(b"x"), entries, TreeTarget(str(tree)))
    assert names(tree) >= {"a", "a/deep", "a/deep/link", "b"}
    assert not any(map(temporary.is_temporary, os.listdir(tree)))

    fetch(store_of(b"x"), entries, TreeTarget(str(tree), delete=True))
    assert names(tree) == {"a", "b"}
    assert (tree / "a").read_bytes() == (tree / "b").read_bytes() == b"x"
    assert names(outside) == {"file", "sub"}


def test_a_file_gives_way_to_a_directory_only_on_request(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"data")
    with pytest.raises(NotAnObject):
        fetch(store_of(b"x"), [file("./a/b")], TreeTarget(str(tree)))
    assert (tree / "a").read_bytes() == b"data"

    fetch(store_of(b"x"), [file("./a/b")], TreeTarget(str(tree), delete=True))
    assert names(tree) == {"a", "a/b"}


@pytest.mark.parametrize("entries", [[file("./a")], [file("./b")]], ids=["in the way", "surplus"])
def test_a_mount_in_the_way_is_named_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entries: list[Entry]
) -> None:
    (tree := tmp_path / "tree").mkdir()
    (tree / "a").mkdir()
    remove = os.rmdir

    def mounted(name: str, **options: Any) -> None:
        if name == "a":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        remove(name, **options)

    monkeypatch.setattr(os, "rmdir", mounted)
    with pytest.raises(StoreFault, match="a file system is mounted here") as caught:
        fetch(store_of(b"x"), entries, TreeTarget(str(tree), delete=True))

    assert not caught.value.transient
    assert caught.value.subject == "./a"
    assert (tree / "a").is_dir()
    assert not any(map(temporary.is_temporary, os.listdir(tree)))


def test_nothing_is_deleted_before_everything_is_there(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "stranger").write_bytes(b"kept")
    with pytest.raises(ObjectMissing):
        fetch(store_of(b"x"), [file("./a"), file("./b", b"missing")], TreeTarget(str(tree), delete=True))

    assert "stranger" in names(tree)


def test_very_deep_directories_are_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    at = os.open(tree, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)
    fetch(store_of(b"x"), [file("./deep")], TreeTarget(str(tree), delete=True))

    assert names(tree) == {"deep"}


def test_temporary_files_of_dead_writers_are_removed_and_others_stay(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    process = os.fork()
    if process == 0:
        (tree / "dir" / temporary.temporary_name()).write_bytes(b"half")
        os._exit(0)
    os.waitpid(process, 0)
    dead = os.listdir(tree / "dir")
    mine = temporary.temporary_name()
    for name in (mine, ".tmp-mine", ".snapferry-notes.tmp"):
        (tree / "dir" / name).write_bytes(b"kept")
    assert len(dead) == 1
    # A snapshot of a tree in which a pull died has such a file.
    listed = dead[0].replace(".tmp", "0.tmp")
    fetch(store_of(b"x"), [file("./dir/a"), file(f"./dir/{listed}")], TreeTarget(str(tree)))

    assert temporary.is_temporary(listed)
    assert set(os.listdir(tree / "dir")) == {"a", listed, mine, ".tmp-mine", ".snapferry-notes.tmp"}


def test_temporary_files_of_a_stopped_writer_are_removed(tmp_path: Path) -> None:
    """It lost its batch to another worker, and may be killed before it goes on."""
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    process = os.fork()
    if process == 0:
        (tree / "dir" / temporary.temporary_name()).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.waitpid(process, os.WUNTRACED)
        assert len(os.listdir(tree / "dir")) == 1
        fetch(store_of(b"x"), [file("./dir/a")], TreeTarget(str(tree)))
        assert os.listdir(tree / "dir") == ["a"]
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def test_temporary_files_of_a_silent_writer_on_another_machine_are_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "dir").mkdir(parents=True)
    for number in range(2):
        (tree / "dir" / f".snapferry-0f.1-7-0123456789ab-{number}.tmp").write_bytes(b"half")
    os.utime(tree / "dir" / ".snapferry-0f.1-7-0123456789ab-0.tmp", (1, 1))

    fetch(store_of(b"x"), [file("./dir/a")], TreeTarget(str(tree)))

    assert sorted(os.listdir(tree / "dir")) == [".snapferry-0f.1-7-0123456789ab-1.tmp", "a"]


def test_a_root_that_is_no_directory_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "tree").write_bytes(b"a file")
    for path in (tmp_path / "tree", tmp_path / "tree" / "below"):
        with pytest.raises(StoreError):
            fetch(store_of(b"x"), [file("./a")], TreeTarget(str(path)))

    assert (tmp_path / "tree").read_bytes() == b"a file"


class FullUpload(Upload):
    """An upload for which there is no room at the end."""

    def __init__(self, inner: Upload) -> None:
        self._inner = inner

    def write(self, chunk: bytes) -> None:
        self._inner.write(chunk[:1])
        raise StoreFull("", "", "no space")

    def commit(self) -> None:
        self._inner.commit()

    def abort(self) -> None:
        self._inner.abort()


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = TreeTarget(str(tmp_path / "tree"))
    real = tree.upload
    monkeypatch.setattr(tree, "upload", lambda wanted: FullUpload(real(wanted)))
    with pytest.raises(StoreFull):
        fetch(store_of(b"x"), [file("./a")], tree)

    assert names(tmp_path / "tree") == set()


def test_a_linked_tree_shares_blocks_or_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SnapshotStore(DirectoryBackend(str(tmp_path / "store")))
    store.put_object(digest(b"x"), b"x")
    for each in (store, store_of(b"x")):
        with pytest.raises(StoreFault):
            fetch(each, [file("./a")], TreeTarget(str(tmp_path / "tree"), linked=True))
        assert names(tmp_path / "tree") == set()

    def clone(descriptor: int, request: int, source: int) -> None:
        os.write(descriptor, os.pread(source, 100, 0))
        os.lseek(descriptor, 0, os.SEEK_SET)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    fetch(store, [file("./a")], TreeTarget(str(tmp_path / "tree"), linked=True))
    assert (tmp_path / "tree" / "a").read_bytes() == b"x"


def _as_another_user(work: Path, do: Callable[[], None]) -> None:
    """Run *do* in a process of another user, who owns the new directory *work*."""
    for each in [work, *work.parents]:
        if each.stat().st_uid == 0 and str(each).startswith("/tmp/"):
            each.chmod(each.stat().st_mode | 0o055)
    os.chown(work, NOBODY, NOBODY)
    process = os.fork()
    if process == 0:
        try:
            # Another user may be unable to import what this needs.
            temporary.temporary_name()
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            do()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    assert os.waitpid(process, 0)[1] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_writes_again_what_its_permissions_forbid(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def twice() -> None:
        entries = [
            folder("./", "555"),
            folder("./none/", "0"),
            file("./none/x", b"x", "0"),
            folder("./none/deep/", "111"),
            file("./none/deep/y", b"y", "200"),
        ]
        store, dest = store_of(b"x", b"y", b"z"), work / "tree"
        fetch(store, entries, TreeTarget(str(dest)))
        fetch(store_of(), entries, TreeTarget(str(dest)))
        entries[4] = file("./none/deep/y", b"z", "400")
        # Both are in a directory that its owner may not write to.
        dest.chmod(0o755)
        (dest / "stranger" / "deep").mkdir(parents=True)
        (dest / "another").write_bytes(b"z")
        dest.chmod(0o555)
        fetch(store, entries, TreeTarget(str(dest), delete=True))
        assert os.listdir(dest) == ["none"]
        assert dest.stat().st_mode & 0o777 == 0o555
        assert (dest / "none").stat().st_mode & 0o777 == 0
        with pytest.raises(AccessDenied):
            fetch(store, [file("./a")], TreeTarget("/etc/tree"))

    _as_another_user(work, twice)
    assert (work / "tree" / "none" / "deep" / "y").read_bytes() == b"z"
    assert (work / "tree" / "none" / "deep" / "y").stat().st_mode & 0o7777 == 0o400


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_user_has_files_below_a_directory_that_nobody_may_look_into(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def twice() -> None:
        entries = [folder("./"), folder("./none/", "0"), file("./none/x", b"x")]
        dest = work / "tree"
        fetch(store_of(b"x"), entries, TreeTarget(str(dest)))
        fetch(store_of(), entries, TreeTarget(str(dest)))
        # What only looks changes nothing.
        found = TreeTarget(str(dest), look_only=True)
        assert not found.is_right(TreeEntry(False, 0o644, digest(b"x"), 1, "none/x"))
        assert (dest / "none").stat().st_mode & 0o777 == 0

    _as_another_user(work, twice)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("links", [True, False])
def test_a_user_writes_again_to_a_tree_that_nobody_may_look_into(tmp_path: Path, links: bool) -> None:
    work = tmp_path / "work"
    work.mkdir()

    def twice() -> None:
        dest = work / "tree"
        for data in (b"x", b"y"):
            fetch(store_of(data), [folder("./", "0"), file("./x", data)], TreeTarget(str(dest), links=links))
        assert dest.stat().st_mode & 0o777 == 0

    _as_another_user(work, twice)
    assert (work / "tree" / "x").read_bytes() == b"y"


def test_a_directory_stays_open_while_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads may open so many directories that it is kept by nobody else."""
    monkeypatch.setattr(folders, "_KEPT", 0)
    contents = [b"%d" % number for number in range(3)]

    fetch(
        store_of(*contents),
        [folder("./"), folder("./a/"), *(file(f"./a/{data.decode()}", data) for data in contents)],
        TreeTarget(str(tmp_path / "tree"), delete=True),
    )

    assert sorted(path.read_bytes() for path in (tmp_path / "tree" / "a").iterdir()) == contents
