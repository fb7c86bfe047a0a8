"""A file that the disk cannot read is wrong; a store that does not answer has no wrong files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from snapferry.stores.address import manifest_key, object_key
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import IntegrityError, StoreUnavailable, Unreadable
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from tests.bad_disk import BadDisk
from tests.opening import open_store
from tests.sample import make_store, tree

# One that is fetched in one call, and one that is streamed.
BODIES = [b"a small object", bytes(range(256)) * 2000]
GOOD = b"an object that can be read"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> BadDisk:
    return BadDisk(monkeypatch)


def holding(root: Path, *bodies: bytes) -> SnapshotStore:
    store = open_store(str(root))
    for body in bodies:
        store.put_object(digest(body), body)
    return store


def path_of(root: Path, body: bytes) -> Path:
    return root / object_key(digest(body))


@pytest.mark.parametrize("hinted", [True, False])
@pytest.mark.parametrize("body", BODIES, ids=len)
def test_an_object_that_cannot_be_read_in_two_readings_is_wrong(
    tmp_path: Path, disk: BadDisk, body: bytes, hinted: bool
) -> None:
    store = holding(tmp_path, body, GOOD)
    disk.spoil(path_of(tmp_path, body))

    assert store.check_object(digest(GOOD)) == len(GOOD)
    with pytest.raises(Unreadable, match="Input/output error") as caught:
        store.check_object(digest(body), size_hint=len(body) if hinted else 0)
    assert isinstance(caught.value, IntegrityError)
    assert disk.failed >= 2


@pytest.mark.parametrize("body", BODIES, ids=len)
def test_an_object_that_can_be_read_the_second_time_is_intact(
    tmp_path: Path, disk: BadDisk, body: bytes
) -> None:
    store = holding(tmp_path / "a", body)
    disk.spoil(path_of(tmp_path / "a", body))
    disk.times = 1

    assert store.check_object(digest(body), size_hint=len(body)) == len(body)
    disk.failed = 0
    assert holding(tmp_path / "b").copy_object(store, digest(body), size_hint=len(body)) == len(body)


def test_a_file_that_cannot_be_opened_is_unreadable_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = holding(tmp_path, GOOD)
    root = store.objects.directory.root()  # type: ignore[attr-defined]

    def fails(path: str, flags: int) -> int:
        raise OSError(errno.EUCLEAN, os.strerror(errno.EUCLEAN))

    monkeypatch.setattr(root, "open", fails)
    with pytest.raises(Unreadable):
        store.check_object(digest(GOOD))


def test_where_the_file_system_does_not_answer_nothing_is_known(
    tmp_path: Path, disk: BadDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system whose server is away reports the same error."""
    store = holding(tmp_path, GOOD)
    disk.spoil(path_of(tmp_path, GOOD))

    def away(_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "statvfs", away)
    with pytest.raises(StoreUnavailable):
        store.check_object(digest(GOOD))


def test_where_a_file_that_was_read_before_cannot_be_read_either_nothing_is_known(
    tmp_path: Path, disk: BadDisk
) -> None:
    """A disk that was unplugged reports the same error for every file."""
    store = holding(tmp_path, GOOD, BODIES[0])
    store.check_object(digest(GOOD))
    disk.spoil(path_of(tmp_path, GOOD), path_of(tmp_path, BODIES[0]))

    with pytest.raises(StoreUnavailable):
        store.check_object(digest(BODIES[0]))


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("body", BODIES, ids=len)
def test_an_unreadable_object_is_replaced_and_its_file_is_kept(
    tmp_path: Path, disk: BadDisk, monkeypatch: pytest.MonkeyPatch, body: bytes, links: bool
) -> None:
    source = SnapshotStore(MemoryBackend("source"))
    source.put_object(digest(body), body)
    store = holding(tmp_path, body)
    disk.spoil(path_of(tmp_path, body))
    inode = path_of(tmp_path, body).stat().st_ino

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    replaced = store.replace_object(source, digest(body), size_hint=len(body))

    assert store.check_object(digest(body)) == len(body)
    assert (tmp_path / replaced.quarantined).stat().st_ino == inode


def test_a_source_with_an_unreadable_object_is_a_source_with_a_wrong_one(
    tmp_path: Path, disk: BadDisk
) -> None:
    source, destination = holding(tmp_path / "a", *BODIES), holding(tmp_path / "b")
    disk.spoil(*(path_of(tmp_path / "a", body) for body in BODIES))
    for body in BODIES:
        with pytest.raises(Unreadable):
            destination.copy_object(source, digest(body), size_hint=len(body))
    assert not (tmp_path / "b").exists() or tree(tmp_path / "b") == {}


def test_an_unreadable_manifest_is_replaced(tmp_path: Path, disk: BadDisk) -> None:
    files = {"./a": GOOD}
    snapshot = make_store(tmp_path / "a", files)
    make_store(tmp_path / "b", files)
    disk.spoil(tmp_path / "b" / manifest_key(snapshot))
    store = open_store(str(tmp_path / "b"))
    with pytest.raises(Unreadable):
        store.read_manifest(snapshot)

    published = store.publish_all(open_store(str(tmp_path / "a")), [snapshot])[snapshot]

    assert published.error is None
    assert published.quarantined
    assert open_store(str(tmp_path / "b")).get_manifest(snapshot)
