"""Publishing: the manifest last, after everything was seen, and read back."""

from __future__ import annotations

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, Address, SnapshotId, manifest_key, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import (
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
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import Published
from tests.faults.backends import (
    AltersWrites,
    Around,
    Faulty,
    Forbids,
    LosesWrites,
    Remembers,
    Unavailable,
)

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
def test_a_manifest_whose_objects_are_not_all_there_is_not_written(lost: Address) -> None:
    remembers = Remembers(MemoryBackend())
    store = with_objects(remembers)
    remembers.delete(object_key(lost))
    remembers.calls.clear()

    with pytest.raises(ManifestIncomplete, match="1 of its objects is not in this store") as raised:
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
    deaf = SnapshotStore(Unavailable(store.objects, strikes=lambda key: key == object_key(A)))

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


def test_publishing_again_writes_nothing_and_makes_it_last() -> None:
    """Who wrote it may have died before the disk had it."""
    remembers = Remembers(MemoryBackend())
    store = with_objects(remembers)
    store.put_manifest(ID, TEXT)
    remembers.calls.clear()

    store.put_manifest(ID, TEXT)

    assert remembers.calls == [("flush", ""), ("flush", "")]


def test_a_manifest_that_is_there_does_not_excuse_a_missing_object() -> None:
    """Presence is asked from scratch each time: this is how a sync finds what someone deleted."""
    store = with_objects(MemoryBackend())
    store.put_manifest(ID, TEXT)
    store.objects.delete(object_key(A))

    with pytest.raises(ManifestIncomplete):
        store.put_manifest(ID, TEXT)


def test_a_corrupt_manifest_is_replaced() -> None:
    store = with_objects(MemoryBackend())
    store.manifests.write(manifest_key(ID), b"nonsense")

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


def several(count: int) -> tuple[SnapshotStore, list[SnapshotId]]:
    """Return a source of *count* snapshots that share one object, and their ids."""
    source = SnapshotStore(MemoryBackend("source"))
    ids = []
    for number in range(count):
        files = {"./own": b"own %d" % number, "./shared": b"shared"}
        for data in files.values():
            source.put_object(digest(data), data)
        text = render(Entry("F", "644", digest(data), len(data), path) for path, data in files.items())
        source.put_manifest(snapshot_id(text), text)
        ids.append(snapshot_id(text))
    return source, ids


def with_objects_of(source: SnapshotStore, backend: Backend) -> SnapshotStore:
    for key, *_ in source.objects.keys(".objects/"):
        with source.objects.open(key) as reader:
            backend.write(key, reader.read(100))
    return SnapshotStore(backend)


class Asked(Around):
    """Notes which keys it is asked for."""

    def __init__(self, inner: Backend) -> None:
        super().__init__(inner)
        self.asked: list[str] = []

    def size(self, key: str) -> int | None:
        self.asked.append(key)
        return super().size(key)


def test_several_manifests_share_one_question_and_two_flushes() -> None:
    source, ids = several(5)
    remembers = Remembers(asked := Asked(MemoryBackend()))
    destination = with_objects_of(source, remembers)
    remembers.calls.clear()

    assert destination.publish_all(source, ids) == dict.fromkeys(ids, Published(written=True))

    writes = [("write", manifest_key(each)) for each in ids]
    assert remembers.calls == [("flush", ""), *writes, ("flush", "")]
    assert len(asked.asked) == len(set(asked.asked)) == 6
    remembers.calls.clear()
    assert destination.publish_all(source, ids) == dict.fromkeys(ids, Published())
    assert remembers.calls == [("flush", ""), ("flush", "")]


def test_a_shared_object_that_is_missing_stops_all_that_name_it_and_an_own_one_only_its_own() -> None:
    source, ids = several(3)
    destination = with_objects_of(source, MemoryBackend())
    own, shared = digest(b"own 1"), digest(b"shared")

    destination.objects.delete(object_key(own))
    assert destination.publish_all(source, ids) == {
        ids[0]: Published(written=True),
        ids[1]: Published((own,)),
        ids[2]: Published(written=True),
    }
    destination.objects.delete(object_key(shared))
    found = destination.publish_all(source, ids)
    assert {each: set(found[each].missing) for each in ids} == {
        ids[0]: {shared},
        ids[1]: {own, shared},
        ids[2]: {shared},
    }
    assert destination.list_manifest_ids() == sorted([ids[0], ids[2]])


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Forbids, AccessDenied),
        (Unavailable, StoreUnavailable),
        (AltersWrites, IntegrityError),
        (LosesWrites, ManifestMissing),
    ],
)
def test_a_manifest_that_cannot_be_filed_does_not_stop_the_others(
    fault: type[Faulty], error: type[StoreError]
) -> None:
    source, ids = several(4)
    broken = fault(MemoryBackend(), strikes=lambda key: key == manifest_key(ids[1]))
    destination = with_objects_of(source, broken)

    found = destination.publish_all(source, ids)

    assert broken.struck
    assert list(found) == ids
    assert type(found[ids[1]].error) is error
    assert [found[each] for each in ids if each != ids[1]] == [Published(written=True)] * 3
    for each in ids:
        if each != ids[1]:
            assert destination.get_manifest(each) == source.get_manifest(each)


def test_a_manifest_that_cannot_be_read_at_the_source_does_not_stop_the_others() -> None:
    source, ids = several(5)
    destination = with_objects_of(source, MemoryBackend())
    source.delete_manifest(ids[1])
    source.manifests.write(manifest_key(ids[2]), b"nonsense")
    unreadable = b"F 644 " + A.encode() + b" many ./a\n"
    source.manifests.write(manifest_key(SnapshotId(digest(unreadable))), unreadable)

    found = destination.publish_all(source, [*ids, digest(unreadable), ids[0]])

    assert [type(each.error) for each in found.values()] == [
        type(None),
        ManifestMissing,
        IntegrityError,
        type(None),
        type(None),
        ManifestSyntaxError,
    ]
    assert destination.list_manifest_ids() == sorted([ids[0], ids[3], ids[4]])


def test_no_answer_about_an_object_publishes_nothing() -> None:
    source, ids = several(3)
    store = with_objects_of(source, MemoryBackend())
    deaf = SnapshotStore(Unavailable(store.objects, strikes=lambda key: key == object_key(digest(b"own 2"))))

    with pytest.raises(StoreUnavailable):
        deaf.publish_all(source, ids)

    assert store.list_manifest_ids() == []


@pytest.mark.parametrize(("good", "published"), [(0, 0), (1, 3)])
def test_a_flush_that_fails_is_raised_and_before_it_no_manifest_is_written(good: int, published: int) -> None:
    class CannotFlush(Around):
        left = good

        def flush(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise StoreUnavailable(self.label, "", "no flush (a test says so)")

    source, ids = several(3)
    store = with_objects_of(source, CannotFlush(MemoryBackend()))

    with pytest.raises(StoreUnavailable, match="no flush"):
        store.publish_all(source, ids)

    assert len(store.list_manifest_ids()) == published


def test_one_manifest_is_open_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    source, ids = several(4)
    destination = with_objects_of(source, MemoryBackend())
    destination.objects.delete(object_key(digest(b"own 3")))
    read, most, opened = source.read_manifest, 0, []

    def counted(each: SnapshotId) -> Manifest:
        nonlocal most
        opened.append(read(each))
        most = max(most, sum(not manifest._file.closed for manifest in opened))
        return opened[-1]

    monkeypatch.setattr(source, "read_manifest", counted)
    destination.publish_all(source, ids)

    assert most == 1
    assert all(manifest._file.closed for manifest in opened)


def test_nothing_to_publish_asks_nothing() -> None:
    store = SnapshotStore(Unavailable(MemoryBackend()))

    assert store.publish_all(store, []) == {}


def test_a_manifest_that_may_not_be_deleted_is_an_error_that_names_it() -> None:
    store = with_objects(MemoryBackend())
    store.put_manifest(ID, TEXT)

    with pytest.raises(AccessDenied, match="the manifest may not be deleted, and stays") as raised:
        SnapshotStore(Forbids(store.objects)).delete_manifest(ID)

    assert (raised.value.store, raised.value.subject) == (store.label, ID)
    assert store.list_manifest_ids() == [ID]


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
        store.manifests.write(f".manifests/{name}", b"stranger")

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
    here.manifests.write(manifest_key(ID), b"# a comment\n" + TEXT)

    with here.read_manifest(ID) as manifest:
        assert isinstance(manifest, Manifest)
        there.publish(manifest)

    assert there.manifests._files[manifest_key(ID)] == TEXT  # type: ignore[attr-defined]
