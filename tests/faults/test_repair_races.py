"""
Two repairs of one store at the same time, and a writer beside a repair.

At every call that looks at the store or changes it, another program does all of its work in between. Whatever it does,
nothing right gets into quarantine, nothing wrong is lost, and the right bytes are there in the end.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from snapferry.stores.address import QUARANTINE, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.directory.paths import versions
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.objects import multipart
from snapferry.stores.errors import StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import Replaced
from snapferry.stores.urls import parse_url
from tests.opening import open_backend
from tests.servers import S3Server

from .backends import Around

DATA = b"the right bytes"
WRONG = b"the wrong bytes"
ADDRESS = digest(DATA)
KEY = object_key(ADDRESS)

CALLS = ("stat", "fstat", "lseek", "read", "open", "link", "rename", "mkdir", "fsync")


def source() -> SnapshotStore:
    store = SnapshotStore(MemoryBackend("source"))
    store.put_object(ADDRESS, DATA)
    return store


class Interposed:
    """Does *work* once, before the call with the number *point*."""

    def __init__(self, point: int, work: Callable[[], object]) -> None:
        self.done = False
        self._left = point
        self._work = work

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def interposed(*arguments: Any, **options: Any) -> Any:
            if self._left == 0 and not self.done:
                self.done = True
                self._work()
            self._left -= 1
            return call(*arguments, **options)

        return interposed


def regular(path: Path) -> None:
    path.write_bytes(WRONG)


def link(path: Path) -> None:
    path.symlink_to("nowhere")


def folder(path: Path) -> None:
    path.mkdir()
    (path / "in it").write_bytes(WRONG)


def nothing(path: Path) -> None:
    """Leave nothing there."""


def kept(root: Path) -> Iterator[Path]:
    for path in root.glob(f"{QUARANTINE}/**/*"):
        if path.name.startswith(KEY.rpartition("/")[2]):
            yield path


def refuse(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "not permitted")


@pytest.mark.parametrize(
    ("other", "wrong", "links"),
    [
        *itertools.product(["repair"], [regular, link, folder, nothing], [True, False]),
        # A writer does not get past a directory. It takes no lock, so it must not come while a file is renamed.
        *itertools.product(["write"], [regular, link, nothing], [True]),
    ],
)
def test_in_a_directory_nothing_right_is_quarantined_whenever_another_program_replaces_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Callable[[Path], None], other: str, links: bool
) -> None:
    # A repair that finds the lock taken gives up, because the other one waits for it here.
    monkeypatch.setattr(versions, "WAIT_S", 0.0)
    endings = set()
    originals = {name: getattr(os, name) for name in CALLS}
    for point in itertools.count():
        root = tmp_path / str(point)
        (root / KEY).parent.mkdir(parents=True)
        wrong(root / KEY)
        before = os.lstat(root / KEY) if wrong is not nothing else None

        def another(root: Path = root) -> None:
            for name, call in originals.items():
                setattr(os, name, call)
            beside = SnapshotStore(DirectoryBackend(str(root)))
            with suppress(StoreUnavailable):
                if other == "repair":
                    beside.replace_object(source(), ADDRESS)
                else:
                    beside.put_object(ADDRESS, DATA)

        interposed = Interposed(point, another)
        with monkeypatch.context() as patched:
            if not links:
                originals["link"] = refuse
            for name, call in originals.items():
                patched.setattr(os, name, interposed.before(call))
            endings.add(_replaced(root).was_right)

        assert (root / KEY).read_bytes() == DATA
        (*found,) = kept(root)
        assert len(found) == (wrong is not nothing) or other == "write"
        for path in found:
            status = os.lstat(path)
            assert before is not None
            assert (status.st_ino, stat.S_IFMT(status.st_mode)) == (
                before.st_ino,
                stat.S_IFMT(before.st_mode),
            )
        if not interposed.done:
            break
    assert endings == {True, False}


def _replaced(root: Path) -> Replaced:
    """Repair, again where another program was faster each time."""
    store = SnapshotStore(DirectoryBackend(str(root)))
    return store.replace_object(source(), ADDRESS)


def test_a_file_that_is_rewritten_in_its_place_while_it_is_read_is_not_quarantined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).write_bytes(WRONG)
    read = os.read
    times = itertools.count()

    def rewritten(descriptor: int, size: int) -> bytes:
        data = read(descriptor, size)
        if data == WRONG and next(times) == 1:
            (tmp_path / KEY).write_bytes(DATA)
            os.utime(tmp_path / KEY, (1, 1))
        return data

    monkeypatch.setattr(os, "read", rewritten)
    replaced = _replaced(tmp_path)

    assert replaced == Replaced(len(DATA), "", was_right=True)
    assert list(kept(tmp_path)) == []


def test_wrong_versions_that_look_alike_are_all_kept(tmp_path: Path) -> None:
    """A name in quarantine that is taken by another file is not used again."""
    (tmp_path / KEY).parent.mkdir(parents=True)
    (tmp_path / KEY).write_bytes(WRONG)
    found = os.lstat(tmp_path / KEY)
    taken = tmp_path / f"{QUARANTINE}{KEY}.{int(found.st_mtime)}-{found.st_ino:x}"
    taken.parent.mkdir(parents=True)
    taken.write_bytes(b"an earlier version")

    replaced = _replaced(tmp_path)

    assert taken.read_bytes() == b"an earlier version"
    assert (tmp_path / replaced.quarantined).read_bytes() == WRONG


def contents(backend: Backend, prefix: str) -> dict[str, bytes]:
    found = {}
    for key, *_ in list(backend.keys(prefix)):
        with backend.open(key) as reader:
            found[key] = reader.read(1000)
    return found


@pytest.mark.parametrize("wrong", [WRONG, None])
@pytest.mark.parametrize("other", ["repair", "write"])
@pytest.mark.parametrize(
    "server", ["rclone_memory_s3", "moto_s3", pytest.param("ceph_s3", marks=pytest.mark.slow)]
)
def test_in_a_bucket_nothing_right_is_quarantined_whenever_another_program_replaces_it(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    server: str,
    other: str,
    wrong: bytes | None,
) -> None:
    s3: S3Server = request.getfixturevalue(server)
    bucket = s3.make_bucket()
    endings = set()
    for point in itertools.count():
        url = parse_url(s3.url(bucket, f"p{point}"))
        backend = open_backend(url)
        if wrong is not None:
            backend.write(KEY, wrong)

        def another(url: Any = url) -> None:
            patched.undo()
            if other == "repair":
                SnapshotStore(open_backend(url)).replace_object(source(), ADDRESS)
            else:
                SnapshotStore(open_backend(url)).put_object(ADDRESS, DATA)

        interposed = Interposed(point, another)
        with monkeypatch.context() as patched:
            for name in ("call", "direct_or_boto"):
                patched.setattr(Bucket, name, interposed.before(getattr(Bucket, name)))
            endings.add(SnapshotStore(backend).replace_object(source(), ADDRESS).was_right)

        assert contents(backend, ".objects/") == {KEY: DATA}
        assert set(contents(backend, QUARANTINE).values()) <= {WRONG}
        if not interposed.done:
            break
    assert endings == {True, False}


def test_a_conditional_write_replaces_only_the_version_that_was_wrong(moto_s3: S3Server) -> None:
    """A wrong version that comes in the last moment is kept too."""
    backend = open_backend(parse_url(moto_s3.url(moto_s3.make_bucket(), "p")))
    backend.write(KEY, WRONG)
    call = Bucket.call
    late = [b"another wrong version"]

    def at_the_last_moment(self: Bucket, operation: str, **parameters: Any) -> Any:
        if operation == "put_object" and parameters.get("IfMatch") and late:
            call(self, "put_object", Key=parameters["Key"], Body=late.pop())
        return call(self, operation, **parameters)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Bucket, "call", at_the_last_moment)
        replaced = SnapshotStore(backend).replace_object(source(), ADDRESS)

    assert not replaced.was_right
    assert contents(backend, ".objects/") == {KEY: DATA}
    assert sorted(contents(backend, QUARANTINE).values()) == [b"another wrong version", WRONG]


@pytest.mark.parametrize("knows", ["bare", "none", "header"])
@pytest.mark.parametrize("length", [len(DATA), 6 * 1024 * 1024])
def test_a_server_with_odd_conditions_lets_an_object_be_replaced(
    moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch, knows: str, length: int
) -> None:
    """Ceph compares the ETag with its quotes; others may refuse every condition, or the header."""
    data = DATA.ljust(length, b".")
    backend = open_backend(parse_url(moto_s3.url(moto_s3.make_bucket(), "p")))
    assert isinstance(backend, S3Backend)
    monkeypatch.setattr(multipart, "part_sizes", lambda _: itertools.repeat(5 * 1024 * 1024))
    right = SnapshotStore(MemoryBackend("source"))
    right.put_object(digest(data), data)
    key = object_key(digest(data))
    backend.write(key, WRONG)
    call, sent = Bucket.call, []

    def odd(self: Bucket, operation: str, **parameters: Any) -> Any:
        if operation in {"put_object", "complete_multipart_upload"} and "IfMatch" in parameters:
            sent.append(parameters["IfMatch"])
            if knows != "bare" or parameters["IfMatch"].startswith('"'):
                status, code = (501, "NotImplemented") if knows == "header" else (412, "PreconditionFailed")
                answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
                raise ClientError(answer, operation)
        return call(self, operation, **parameters)

    monkeypatch.setattr(Bucket, "call", odd)
    for _ in range(2):
        replaced = SnapshotStore(backend).replace_object(right, digest(data))
        assert SnapshotStore(backend).check_object(digest(data)) == length
        assert contents(backend, QUARANTINE)[replaced.quarantined] == WRONG
        backend.write(key, WRONG)

    assert backend.bucket.features.conditions is (knows == "bare")
    assert len(sent) == {"bare": 3, "none": 2, "header": 2}[knows]


class _Interposing(Around):
    """A store without a quarantine of its own, and a program beside it."""

    def __init__(self, inner: Backend, interposed: Interposed) -> None:
        super().__init__(inner)
        for verb in ("size", "open", "upload"):
            setattr(self, verb, interposed.before(getattr(inner, verb)))


def test_where_the_process_itself_copies_nothing_right_is_quarantined() -> None:
    endings = set()
    for point in itertools.count():
        inner = MemoryBackend()
        inner.write(KEY, WRONG)
        interposed = Interposed(point, partial(SnapshotStore(inner).put_object, ADDRESS, DATA))
        replaced = SnapshotStore(_Interposing(inner, interposed)).replace_object(source(), ADDRESS)
        endings.add(replaced.was_right)
        assert contents(inner, ".objects/") == {KEY: DATA}
        assert set(contents(inner, QUARANTINE).values()) <= {WRONG}
        if not interposed.done:
            break
    assert endings == {True, False}
