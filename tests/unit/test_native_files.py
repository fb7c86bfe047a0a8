"""The compiled extension for many files where something fails: nothing is left, and the code for one file decides."""

from __future__ import annotations

import gc
import os
import resource
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path

import pytest

from snapferry.stores.address import Key, object_key
from snapferry.stores.backends.directory import streams
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.native import extension, writing
from snapferry.stores.backends.directory.native.extension import FILES_AT_ONCE, MOST_NAMES
from snapferry.stores.backends.directory.paths import beneath
from snapferry.stores.backends.tree.writing import many
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.errors import StoreError, StoreFull, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.runtime.liveness import identity

COUNT = 40
LONG = 4096
BODIES = [b"%d " % number * 900 for number in range(COUNT)]
KEYS = sorted(object_key(digest(body)) for body in BODIES)
DATA = [b"%03d" % number * 1200 for number in range(COUNT)]
# What a store keeps open: the shard of the last upload, the directory above it, and one of their file system.
KEPT_OPEN = 3
ENTRIES = [
    TreeEntry(False, 0o640, digest(each), len(each), f"sub/{number:03}") for number, each in enumerate(DATA)
]


@pytest.fixture(params=["compiled", "uncompiled"])
def _either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "uncompiled":
        monkeypatch.setattr(extension, "_extension", None)


either = pytest.mark.usefixtures("_either")


@pytest.fixture
def store(tmp_path: Path) -> DirectoryBackend:
    backend = DirectoryBackend(str(tmp_path / "store"))
    backend.prepare()
    backend.directory.root()
    return backend


def descriptors() -> list[int]:
    # Errors, which refer to their frames, keep directories open.
    gc.collect()
    found = []
    for name in os.listdir("/proc/self/fd" if sys.platform.startswith("linux") else "/dev/fd"):
        # But for that of the listing itself.
        with suppress(OSError):
            os.fstat(int(name))
            found.append(int(name))
    return found


def limit_of(spare: int) -> int:
    """Return the limit that lets this process open *spare* more files."""
    used = descriptors()
    free = [number for number in range(max(used) + spare + 2) if number not in used]
    return free[spare]


def temporary(root: Path) -> list[Path]:
    return [path for path in root.rglob(".*") if path.name.startswith((".tmp-", ".snapferry-"))]


@contextmanager
def limited(kind: int, most: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def test_the_constants_are_those_of_the_python_code() -> None:
    compiled = extension.extension()
    if compiled is None:
        return
    for name in ("READ", "LOOK", "FOLDER"):
        assert getattr(compiled, name) == getattr(beneath, name)
    assert streams._CREATE == compiled.CREATE
    assert compiled.MOST_FILES >= FILES_AT_ONCE


def test_the_extension_checks_its_arguments_itself() -> None:
    compiled = extension.extension()
    if compiled is None:
        return
    for wrong in (
        lambda: compiled.read_many(0, ["a"], [], False),
        lambda: compiled.read_many(0, ["a"] * 65, [1] * 65, False),
        lambda: compiled.read_many(0, ["a"], [-1], False),
        lambda: compiled.read_many(0, ["a"], [compiled.MOST_BYTES + 1], True),
        lambda: compiled.lengths(0, ["a"] * 4097),
        lambda: compiled.create_many([0], ["a"], 0o755, ["a"], [], 0o644),
        lambda: compiled.create_many([-1], ["a"], 0o755, ["a"], [b""], 0o644),
        lambda: compiled.check_many(0, ["a"] * (MOST_NAMES + 1), [0] * (MOST_NAMES + 1)),
        lambda: compiled.check_many(0, ["a"], []),
        lambda: compiled.check_many(0, ["a"], [-1]),
        lambda: compiled.write_many([0], ["a"], [b""], [0o10000]),
        lambda: compiled.write_many([0, 0], ["a"], [b""], [0]),
        lambda: compiled.rename_many([0], ["a"], ["a", "b"], True),
    ):
        with pytest.raises(ValueError, match=r"number|lengths|at most"):
            wrong()
    for mistyped in (
        lambda: compiled.read_many(0, [b"a"], [1], False),  # type: ignore[list-item]
        lambda: compiled.read_many(0, ["a"], ["1"], False),  # type: ignore[list-item]
        lambda: compiled.lengths(0, [None]),  # type: ignore[list-item]
        lambda: compiled.lengths(0, 1),  # type: ignore[arg-type]
        lambda: compiled.write_many([0], ["a"], [bytearray()], [0]),  # type: ignore[list-item]
        lambda: compiled.create_many([0], ["a"], 0o755, ["a"], ["text"], 0o644),  # type: ignore[list-item]
    ):
        with pytest.raises(TypeError):
            mistyped()


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777], ids=oct)
def test_new_files_get_their_permissions_whatever_the_umask_and_the_directory(
    tmp_path: Path, umask: int
) -> None:
    """Only the first file of a run is asked what it got, so modes and directories come in runs and by turns."""
    compiled = extension.extension()
    if compiled is None:
        return
    modes = [
        0o644,
        0o644,
        0o600,
        0o644,
        0,
        0,
        0o4755,
        0o4755,
        0o755,
        0o2755,
        0o1777,
        0o777,
        0o777,
        0o666,
        0o666,
    ]
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
    # The mask of a default ACL takes the place of the umask. Where the file system has none, both are alike.
    with suppress(OSError):
        os.setxattr(folders[1], "system.posix_acl_default", _acl(group=5))
    opened = [os.open(folder, beneath.FOLDER) for folder in folders]
    before = os.umask(umask)
    try:
        for turn, at in enumerate((opened[:1], opened[1:], opened)):
            chosen = (at * len(modes))[: len(modes)]
            names = [f"{turn}-{number}" for number in range(len(modes))]
            assert compiled.write_many(chosen, names, [b"x"] * len(modes), modes) == len(modes)
            for descriptor, name, mode in zip(chosen, names, modes, strict=True):
                found = os.stat(folders[opened.index(descriptor)] / name)
                assert stat.S_IMODE(found.st_mode) == mode, oct(mode)
    finally:
        os.umask(before)
        for descriptor in opened:
            os.close(descriptor)


def _acl(*, group: int) -> bytes:
    """Return a default ACL with a named user, by which new files get the rights of *group* as their mask."""
    entries = [(0x01, 7, 2**32 - 1), (0x02, 7, 12345), (0x04, 5, 2**32 - 1), (0x10, group, 2**32 - 1)]
    entries += [(0x20, 0, 2**32 - 1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "a\0b", "x" * 256, "\ud800"])
def test_the_extension_takes_no_name_that_leads_elsewhere(tmp_path: Path, name: str) -> None:
    compiled = extension.extension()
    if compiled is None:
        return
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "old").write_bytes(b"old")
    root = os.open(tmp_path / "root", beneath.FOLDER)
    before = sorted(tmp_path.rglob("*"))
    try:
        assert compiled.check_many(root, [name], [0o644]) == bytes([compiled.UNKNOWN])
        assert compiled.write_many([root], [name], [b"x"], [0o600]) == 0
        assert compiled.create_many([root], ["a"], 0o755, [name], [b"x"], 0o644) == []
        assert compiled.rename_many([root], ["old"], [name], False) == 0
        assert compiled.rename_many([root], [name], ["new"], False) == 0
        assert sorted(tmp_path.rglob("*")) == before
        if name != "a/b":
            assert compiled.create_many([root], [f"a/{name}"], 0o755, ["new"], [b"x"], 0o644) == []
        assert sorted(tmp_path.rglob("*")) == before
    finally:
        os.close(root)


@either
@pytest.mark.parametrize("spare", [2, 3, 4, 5, 6, 7, 20])
def test_without_descriptors_what_was_begun_counts_and_nothing_else_is_left(
    store: DirectoryBackend, tmp_path: Path, spare: int
) -> None:
    before = len(descriptors())
    with limited(resource.RLIMIT_NOFILE, limit_of(spare)):
        uploads = store.upload_many(KEYS, DATA)
        read = store.fetch_many(KEYS, [LONG] * COUNT)
    assert len(uploads) < COUNT
    assert len(temporary(tmp_path)) == len(uploads)
    assert read == [None] * COUNT

    store.commit_all(uploads)

    assert temporary(tmp_path) == []
    assert len(descriptors()) <= before + KEPT_OPEN
    assert [store.size(key) for key in KEYS] == [len(DATA[0])] * len(uploads) + [None] * (
        COUNT - len(uploads)
    )


@either
def test_without_descriptors_no_key_is_absent(store: DirectoryBackend) -> None:
    store.write(KEYS[0], b"x")
    with (
        limited(resource.RLIMIT_NOFILE, limit_of(0)),
        pytest.raises(StoreError, match="open files"),
    ):
        store.sizes(KEYS)


@either
@pytest.mark.parametrize("at", [0, 1, 7, 8, 30])
def test_what_cannot_be_written_whole_leaves_nothing(
    store: DirectoryBackend, tmp_path: Path, at: int
) -> None:
    """The kernel takes the first bytes of a file, and then no more."""
    data = [*DATA[:at], bytes(65536), *DATA[at + 1 :]]
    before = len(descriptors())
    tree = TreeTarget(str(tmp_path / "tree"))
    tree.prepare([])

    with limited(resource.RLIMIT_FSIZE, 10_000):
        uploads = store.upload_many(KEYS, data)
        files = tree.upload_many(ENTRIES, data)

    assert len(uploads) == len(files) == at
    assert len(temporary(tmp_path)) == 2 * at
    for upload in [*uploads, *files]:
        upload.abort()
    assert temporary(tmp_path) == []
    assert len(descriptors()) <= before + KEPT_OPEN + 2  # the root of the tree, and a directory


@either
def test_a_full_disk_is_told_for_the_next_object(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            # Not root. The test above has the same end for another reason.
            return
    except FileNotFoundError:
        return
    try:
        store = DirectoryBackend(str(disk))
        tree = TreeTarget(str(disk))
        uploads = store.upload_many(KEYS, DATA)
        assert 0 < len(uploads) < COUNT
        with pytest.raises(StoreFull):
            store.upload(KEYS[-1], LONG).filled(DATA[-1])
        assert tree.upload_many(ENTRIES, DATA) == []
        assert len(temporary(disk)) == len(uploads)
        store.commit_all(uploads)
        assert temporary(disk) == []
        del store, tree, uploads
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@either
def test_a_temporary_name_that_is_taken_is_left_alone(
    store: DirectoryBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def names(prefix: str) -> Iterator[str]:
        yield from (f"{prefix}{identity()}-a{number}" for number in range(3))
        while True:
            yield f"{prefix}taken"

    monkeypatch.setattr(streams, "temporary_name", names(".tmp-").__next__)
    for module, prefix in ((writing, ".tmp-"), (many, ".snapferry-")):
        next_names = partial(islice, names(prefix))
        monkeypatch.setattr(module, "temporary_names", lambda count, of=next_names: list(of(count)))
    monkeypatch.setattr(
        "snapferry.stores.backends.tree.writing.upload.temporary_name", names(".snapferry-").__next__
    )
    places = [Key(f".objects/abc/def/012/{number}") for number in range(9)]
    taken = tmp_path / "store" / ".objects" / "abc" / "def" / "012" / ".tmp-taken"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"of another")
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / ".snapferry-taken").write_bytes(b"of another")

    uploads = store.upload_many(places, DATA[:9])
    files = TreeTarget(str(tmp_path / "tree")).upload_many(ENTRIES, DATA)

    assert 3 <= len(uploads) <= 6
    assert 3 <= len(files) <= 6
    for upload in [*uploads, *files]:
        upload.abort()
    assert [path.read_bytes() for path in temporary(tmp_path)] == [b"of another"] * 2


@either
def test_what_dead_writers_left_is_swept(store: DirectoryBackend) -> None:
    dead = identity().replace(f"-{os.getpid()}-", "-4194304-")
    root = Path(store.directory.path)
    for key in KEYS[:20]:
        folder = (root / key).parent
        folder.mkdir(parents=True)
        (folder / f".tmp-{dead}-1").write_bytes(b"x")
        (folder / ".tmp-0000-1-alive-1").write_bytes(b"x")

    uploads = store.upload_many(KEYS, DATA)

    assert len(uploads) == COUNT
    assert len(temporary(root)) == 20 + COUNT
    store.commit_all(uploads)
    assert {path.name for path in temporary(root)} == {".tmp-0000-1-alive-1"}


@either
@pytest.mark.parametrize("at", [0, 5, COUNT - 1])
def test_a_rename_that_fails_stops_no_other(store: DirectoryBackend, tmp_path: Path, at: int) -> None:
    uploads = store.upload_many(KEYS, DATA)
    (path,) = temporary((tmp_path / "store" / KEYS[at]).parent)
    path.unlink()
    before = len(descriptors())

    with pytest.raises(StoreUnavailable) as raised:
        store.commit_all(uploads)

    assert raised.value.subject == KEYS[at]
    for upload in uploads:
        upload.abort()
    assert len(descriptors()) == before - COUNT
    assert [store.size(key) is None for key in KEYS] == [number == at for number in range(COUNT)]


@either
def test_a_file_of_a_tree_that_cannot_be_renamed_stops_no_other(tmp_path: Path) -> None:
    tree = TreeTarget(str(tmp_path / "tree"))
    tree.prepare([])
    uploads = tree.upload_many(ENTRIES, DATA)
    (tmp_path / "tree" / ENTRIES[3].path).mkdir()
    (tmp_path / "tree" / ENTRIES[7].path / "full").mkdir(parents=True)

    with pytest.raises(StoreError) as raised:
        tree.commit_all(uploads)

    assert raised.value.subject == f"./{ENTRIES[7].path}"
    for number, entry in enumerate(ENTRIES):
        path = tmp_path / "tree" / entry.path
        assert path.is_dir() == (number == 7)
        assert number == 7 or (path.read_bytes(), path.stat().st_mode & 0o7777) == (DATA[number], 0o640)


@either
def test_a_directory_that_is_removed_meanwhile_is_made_again(store: DirectoryBackend, tmp_path: Path) -> None:
    close = [Key(f".objects/abc/def/{number:03x}/{number}") for number in range(20)]
    store.commit_all(store.upload_many(close[:10], DATA[:10]))
    for path in sorted((tmp_path / "store").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    store.commit_all(store.upload_many(close[10:], DATA[10:20]))

    assert store.sizes(close) == [None] * 10 + [len(DATA[0])] * 10


@either
def test_a_shard_on_another_file_system_is_flushed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = tmp_path / "store" / ".objects" / "abc"
    shard.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(shard)]
    try:
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            # Not root.
            return
    except FileNotFoundError:
        return
    synced: list[int] = []
    monkeypatch.setattr(
        "snapferry.stores.backends.directory.paths.root.sync_file_system",
        lambda descriptor: synced.append(os.fstat(descriptor).st_dev),
    )
    try:
        store = DirectoryBackend(str(tmp_path / "store"))
        places = [Key(f".objects/{name}/def/012/{number}") for name in ("abb", "abc") for number in range(4)]
        store.commit_all(store.upload_many(places, DATA[:8]))
        assert {(tmp_path / "store").stat().st_dev, shard.stat().st_dev} <= set(synced)
        assert store.sizes(places) == [len(DATA[0])] * 8
        del store
    finally:
        subprocess.run(["umount", "-l", shard], check=True)


class Stop(BaseException):
    """What the owner of some work raises to end it."""


@either
@pytest.mark.parametrize("checks", [1, 2])
def test_a_stop_is_noticed_within_the_files_of_one_call(
    store: DirectoryBackend, tmp_path: Path, checks: int
) -> None:
    left = checks
    most = 0

    def check() -> None:
        nonlocal left, most
        left -= 1
        most = max(most, len(temporary(tmp_path)))
        if left <= 0:
            raise Stop

    before = len(descriptors())
    with pytest.raises(Stop), interruptible(check):
        store.upload_many(KEYS, DATA)

    assert most == FILES_AT_ONCE * (checks - 1)
    assert temporary(tmp_path) == []
    assert len(descriptors()) <= before + KEPT_OPEN
    with pytest.raises(Stop), interruptible(check):
        store.fetch_many(KEYS, [LONG] * COUNT)


def test_any_sequence_will_do(store: DirectoryBackend) -> None:
    keys: Sequence[Key] = tuple(KEYS)
    uploads = tuple(store.upload_many(keys, tuple(DATA)))
    store.commit_all(uploads)

    assert store.sizes(keys) == list(map(len, DATA))
    assert store.fetch_many(keys, (len(DATA[0]),) * COUNT) == DATA
