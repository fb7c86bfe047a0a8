"""The directory backend where the system misbehaves, and where two writers meet."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.address import manifest_key, object_key
from snapferry.stores.backends.directory import streams
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.paths.root import PAUSED_AFTER_S, STALE_AFTER_S
from snapferry.stores.backends.directory.streams import BEGUN_BYTES, FileUpload
from snapferry.stores.backends.directory.sync import begin_writing
from snapferry.stores.errors import (
    AccessDenied,
    StoreError,
    StoreFault,
    StoreNotFound,
    StoreUnavailable,
    Unreadable,
)
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.opening import open_store
from snapferry.stores.runtime.liveness import identity
from snapferry.stores.snapshot_store import SnapshotStore
from tests.sample import fill

REPOSITORY = Path(__file__).parents[2]

KEY = object_key(digest(b"object"))
MACHINE, PROCESS, _ = identity().split("-")


def temporary_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.name.startswith(".tmp-"))


def leave_behind(root: Path, name: str, *, age_s: float = 0.0) -> Path:
    """File something beside where `KEY` belongs, last written *age_s* seconds ago."""
    path = (root / KEY).parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half of it")
    modified = path.stat().st_mtime - age_s
    os.utime(path, (modified, modified))
    return path


# Beginning with the disk's work early.


Begun = list[tuple[int, int]]


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """Where the disk was to begin early: offset and length."""
    found: Begun = []

    def begin(descriptor: int, offset: int, length: int) -> None:
        found.append((offset, length))
        begin_writing(descriptor, offset, length)

    monkeypatch.setattr(streams, "begin_writing", begin)
    return found


@pytest.mark.parametrize("length", [CHUNK_BYTES, BEGUN_BYTES, BEGUN_BYTES + 1, 3 * BEGUN_BYTES + 17])
def test_the_disk_begins_early_with_all_of_a_large_object(tmp_path: Path, length: int, begun: Begun) -> None:
    data = os.urandom(length)
    source, destination = (
        SnapshotStore(DirectoryBackend(str(tmp_path / name))) for name in ("here", "there")
    )
    source.put_object(digest(data), data)
    begun.clear()

    destination.copy_object(source, digest(data), size_hint=length)

    assert destination.get_object(digest(data)) == data
    assert len(begun) == -(-length // BEGUN_BYTES)
    assert [offset for offset, _ in begun] == [
        sum(size for _, size in begun[:at]) for at in range(len(begun))
    ]
    assert sum(size for _, size in begun) == length


def test_the_disk_begins_early_with_what_comes_from_elsewhere(tmp_path: Path, begun: Begun) -> None:
    """The rest is left to the sync, which there is no time to come before."""
    with DirectoryBackend(str(tmp_path)).upload(KEY, 0) as upload:
        for _ in range(9):
            upload.write(bytes(BEGUN_BYTES // 4))
        upload.commit()

    assert begun == [(0, BEGUN_BYTES), (BEGUN_BYTES, BEGUN_BYTES)]


def test_small_objects_are_left_to_the_sync_of_their_group(tmp_path: Path, begun: Begun) -> None:
    DirectoryBackend(str(tmp_path)).write(KEY, bytes(4096))

    assert begun == []


def test_beginning_early_is_a_hint_that_nothing_depends_on(tmp_path: Path) -> None:
    """A descriptor that is none, and a pipe, of which nothing can be written to a disk."""
    read, write = os.pipe()
    for descriptor in (read, write, 10**6):
        begin_writing(descriptor, 0, 4096)
    os.close(read)
    os.close(write)


# Reading.


def giving(at_once: Callable[[int], int]) -> Callable[[int, int], bytes]:
    """Return an os.read that gives no more than *at_once* says of what it is asked for."""
    read = os.read

    def gives_less(descriptor: int, size: int) -> bytes:
        return read(descriptor, min(size, at_once(size)))

    return gives_less


@pytest.mark.parametrize("at_once", [lambda _: 1, lambda _: 7, lambda size: max(1, size - 1)])
def test_a_read_is_whole_though_the_system_gives_less_at_once(
    file_root: Path, monkeypatch: pytest.MonkeyPatch, at_once: Callable[[int], int]
) -> None:
    """As network and user-space file systems do; a read that is short says that the file has ended."""
    data = bytes(range(100))
    backend = DirectoryBackend(str(file_root))
    backend.write(KEY, data)
    monkeypatch.setattr(os, "read", giving(at_once))

    with backend.open(KEY) as reader:
        assert [reader.read(size) for size in (1, 30, 40)] == [data[:1], data[1:31], data[31:71]]
        assert reader.read(1000) == data[71:]
        assert reader.read(1000) == b""
    with backend.open(KEY) as reader:
        assert reader.read(len(data)) == data


def test_an_object_is_copied_whole_though_the_system_gives_less_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytes(range(256)) * 2100
    assert len(data) > 2 * CHUNK_BYTES
    address = digest(data)
    source, destination = (SnapshotStore(DirectoryBackend(str(tmp_path / name))) for name in ("a", "b"))
    source.put_object(address, data)
    monkeypatch.setattr(os, "read", giving(lambda size: size // 3 + 1))

    for size_hint in (0, 1, len(data), 2**40):
        destination.objects.delete(object_key(address))
        assert destination.copy_object(source, address, size_hint=size_hint) == len(data)
        assert destination.get_object(address) == data


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EIO, Unreadable),
        (errno.ESTALE, StoreUnavailable),
        (errno.EACCES, AccessDenied),
        (errno.EISDIR, StoreFault),
    ],
)
@pytest.mark.parametrize("after", [0, 1])
def test_trouble_while_reading_is_an_error_of_the_store(
    file_root: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StoreError], after: int
) -> None:
    """Also in the middle of one read, of which the first part came."""
    backend = DirectoryBackend(str(file_root))
    backend.write(KEY, b"object")
    read = os.read
    calls = 0

    def fails(descriptor: int, size: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(number, "trouble")
        return read(descriptor, 2)

    with backend.open(KEY) as reader:
        monkeypatch.setattr(os, "read", fails)
        with pytest.raises(StoreError) as raised:
            reader.read(6)
        monkeypatch.undo()

    assert type(raised.value) is expected
    assert (raised.value.store, raised.value.subject) == (f"file://{file_root}", KEY)
    assert calls == after + 1


def test_a_directory_in_the_place_of_an_object_is_a_fault(file_root: Path) -> None:
    (file_root / KEY).mkdir(parents=True)
    backend = DirectoryBackend(str(file_root))

    with pytest.raises(StoreFault), backend.open(KEY) as reader:
        reader.read(1)
    with pytest.raises(StoreFault):
        backend.size(KEY)


# The root.


def test_a_root_that_is_a_file_is_no_missing_mount(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    backend = DirectoryBackend(str(tmp_path / "file"), create=False)

    for ask in (lambda: backend.size(KEY), lambda: backend.sizes([KEY])):
        with pytest.raises(StoreNotFound, match="/file is not a directory"):
            ask()


def test_without_create_a_write_makes_no_root_and_asks_for_the_mount(tmp_path: Path) -> None:
    backend = DirectoryBackend(str(tmp_path / "mount"), create=False)

    for write in (lambda: backend.write(KEY, b"object"), lambda: backend.upload(KEY, 6)):
        with pytest.raises(StoreNotFound, match=r"there is no such directory; is it mounted here\?"):
            write()
    # Nor is anything absent there: a mount that is away says nothing of what it holds.
    for ask in (lambda: backend.size(KEY), lambda: backend.sizes([KEY])):
        with pytest.raises(StoreNotFound, match=r"is it mounted here\?"):
            ask()
    with pytest.raises(StoreNotFound, match=r"is it mounted here\?"):
        backend.check(for_writing=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_preparing_makes_the_root_and_may_be_done_again(tmp_path: Path, create: bool) -> None:
    backend = DirectoryBackend(str(tmp_path / "a" / "b"), create=create)

    backend.prepare()
    backend.prepare()
    backend.write(KEY, b"object")
    backend.prepare()

    assert (tmp_path / "a" / "b" / KEY).read_bytes() == b"object"


def test_a_root_that_is_mounted_later_is_found(tmp_path: Path) -> None:
    backend = DirectoryBackend(str(tmp_path / "mount"), create=False)
    with pytest.raises(StoreNotFound):
        backend.write(KEY, b"object")

    (tmp_path / "mount").mkdir()

    backend.write(KEY, b"object")
    assert backend.size(KEY) == 6


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_root_that_cannot_be_made_is_a_fault_and_what_is_in_its_way_stays(
    tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    backend = DirectoryBackend(str(tmp_path / place))

    with pytest.raises(StoreFault):
        backend.prepare()
    with pytest.raises(StoreFault):
        backend.write(KEY, b"object")

    assert (tmp_path / "file").read_bytes() == b"in the way"


# Temporary files.


def test_writers_in_many_processes_never_take_each_others_temporary_file(file_root: Path) -> None:
    """All of them are in the middle of one key at the same time, and count from nothing."""
    parts = 4
    code = (
        "import sys, itertools; from snapferry.stores.backends.directory import backend as file, streams\n"
        "streams._numbers = itertools.count()\n"
        "upload = file.DirectoryBackend(sys.argv[1]).upload(sys.argv[2], 6); upload.write(b'object')\n"
        "print(upload._temporary, flush=True); sys.stdin.readline(); upload.commit()\n"
    )
    command = [sys.executable, "-c", code, str(file_root), KEY]
    writers = [
        subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(parts)
    ]
    names = {writer.stdout.readline() for writer in writers if writer.stdout}
    there = temporary_files(file_root)

    for writer in writers:
        writer.communicate("go on\n")

    assert len(names) == len(there) == parts
    assert [writer.returncode for writer in writers] == [0] * parts
    assert (file_root / KEY).read_bytes() == b"object"
    assert temporary_files(file_root) == []


def test_a_forked_child_writes_to_another_temporary_file_than_its_parent(file_root: Path) -> None:
    """Both have the same count and, in two containers, might have the same number: the token is not the same."""
    backend = DirectoryBackend(str(file_root))
    backend.prepare()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, backend.upload(KEY, 6)._temporary.encode())  # type: ignore[attr-defined]
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="ascii") as pipe:
        childs = pipe.read()
    os.waitpid(child, 0)

    with backend.upload(KEY, 6) as upload:
        assert isinstance(upload, FileUpload)
        own = upload._temporary
        assert childs.rpartition("-")[2] == own.rpartition("-")[2]
        assert childs.split("-")[-2] != own.split("-")[-2]
        # The child left it behind and is dead: the parent's upload swept it.
        assert [path.name for path in temporary_files(file_root)] == [own]


def test_what_dead_writers_left_behind_is_swept_by_the_next_one(file_root: Path) -> None:
    """One of them had this very process's number, as the first process of a container always has."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    leave_behind(file_root, f".tmp-{MACHINE}-{PROCESS}-0123456789ab-0")
    leave_behind(file_root, f".tmp-{MACHINE}-{ended.pid}-0123456789ab-7")
    leave_behind(file_root, ".tmp-another-1-0123456789ab-0", age_s=STALE_AFTER_S + 60)
    leave_behind(file_root, ".tmp-of-an-older-version-9", age_s=STALE_AFTER_S + 60)

    DirectoryBackend(str(file_root)).write(KEY, b"object")

    assert temporary_files(file_root) == []
    assert (file_root / KEY).read_bytes() == b"object"


def test_what_may_still_be_written_is_not_swept_and_neither_is_a_stranger(file_root: Path) -> None:
    kept = [
        leave_behind(file_root, f".tmp-{identity()}-1000000", age_s=60),
        leave_behind(file_root, f".tmp-{MACHINE}-{os.getppid()}-0123456789ab-0", age_s=60),
        leave_behind(file_root, ".tmp-another-1-0123456789ab-0", age_s=STALE_AFTER_S - 600),
        leave_behind(file_root, f".tmp-{MACHINE}-{'9' * 30}-0123456789ab-0"),
        leave_behind(file_root, f".tmp-{MACHINE}-\u00b2-0123456789ab-0"),
        leave_behind(file_root, ".tmp-"),
        leave_behind(file_root, "stranger", age_s=2 * STALE_AFTER_S),
    ]

    DirectoryBackend(str(file_root)).write(KEY, b"object")

    assert [path.name for path in kept if not path.exists()] == []


@pytest.mark.parametrize("dead_only", [False, True])
def test_a_run_that_takes_over_a_batch_removes_the_files_of_dead_and_paused_writers(
    file_root: Path, dead_only: bool
) -> None:
    """A paused writer that is killed later would leave them for ever: nobody writes in that directory again."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with subprocess.Popen(["sleep", "600"]) as paused, subprocess.Popen(["sleep", "600"]) as working:
        paused.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, paused.pid, os.WSTOPPED)
        gone = [leave_behind(file_root, f".tmp-{MACHINE}-{ended.pid}-0123456789ab-7")]
        of_paused = [
            leave_behind(file_root, f".tmp-{MACHINE}-{paused.pid}-0123456789ab-0"),
            leave_behind(file_root, ".tmp-another-1-0123456789ab-0", age_s=PAUSED_AFTER_S + 60),
        ]
        kept = [
            leave_behind(file_root, f".tmp-{identity()}-1000000", age_s=60),
            leave_behind(file_root, f".tmp-{MACHINE}-{working.pid}-0123456789ab-0", age_s=3600),
            leave_behind(file_root, ".tmp-another-1-0123456789ab-1"),
            leave_behind(file_root, "stranger"),
        ]

        for _ in range(2):
            DirectoryBackend(str(file_root)).abort_unfinished(KEY, 10, dead_only=dead_only)

        paused.kill()
        working.kill()
    assert [path for path in gone if path.exists()] == []
    assert [path for path in of_paused if path.exists()] == (of_paused if dead_only else [])
    assert [path for path in kept if not path.exists()] == []


def test_nothing_is_unfinished_where_there_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root in ("nowhere", "file"):
        DirectoryBackend(str(tmp_path / root)).abort_unfinished(KEY, 10)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_temporary_file_that_something_removes_is_trouble_that_passes(file_root: Path) -> None:
    """A sweeper that takes a living writer for dead, say: the object is not there, and can be copied again."""
    backend = DirectoryBackend(str(file_root))
    with backend.upload(KEY, 6) as upload:
        upload.write(b"object")
        (temporary,) = temporary_files(file_root)
        temporary.unlink()

        with pytest.raises(StoreUnavailable, match="its temporary file is gone"):
            upload.commit()

    assert backend.size(KEY) is None
    backend.write(KEY, b"object")
    assert backend.size(KEY) == 6


def test_many_uploads_of_one_process_have_as_many_temporary_files(file_root: Path) -> None:
    first, second = DirectoryBackend(str(file_root)), DirectoryBackend(str(file_root))
    uploads: list[Any] = [backend.upload(KEY, 6) for backend in (first, second) for _ in range(20)]

    assert len(temporary_files(file_root)) == len({upload._temporary for upload in uploads}) == 40

    for upload in uploads:
        upload.abort()
    assert temporary_files(file_root) == []


DELETES = """
import sys
from snapferry.stores.errors import AccessDenied
from snapferry.stores.opening import open_store
try:
    open_store(sys.argv[1]).delete_manifest(sys.argv[2])
except AccessDenied as error:
    print(error)
"""


def test_a_manifest_in_a_directory_without_permission_is_not_deleted_and_the_error_says_so(
    tmp_path: Path,
) -> None:
    snapshot = fill(open_store(str(tmp_path)), {"./a": b"a"})
    folder = (tmp_path / manifest_key(snapshot)).parent
    # Root without its capabilities is an owner like any other: permissions bind it.
    plain = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []

    folder.chmod(0o555)
    try:
        ended = subprocess.run(
            [*plain, sys.executable, "-c", DELETES, str(tmp_path), snapshot],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        folder.chmod(0o755)

    assert ended.stdout == (
        f"file://{tmp_path}: {snapshot}: the manifest may not be deleted, and stays: Permission denied\n"
    )
    assert open_store(str(tmp_path)).list_manifest_ids() == [snapshot]


def test_what_is_written_goes_to_the_directory_that_was_found_mounted(tmp_path: Path) -> None:
    """Where a mount goes away, an empty directory has its path."""
    path, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    DirectoryBackend(str(path)).write(".objects/one", b"1")
    backend = DirectoryBackend(str(path))
    assert backend.holds(".objects/")

    path.rename(elsewhere)
    path.mkdir()
    backend.write(".objects/two", b"2")

    assert {file.name for file in (elsewhere / ".objects").iterdir()} == {"one", "two"}
    assert not any(path.iterdir())
    assert not DirectoryBackend(str(path)).holds(".objects/")
