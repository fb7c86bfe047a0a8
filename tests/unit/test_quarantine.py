"""Wrong objects that are replaced are kept, in a directory and in a bucket, whatever is in their place."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from snapferry.stores.address import OBJECTS, QUARANTINE, Key, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.objects import copying
from snapferry.stores.errors import AccessDenied, NotAnObject, StoreError, StoreFault, StoreUnavailable
from snapferry.stores.features import Quarantining, Seen, feature_of
from snapferry.stores.hashing import digest
from snapferry.stores.pools.quarantine import holds_object
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import Replaced
from snapferry.stores.urls import parse_url
from tests.faults.backends import Forbids
from tests.opening import open_backend
from tests.sample import tree
from tests.servers import S3Server

DATA = b"the right bytes"
WRONG = b"the wrong bytes"
ADDRESS = digest(DATA)
KEY = object_key(ADDRESS)


@pytest.fixture
def source() -> SnapshotStore:
    store = SnapshotStore(MemoryBackend("source"))
    store.put_object(ADDRESS, DATA)
    return store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "store" / KEY).parent.mkdir(parents=True)
    return tmp_path / "store"


def opened(root: Path) -> SnapshotStore:
    return SnapshotStore(DirectoryBackend(str(root)))


def link_to_the_right_bytes(path: Path, outside: Path) -> None:
    (outside / "right").write_bytes(DATA)
    path.symlink_to(outside / "right")


def link_to_nowhere(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "nowhere")


def link_to_a_directory(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def directory(path: Path, outside: Path) -> None:
    path.mkdir()
    (path / "a file").write_bytes(b"in it")


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def listening_socket(path: Path, outside: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name)
    finally:
        os.chdir(here)


STRANGE = [link_to_the_right_bytes, link_to_nowhere, link_to_a_directory, directory, fifo, listening_socket]


@pytest.mark.parametrize("strange", STRANGE)
def test_whatever_is_in_the_place_of_an_object_is_replaced_and_kept_as_it_is(
    root: Path, tmp_path: Path, source: SnapshotStore, strange: Callable[[Path, Path], None]
) -> None:
    (outside := tmp_path / "outside").mkdir()
    strange(root / KEY, outside)
    before, kind = tree(outside), os.lstat(root / KEY)
    store = opened(root)
    with pytest.raises(NotAnObject):
        store.check_object(ADDRESS)

    replaced = store.replace_object(source, ADDRESS)

    assert store.check_object(ADDRESS) == len(DATA)
    kept = os.lstat(root / replaced.quarantined)
    assert (kept.st_ino, kept.st_mode) == (kind.st_ino, kind.st_mode)
    assert tree(outside) == before
    assert [key for key, *_ in store.objects.keys(OBJECTS)] == [KEY]


def test_the_key_has_the_wrong_or_the_right_bytes_at_every_moment(
    root: Path, source: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / KEY).write_bytes(WRONG)
    seen = []

    def looking(call: Callable[..., Any]) -> Callable[..., Any]:
        def looked(*arguments: Any, **options: Any) -> Any:
            seen.append((root / KEY).read_bytes())
            done = call(*arguments, **options)
            seen.append((root / KEY).read_bytes())
            return done

        return looked

    for name in ("mkdir", "link", "rename", "unlink", "fsync"):
        monkeypatch.setattr(os, name, looking(getattr(os, name)))

    replaced = opened(root).replace_object(source, ADDRESS)

    assert seen[:-1] == [WRONG] * (len(seen) - 1)
    assert seen[-1] == DATA
    assert (root / replaced.quarantined).read_bytes() == WRONG


def test_a_file_that_cannot_be_linked_is_renamed(
    root: Path, source: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no hard links, and Linux may forbid a link to the file of another user."""
    (root / KEY).write_bytes(WRONG)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    monkeypatch.setattr(os, "link", refuse)

    replaced = opened(root).replace_object(source, ADDRESS)

    assert (root / replaced.quarantined).read_bytes() == WRONG
    assert (root / KEY).read_bytes() == DATA


def test_a_file_on_another_disk_than_the_quarantine_is_kept_beside_its_key(
    root: Path, source: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / KEY).write_bytes(WRONG)

    def on_one_disk(call: Callable[..., None]) -> Callable[..., None]:
        def checked(name: str, new_name: str, **options: Any) -> None:
            here, there = (
                os.readlink(f"/proc/self/fd/{options[which]}") for which in options if "fd" in which
            )
            if here != there:
                raise OSError(errno.EXDEV, "another disk")
            call(name, new_name, **options)

        return checked

    for name in ("link", "rename"):
        monkeypatch.setattr(os, name, on_one_disk(getattr(os, name)))
    store = opened(root)

    replaced = store.replace_object(source, ADDRESS)

    assert (root / replaced.quarantined).read_bytes() == WRONG
    assert (root / replaced.quarantined).parent == (root / KEY).parent
    assert store.check_object(ADDRESS) == len(DATA)
    assert [key for key, *_ in store.objects.keys(OBJECTS)] == [KEY]


def test_a_file_is_kept_once_however_often_it_is_quarantined(root: Path) -> None:
    (root / KEY).write_bytes(WRONG)
    backend = DirectoryBackend(str(root))

    places = {backend.quarantine(KEY, holds_object(ADDRESS)).place for _ in range(3)}

    assert len(places) == 1
    assert (root / KEY).read_bytes() == WRONG
    assert sorted(tree(root).values()) == [WRONG, WRONG]


@pytest.mark.parametrize("where", [".quarantine", ".quarantine/.objects"])
def test_a_link_in_the_place_of_the_quarantine_is_not_followed_and_nothing_is_replaced(
    root: Path, tmp_path: Path, source: SnapshotStore, where: str
) -> None:
    (outside := tmp_path / "outside").mkdir()
    (root / KEY).write_bytes(WRONG)
    (root / where).parent.mkdir(exist_ok=True)
    (root / where).symlink_to(outside)

    with pytest.raises(StoreFault) as caught:
        opened(root).replace_object(source, ADDRESS)

    assert caught.value.subject == ADDRESS
    assert f"{root / where} is a symbolic link" in caught.value.detail
    assert (root / KEY).read_bytes() == WRONG
    assert list(outside.iterdir()) == []


def test_where_nothing_may_be_quarantined_nothing_is_replaced(
    root: Path, source: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / KEY).write_bytes(WRONG)
    make = os.mkdir

    def refuse(path: str, *arguments: Any, **options: Any) -> None:
        if "quarantine" in str(path):
            raise OSError(errno.EACCES, "no permission")
        make(path, *arguments, **options)

    monkeypatch.setattr(os, "mkdir", refuse)

    with pytest.raises(AccessDenied, match=r"kept below \.quarantine/") as caught:
        opened(root).replace_object(source, ADDRESS)
    assert caught.value.subject == ADDRESS
    assert tree(root) == {KEY: WRONG}


class _RefusesToOverwrite(MemoryBackend):
    """A store whose objects are locked."""

    def write(self, key: str, data: bytes) -> None:
        if self.size(key) is not None:
            raise AccessDenied(self.label, key, "the object is locked")
        super().write(key, data)


def test_a_store_that_does_not_let_an_object_be_replaced_says_so(source: SnapshotStore) -> None:
    backend = _RefusesToOverwrite()
    backend.write(KEY, WRONG)

    with pytest.raises(
        AccessDenied, match="cannot be replaced, and stays as it is: the object is locked"
    ) as caught:
        SnapshotStore(backend).replace_object(source, ADDRESS)
    assert (caught.value.store, caught.value.subject) == (backend.label, ADDRESS)
    assert backend._files[KEY] == WRONG


def test_a_store_that_lets_nothing_be_written_keeps_the_wrong_object(source: SnapshotStore) -> None:
    inner = MemoryBackend()
    inner.write(KEY, WRONG)

    with pytest.raises(AccessDenied):
        SnapshotStore(Forbids(inner)).replace_object(source, ADDRESS)
    assert inner._files == {KEY: WRONG}


# Buckets.


def bucket_with_a_wrong_object(server: S3Server) -> Backend:
    backend = open_backend(parse_url(server.url(server.make_bucket(), "some/prefix")))
    backend.write(KEY, WRONG)
    return backend


@pytest.mark.parametrize("server", ["rclone_memory_s3", "moto_s3"])
def test_a_bucket_copies_a_wrong_object_by_itself_and_keeps_it_once(
    request: pytest.FixtureRequest, server: str
) -> None:
    backend = bucket_with_a_wrong_object(request.getfixturevalue(server))
    found = feature_of(backend, Quarantining)  # type: ignore[type-abstract]
    assert found is not None

    places = {found.quarantine(KEY, holds_object(ADDRESS)).place for _ in range(3)}

    (place,) = places
    assert place is not None
    with backend.open(place) as reader:
        assert reader.read(100) == WRONG
    with backend.open(KEY) as reader:
        assert reader.read(100) == WRONG
    assert found.quarantine(object_key(digest(b"nowhere")), holds_object(ADDRESS)) == Seen(Key(""), "")


@pytest.mark.parametrize(
    "server", ["rclone_memory_s3", "moto_s3", pytest.param("ceph_s3", marks=pytest.mark.slow)]
)
def test_a_large_object_is_copied_in_parts_where_the_server_can(
    request: pytest.FixtureRequest, server: str, source: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that cannot is found out by the length of its copy, and the bytes go through this process."""
    mib = 1024 * 1024
    wrong = bytes(range(256)) * 4 * 1024 * 11 + b"the end"
    monkeypatch.setattr(copying, "MAX_COPY_BYTES", 10 * mib)
    monkeypatch.setattr(copying, "PART_BYTES", 5 * mib)
    sent: list[str] = []
    call = Bucket.call

    def noted(self: Bucket, operation: str, **parameters: object) -> Any:
        sent.append(operation)
        return call(self, operation, **parameters)

    s3: S3Server = request.getfixturevalue(server)
    bucket = s3.make_bucket()
    backend = open_backend(parse_url(s3.url(bucket, "p")))
    backend.write(KEY, wrong)
    monkeypatch.setattr(Bucket, "call", noted)

    replaced = SnapshotStore(backend).replace_object(source, ADDRESS)

    assert "copy_object" not in sent
    assert "upload_part_copy" in sent
    with backend.open(replaced.quarantined, size_hint=len(wrong)) as reader:
        assert b"".join(iter(partial(reader.read, mib), b"")) == wrong
    assert [key for key, *_ in backend.keys(QUARANTINE)] == [replaced.quarantined]
    assert SnapshotStore(backend).check_object(ADDRESS) == len(DATA)
    assert not s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads")


@pytest.mark.parametrize("error", [AccessDenied, StoreFault, StoreUnavailable])
def test_where_a_bucket_does_not_copy_the_bytes_go_through_this_process(
    rclone_memory_s3: S3Server,
    source: SnapshotStore,
    monkeypatch: pytest.MonkeyPatch,
    error: type[StoreError],
) -> None:
    backend = bucket_with_a_wrong_object(rclone_memory_s3)
    call = Bucket.call

    def refuse(self: Bucket, operation: str, **parameters: object) -> Any:
        if operation == "copy_object":
            raise error(self.label, "", "a test says so")
        return call(self, operation, **parameters)

    monkeypatch.setattr(Bucket, "call", refuse)
    store = SnapshotStore(backend)

    if error is StoreUnavailable:
        with pytest.raises(StoreUnavailable):
            store.replace_object(source, ADDRESS)
        with backend.open(KEY) as reader:
            assert reader.read(100) == WRONG
        return
    replaced = store.replace_object(source, ADDRESS)

    assert replaced == Replaced(len(DATA), replaced.quarantined)
    with backend.open(replaced.quarantined) as reader:
        assert reader.read(100) == WRONG
    assert store.check_object(ADDRESS) == len(DATA)


def versions(server: S3Server, bucket: str, key: str) -> list[tuple[bytes, str]]:
    """Return the bytes and the id of each version of *key*, the newest first."""
    listed = server.client.list_object_versions(Bucket=bucket, Prefix=key)["Versions"]
    found = sorted(listed, key=lambda one: (not one["IsLatest"], one["LastModified"]))
    return [
        (
            server.client.get_object(Bucket=bucket, Key=key, VersionId=one["VersionId"])["Body"].read(),
            one["VersionId"],
        )
        for one in found
    ]


def test_a_versioned_bucket_keeps_the_wrong_bytes_as_a_version_too(
    moto_s3: S3Server, source: SnapshotStore
) -> None:
    bucket = moto_s3.make_bucket()
    moto_s3.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    backend = open_backend(parse_url(moto_s3.url(bucket, "p")))
    backend.write(KEY, WRONG)
    store = SnapshotStore(backend)

    store.replace_object(source, ADDRESS)

    assert store.check_object(ADDRESS) == len(DATA)
    assert [data for data, _ in versions(moto_s3, bucket, f"p/{KEY}")] == [DATA, WRONG]


def test_a_locked_object_gets_a_right_version_and_its_wrong_one_stays(
    moto_s3: S3Server, source: SnapshotStore
) -> None:
    bucket = f"{moto_s3.make_bucket()}-locked"
    moto_s3.client.create_bucket(Bucket=bucket, ObjectLockEnabledForBucket=True)
    backend = open_backend(parse_url(moto_s3.url(bucket, "p")))
    backend.write(KEY, WRONG)
    moto_s3.client.put_object_retention(
        Bucket=bucket, Key=f"p/{KEY}",
        Retention={"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)},
    )  # fmt: skip
    store = SnapshotStore(backend)

    store.replace_object(source, ADDRESS)

    assert store.check_object(ADDRESS) == len(DATA)
    (_, _), (kept, version) = versions(moto_s3, bucket, f"p/{KEY}")
    assert kept == WRONG
    with pytest.raises(moto_s3.client.exceptions.ClientError):
        moto_s3.client.delete_object(Bucket=bucket, Key=f"p/{KEY}", VersionId=version)
