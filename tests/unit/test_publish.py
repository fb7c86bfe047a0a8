"""Publishing: the manifest last, after everything was seen, and read back."""

from __future__ import annotations

import pytest

from stores.address import EMPTY_ADDRESS, manifest_key, object_key
from stores.backends.memory import MemoryBackend
from stores.base import Backend
from stores.errors import (
    AccessDenied,
    IntegrityError,
    InvalidAddress,
    ManifestIncomplete,
    ManifestMissing,
    ManifestSyntaxError,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
)
from stores.hashing import digest
from stores.manifest import Entry, Manifest, render, snapshot_id
from stores.snapshot_store import SnapshotStore
from tests.faults.backends import AltersWrites, Forbids, LosesWrites, Remembers, Unavailable
from workers.commit import publish_snapshot

FILES = {"./a": b"a", "./b": b"bb", "./empty": b"", "./second a": b"a"}
TEXT = render(Entry("F", "644", digest(data), len(data), path) for path, data in FILES.items())
ID = snapshot_id(TEXT)
A = digest(b"a")


def is_manifest(key: str) -> bool:
    return key.startswith(".manifests/")


def with_objects(backend: Backend) -> SnapshotStore:
    for data in FILES.values():
        backend.write(object_key(digest(data)), data)
    return SnapshotStore(backend)


def test_the_manifest_is_written_last_and_after_a_flush_of_the_objects() -> None:
    remembers = Remembers(MemoryBackend())
    store = with_objects(remembers)
    remembers.calls.clear()

    store.put_manifest(ID, TEXT)

    assert remembers.calls == [("flush", ""), ("write", manifest_key(ID)), ("flush", "")]
    assert store.get_manifest(ID) == TEXT
    assert store.list_manifest_ids() == [ID]


@pytest.mark.parametrize("lost", sorted({digest(data) for data in FILES.values()}))
def test_a_manifest_whose_objects_are_not_all_there_is_not_written(lost: str) -> None:
    remembers = Remembers(MemoryBackend())
    store = with_objects(remembers)
    remembers.delete(object_key(lost))
    remembers.calls.clear()

    with pytest.raises(ManifestIncomplete, match="1 of its objects are not in this store") as raised:
        store.put_manifest(ID, TEXT)

    assert raised.value.missing == (lost,)
    assert raised.value.subject == ID
    assert remembers.calls == []


def test_an_object_without_bytes_counts_as_absent_but_for_the_empty_one() -> None:
    backend = MemoryBackend()
    store = with_objects(backend)
    backend.write(object_key(A), b"")

    with pytest.raises(ManifestIncomplete) as raised:
        store.put_manifest(ID, TEXT)

    assert raised.value.missing == (A,)
    assert store.has_object(EMPTY_ADDRESS)


def test_no_answer_about_one_object_is_not_taken_for_present_or_absent() -> None:
    store = with_objects(MemoryBackend())
    deaf = SnapshotStore(Unavailable(store._objects, strikes=lambda key: key == object_key(A)))

    with pytest.raises(StoreUnavailable):
        deaf.put_manifest(ID, TEXT)

    assert store.list_manifest_ids() == []


@pytest.mark.parametrize("text", [TEXT[:-2] + b"?\n", TEXT + b"F 644 x 1 ./z\n", b""])
def test_a_text_that_does_not_hash_to_the_id_is_not_written(text: bytes) -> None:
    store = with_objects(MemoryBackend())

    with pytest.raises(IntegrityError):
        store.put_manifest(ID, text)

    assert store.list_manifest_ids() == []


def test_a_text_that_is_no_manifest_is_not_written_though_it_hashes() -> None:
    store = with_objects(MemoryBackend())
    text = b"F 644 " + A.encode() + b" many ./a\n"

    with pytest.raises(ManifestSyntaxError):
        store.put_manifest(digest(text), text)

    assert store.list_manifest_ids() == []


@pytest.mark.parametrize("bad", ["", "../x", ID.upper(), ID[:-1]])
def test_an_id_that_is_none_is_refused_by_every_verb(bad: str) -> None:
    store = with_objects(MemoryBackend())

    for verb in (
        store.get_manifest,
        store.read_manifest,
        store.delete_manifest,
        store.has_object,
        store.get_object,
    ):
        with pytest.raises(InvalidAddress):
            verb(bad)
    with pytest.raises(InvalidAddress):
        store.put_manifest(bad, TEXT)
    with pytest.raises(InvalidAddress):
        store.put_object(bad, b"a")
    with pytest.raises(InvalidAddress):
        store.copy_object(store, bad)


def test_a_manifest_that_the_store_altered_is_noticed() -> None:
    store = with_objects(AltersWrites(MemoryBackend(), strikes=is_manifest))

    with pytest.raises(IntegrityError, match="corrupt"):
        store.put_manifest(ID, TEXT)


def test_a_manifest_that_the_store_lost_is_noticed() -> None:
    store = with_objects(LosesWrites(MemoryBackend(), strikes=is_manifest))

    with pytest.raises(ManifestMissing):
        store.put_manifest(ID, TEXT)


@pytest.mark.parametrize(("fault", "error"), [(Forbids, AccessDenied), (Unavailable, StoreUnavailable)])
def test_a_manifest_that_cannot_be_written_is_an_error(fault: type, error: type[StoreError]) -> None:
    store = with_objects(fault(MemoryBackend(), strikes=is_manifest))

    with pytest.raises(error):
        store.put_manifest(ID, TEXT)


def test_publishing_again_writes_nothing() -> None:
    remembers = Remembers(MemoryBackend())
    store = with_objects(remembers)
    store.put_manifest(ID, TEXT)
    remembers.calls.clear()

    store.put_manifest(ID, TEXT)

    assert remembers.calls == []


def test_a_manifest_that_is_there_does_not_excuse_a_missing_object() -> None:
    """Presence is asked from scratch each time: this is how a sync finds what someone deleted."""
    store = with_objects(MemoryBackend())
    store.put_manifest(ID, TEXT)
    store._objects.delete(object_key(A))

    with pytest.raises(ManifestIncomplete):
        store.put_manifest(ID, TEXT)


def test_a_corrupt_manifest_is_replaced() -> None:
    store = with_objects(MemoryBackend())
    store._manifests.write(manifest_key(ID), b"nonsense")

    store.put_manifest(ID, TEXT)

    assert store.get_manifest(ID) == TEXT


def test_with_split_pools_objects_are_asked_of_one_and_the_manifest_goes_to_the_other() -> None:
    objects, manifests = MemoryBackend("objects"), MemoryBackend("manifests")
    with_objects(objects)
    store = SnapshotStore(objects, manifests)

    store.put_manifest(ID, TEXT)

    assert list(manifests._files) == [manifest_key(ID)]
    assert manifest_key(ID) not in objects._files
    with pytest.raises(ManifestIncomplete):
        SnapshotStore(manifests, objects).put_manifest(ID, TEXT)


def test_a_commit_returns_what_is_missing_and_publishes_when_nothing_is() -> None:
    source, destination = with_objects(MemoryBackend("source")), SnapshotStore(MemoryBackend("destination"))
    source.put_manifest(ID, TEXT)
    destination.put_object(EMPTY_ADDRESS, b"")

    missing = publish_snapshot(source, destination, ID)

    assert list(missing) == sorted({digest(b"a"), digest(b"bb")})
    assert destination.list_manifest_ids() == []
    for data in FILES.values():
        destination.put_object(digest(data), data)
    assert publish_snapshot(source, destination, ID) == ()
    assert publish_snapshot(source, destination, ID) == ()
    assert destination.get_manifest(ID) == TEXT


def test_withdrawing_a_snapshot_leaves_its_objects() -> None:
    store = with_objects(MemoryBackend())
    store.put_manifest(ID, TEXT)

    store.delete_manifest(ID)
    store.delete_manifest(ID)

    assert store.list_manifest_ids() == []
    assert store.get_object(A) == b"a"
    with pytest.raises(ManifestMissing):
        store.get_manifest(ID)


def test_strangers_among_the_manifests_are_not_listed() -> None:
    store = with_objects(MemoryBackend())
    store.put_manifest(ID, TEXT)
    for name in (
        ".tmp-host-1-2",
        f"{ID[:3]}/{ID[3:6]}/{ID[6:9]}/.tmp-x",
        "README",
        ID,
        f"{manifest_key(ID)[11:]}~",
    ):
        store._manifests.write(f".manifests/{name}", b"stranger")

    assert store.list_manifest_ids() == [ID]


def test_bytes_are_filed_only_where_they_belong() -> None:
    store = SnapshotStore(MemoryBackend())

    with pytest.raises(IntegrityError, match="nothing was written"):
        store.put_object(A, b"b")

    assert not store.has_object(A)
    with pytest.raises(ObjectMissing):
        store.get_object(A)


@pytest.mark.parametrize("length", [0, 1, 2**20 - 1, 2**20, 2**20 + 1, 3 * 2**20])
@pytest.mark.parametrize("hint", [-1, 0, 1, 2**20, 2**40])
def test_an_object_of_any_length_is_copied_whatever_its_advisory_size(length: int, hint: int) -> None:
    data = b"x" * length
    source, destination = SnapshotStore(MemoryBackend("source")), SnapshotStore(MemoryBackend("destination"))
    source.put_object(digest(data), data)
    seen: list[int] = []

    assert destination.copy_object(source, digest(data), size_hint=hint, on_bytes=seen.append) == length

    assert destination.get_object(digest(data)) == data
    assert sum(seen) == length


@pytest.mark.parametrize("hint", [0, 100])
def test_corrupt_bytes_of_a_source_become_visible_nowhere(hint: int) -> None:
    source, destination = MemoryBackend("source"), MemoryBackend("destination")
    source.write(object_key(A), b"not a")

    with pytest.raises(IntegrityError) as raised:
        SnapshotStore(destination).copy_object(SnapshotStore(source), A, size_hint=hint)

    assert (raised.value.store, raised.value.subject) == ("memory://source", A)
    assert destination._files == {}


def test_a_manifest_that_fails_to_be_read_is_not_reported_as_missing() -> None:
    store = SnapshotStore(Unavailable(MemoryBackend()))

    with pytest.raises(StoreUnavailable):
        store.get_manifest(ID)


def test_a_store_that_is_handed_a_manifest_of_another_store_publishes_the_same_bytes() -> None:
    here, there = with_objects(MemoryBackend("here")), with_objects(MemoryBackend("there"))
    here._manifests.write(manifest_key(ID), b"# a comment\n" + TEXT)

    with here.read_manifest(ID) as manifest:
        assert isinstance(manifest, Manifest)
        there.publish(manifest)

    assert there._manifests._files[manifest_key(ID)] == TEXT  # type: ignore[attr-defined]
