"""
What every backend, and every store on one, must do.

A test file names its kind of place and inherits the contracts that apply;
this module is not collected by itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import pytest

from snapferry.stores.address import EMPTY_ADDRESS, SnapshotId, manifest_key, object_key, parse_snapshot_id
from snapferry.stores.backend import Backend
from snapferry.stores.errors import (
    IntegrityError,
    InvalidAddress,
    KeyMissing,
    ManifestIncomplete,
    ManifestMissing,
    ObjectMissing,
    StoreNotFound,
    StoreUnavailable,
)
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.pools.listing_memory import ListingMemory
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import Published
from tests.conformance.files_contract import FilesContract
from tests.conformance.names_contract import NamesContract
from tests.conformance.replacing_contract import ReplacingContract

MIB = 1024 * 1024
PART = 8 * MIB

KINDS = ("memory", "file", "rclone", "moto")


@dataclass(frozen=True)
class Place:
    """An empty store that exists. *leftovers* lists what an unfinished write left behind in it."""

    backend: Backend
    leftovers: Callable[[], list[str]]


MakePlace = Callable[[str], Place]

NO_ADDRESSES = (
    "",
    "a" * 63,
    "a" * 65,
    "A" * 64,
    "g" * 64,
    "a" * 64 + "\n",
    "../" * 21 + "a",
    "/" + "a" * 63,
    "..",
)


def key(number: int) -> str:
    """Return the key of an object; keys of growing numbers are not in byte order."""
    return object_key(digest(b"%d" % number))


@cache
def noise(length: int, seed: int = 0) -> bytes:
    """Return *length* bytes that do not compress and do not repeat."""
    return random.Random(seed).randbytes(length)


def read(backend: Backend, at: str, *, size_hint: int = 0, piece: int = MIB) -> bytes:
    with backend.open(at, size_hint=size_hint) as reader:
        parts = []
        while chunk := reader.read(piece):
            parts.append(chunk)
    return b"".join(parts)


def upload(backend: Backend, at: str, data: bytes, size_hint: int, chunk: int = MIB) -> None:
    with backend.upload(at, size_hint) as begun:
        for start in range(0, len(data), chunk):
            begun.write(data[start : start + chunk])
        begun.commit()


class BackendContract:
    """Bytes under keys."""

    kind: str

    replaces_at_once = True
    """False for a server that lets readers see an object while it is being replaced, against the rules."""

    fails_writers_at_once = False
    """True for a server that may answer 500 to a writer, attempt after attempt, while others replace the same key."""

    @pytest.fixture
    def place(self, make_place: MakePlace) -> Place:
        return make_place(self.kind)

    @pytest.fixture
    def backend(self, place: Place) -> Backend:
        return place.backend

    def test_a_store_that_is_there_passes_the_check(self, backend: Backend) -> None:
        backend.check(for_writing=False)
        backend.check(for_writing=True)

    def test_the_label_shows_no_query_and_concurrency_is_declared(self, backend: Backend) -> None:
        assert "://" in backend.label
        assert "?" not in backend.label
        assert backend.capabilities.concurrency >= 1

    @pytest.mark.parametrize("data", [b"", b"\0", b"some bytes", noise(3 * MIB + 1)], ids=len)
    def test_what_is_written_is_read_back(self, backend: Backend, data: bytes) -> None:
        backend.write(key(1), data)

        assert read(backend, key(1)) == data
        assert backend.size(key(1)) == len(data)

    def test_writing_again_replaces(self, backend: Backend) -> None:
        backend.write(key(1), b"the first, which is longer")
        backend.write(key(1), b"the second")

        assert read(backend, key(1)) == b"the second"
        assert backend.size(key(1)) == 10

    def test_nothing_filed_is_no_size_and_cannot_be_opened(self, backend: Backend) -> None:
        backend.write(key(1), b"a neighbour")

        assert backend.size(key(2)) is None
        with pytest.raises(KeyMissing) as caught, backend.open(key(2)):
            pass
        assert (caught.value.store, caught.value.subject) == (backend.label, key(2))

    def test_sizes_are_answered_in_the_order_of_the_keys(self, backend: Backend) -> None:
        for number in range(1, 6):
            backend.write(key(number), b"x" * number)

        asked = [3, 99, 1, 5, 1, 98, 2, 4]
        assert backend.sizes([key(number) for number in asked]) == [3, None, 1, 5, 1, None, 2, 4]
        assert backend.sizes([]) == []

    def test_a_reader_gives_as_many_bytes_as_asked_until_the_end(self, backend: Backend) -> None:
        data = noise(200_003)
        backend.write(key(1), data)

        with backend.open(key(1)) as reader:
            assert reader.read(7) == data[:7]
            assert reader.read(200_000 - 7) == data[7:200_000]
            assert reader.read(100) == data[200_000:]
            assert reader.read(100) == b""
            assert reader.read(100) == b""

    def test_many_readers_abandoned_half_way_do_no_harm(self, backend: Backend) -> None:
        backend.write(key(1), noise(MIB))

        for _ in range(20):
            with backend.open(key(1)) as reader:
                assert reader.read(10) == noise(MIB)[:10]
        assert read(backend, key(1)) == noise(MIB)

    def test_keys_are_listed_with_sizes_in_byte_order_below_the_prefix_only(self, backend: Backend) -> None:
        for number in range(30):
            backend.write(key(number), b"x" * number)
        backend.write(manifest_key(SnapshotId(digest(b"a manifest"))), b"a manifest")

        expected = sorted((key(number), number) for number in range(30))
        assert [(k, size) for k, size, _ in backend.keys(".objects/")] == expected
        assert [k for k, *_ in backend.keys(".manifests/")] == [
            manifest_key(SnapshotId(digest(b"a manifest")))
        ]

    def test_a_listing_says_when_each_key_was_written(self, backend: Backend) -> None:
        """By the store's clock, which is this machine's; some tell whole seconds only."""
        before = time.time()
        backend.write(key(1), b"x")
        upload(backend, key(2), noise(PART + 1), PART + 1)
        after = time.time()

        listed = list(backend.keys(".objects/"))
        assert {k for k, *_ in listed} == {key(1), key(2)}
        assert all(before - 2 <= found.modified <= after + 2 for found in listed)

    def test_a_listing_can_begin_anywhere(self, backend: Backend) -> None:
        for number in range(20):
            backend.write(key(number), b"x")
        ordered = sorted(key(number) for number in range(20))

        assert [k for k, *_ in backend.keys(".objects/", start_after=ordered[4])] == ordered[5:]
        assert [k for k, *_ in backend.keys(".objects/", start_after=ordered[4][:-1])] == ordered[4:]
        assert [k for k, *_ in backend.keys(".objects/", start_after=ordered[4] + "0")] == ordered[5:]
        assert list(backend.keys(".objects/", start_after=ordered[-1])) == []

    def test_an_empty_store_lists_nothing(self, backend: Backend) -> None:
        assert list(backend.keys(".objects/")) == []

    def test_more_keys_than_fit_a_page_are_all_listed_once(self, backend: Backend) -> None:
        """S3 pages hold 1,000 keys: this needs a second one, and a third that begins in the middle."""
        ordered = sorted(key(number) for number in range(1_010))
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda k: backend.write(k, b"x"), ordered))

        assert [k for k, *_ in backend.keys(".objects/")] == ordered
        assert [k for k, *_ in backend.keys(".objects/", start_after=ordered[4])] == ordered[5:]

    def test_deleting_removes_and_may_be_repeated(self, backend: Backend) -> None:
        backend.write(key(1), b"x")
        backend.write(key(2), b"y")

        backend.delete(key(1))
        backend.delete(key(1))
        backend.delete(key(3))

        assert backend.size(key(1)) is None
        assert [k for k, *_ in backend.keys(".objects/")] == [key(2)]

    @pytest.mark.parametrize("length", [0, 1, MIB, PART - 1, PART, PART + 1, 20 * MIB + 7])
    def test_an_upload_of_any_length_is_read_back(self, place: Place, length: int) -> None:
        upload(place.backend, key(1), noise(length), size_hint=length)

        assert place.backend.size(key(1)) == length
        assert read(place.backend, key(1)) == noise(length)
        assert place.leftovers() == []

    @pytest.mark.parametrize("hint", [0, 5, 17 * MIB, 10**12])
    def test_a_wrong_size_hint_changes_nothing(self, backend: Backend, hint: int) -> None:
        upload(backend, key(1), noise(17 * MIB + 3), size_hint=hint, chunk=3 * MIB + 1)

        assert read(backend, key(1)) == noise(17 * MIB + 3)

    @pytest.mark.parametrize("piece", [MIB, PART, 3 * PART + 5], ids=["small", "as parts", "odd"])
    def test_a_large_object_is_written_and_read_back_in_pieces_of_any_size(
        self, place: Place, piece: int
    ) -> None:
        """Large enough to come in by ranges where a store has them."""
        data = noise(5 * PART + 3)
        upload(place.backend, key(1), data, size_hint=len(data), chunk=piece)

        assert read(place.backend, key(1), size_hint=len(data), piece=piece) == data
        assert place.leftovers() == []

    @pytest.mark.parametrize("length", [0, 1, PART, 5 * PART])
    def test_a_length_that_was_wrongly_expected_changes_nothing_for_a_reader(
        self, backend: Backend, length: int
    ) -> None:
        backend.write(key(1), noise(length))

        for hint in (0, 4 * PART + 1, 10**12):
            assert read(backend, key(1), size_hint=hint, piece=PART) == noise(length)

    @pytest.mark.parametrize("hint", [0, 10**12])
    def test_nothing_filed_cannot_be_opened_whatever_length_is_expected(
        self, backend: Backend, hint: int
    ) -> None:
        backend.write(key(1), b"a neighbour")

        with pytest.raises(KeyMissing), backend.open(key(2), size_hint=hint):
            pass

    def test_where_nothing_is_unfinished_nothing_is_touched(self, place: Place) -> None:
        data = noise(PART + 1)
        upload(place.backend, key(1), data, size_hint=len(data))
        store = SnapshotStore(place.backend)

        for _ in range(2):
            store.abort_unfinished({digest(b"%d" % number): len(data) for number in (1, 2)})

        assert read(place.backend, key(1)) == data
        assert place.backend.size(key(2)) is None

    @pytest.mark.parametrize("length", [10, 20 * MIB])
    def test_an_upload_is_in_no_ones_sight_before_its_commit(self, backend: Backend, length: int) -> None:
        backend.write(key(1), b"old")

        with backend.upload(key(1), length) as over_old, backend.upload(key(2), length) as new:
            over_old.write(noise(length))
            new.write(noise(length))
            assert read(backend, key(1)) == b"old"
            assert backend.size(key(2)) is None
            over_old.commit()
            new.commit()
            assert read(backend, key(1)) == read(backend, key(2)) == noise(length)

    @pytest.mark.parametrize("length", [10, 20 * MIB])
    @pytest.mark.parametrize("how", ["left", "raised", "aborted twice"])
    def test_an_upload_without_a_commit_leaves_no_trace(self, place: Place, length: int, how: str) -> None:
        place.backend.write(key(1), b"old")

        for at in (key(1), key(2)):
            with suppress(ZeroDivisionError), place.backend.upload(at, length) as begun:
                begun.write(noise(length))
                if how == "aborted twice":
                    begun.abort()
                    begun.abort()
                if how == "raised":
                    raise ZeroDivisionError

        assert read(place.backend, key(1)) == b"old"
        assert place.backend.size(key(2)) is None
        assert place.leftovers() == []

    @pytest.mark.parametrize("length", [10, 20 * MIB])
    def test_an_abort_after_the_commit_does_no_harm(self, place: Place, length: int) -> None:
        with place.backend.upload(key(1), length) as begun:
            begun.write(noise(length))
            begun.commit()
            begun.abort()

        assert read(place.backend, key(1)) == noise(length)
        assert place.leftovers() == []

    def test_writers_of_the_same_bytes_at_once_all_succeed(self, place: Place) -> None:
        data = noise(300_000)

        def write(number: int) -> None:
            if number % 2:
                place.backend.write(key(1), data)
            else:
                upload(place.backend, key(1), data, size_hint=len(data), chunk=100_000)

        def write_and_read(number: int) -> bool:
            try:
                write(number)
            except StoreUnavailable:
                if not self.fails_writers_at_once:
                    raise
                return True
            return not self.replaces_at_once or read(place.backend, key(1)) == data

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(write_and_read, range(24))) == [True] * 24
        if self.fails_writers_at_once:
            write(0)
        assert read(place.backend, key(1)) == data
        assert place.leftovers() == []


class MissingStoreContract:
    """A store that is not there, for kinds that can be absent. The file supplies the fixture ``absent``."""

    def test_its_absence_is_an_error_and_never_an_empty_store(self, absent: Backend) -> None:
        with pytest.raises(StoreNotFound):
            absent.check(for_writing=False)
        with pytest.raises(StoreNotFound):
            list(absent.keys(".objects/"))
        with pytest.raises(StoreNotFound), absent.open(key(1)):
            pass

    def test_a_snapshot_store_on_it_says_so(self, absent: Backend) -> None:
        store = SnapshotStore(absent)

        with pytest.raises(StoreNotFound):
            store.list_manifest_ids()
        with pytest.raises(StoreNotFound):
            store.get_object(EMPTY_ADDRESS)
        with pytest.raises(StoreNotFound):
            store.check_object(EMPTY_ADDRESS)
        with pytest.raises(StoreNotFound):
            store.get_manifest(EMPTY_ADDRESS)


class StoreContract(FilesContract, NamesContract, ReplacingContract):
    """Verified objects and manifests. The pools are one; `SplitStoreContract` takes two."""

    kind: str
    manifests_kind: str | None = None

    @pytest.fixture
    def objects(self, make_place: MakePlace) -> Backend:
        return make_place(self.kind).backend

    @pytest.fixture
    def manifests(self, objects: Backend, make_place: MakePlace) -> Backend:
        return make_place(self.manifests_kind).backend if self.manifests_kind else objects

    @pytest.fixture
    def store(self, objects: Backend, manifests: Backend) -> SnapshotStore:
        return SnapshotStore(objects, manifests)

    def test_an_object_is_read_back(self, store: SnapshotStore) -> None:
        for data in (b"", b"some bytes", noise(2 * MIB + 1)):
            address = digest(data)
            assert not store.has_object(address)

            store.put_object(address, data)
            store.put_object(address, data)

            assert store.has_object(address)
            assert store.get_object(address) == data

    def test_an_object_that_is_not_there_is_missing(self, store: SnapshotStore) -> None:
        with pytest.raises(ObjectMissing) as caught:
            store.get_object(digest(b"nowhere"))
        assert caught.value.subject == digest(b"nowhere")

    def test_bytes_that_do_not_hash_to_the_address_are_not_written(
        self, store: SnapshotStore, objects: Backend
    ) -> None:
        address = digest(b"right")

        with pytest.raises(IntegrityError):
            store.put_object(address, b"wrong")
        assert objects.size(object_key(address)) is None

        store.put_object(address, b"right")
        with pytest.raises(IntegrityError):
            store.put_object(address, b"wrong")
        assert store.get_object(address) == b"right"

    def test_a_corrupt_object_is_never_returned(self, store: SnapshotStore, objects: Backend) -> None:
        address = digest(b"right")
        objects.write(object_key(address), b"rihgt")

        with pytest.raises(IntegrityError) as caught:
            store.get_object(address)
        assert caught.value.subject == address

    @pytest.mark.parametrize("length", [0, 1, CHUNK_BYTES, MIB, 5 * PART + 3])
    def test_an_intact_object_passes_the_check(
        self, store: SnapshotStore, objects: Backend, length: int
    ) -> None:
        """The advisory size decides nothing: the right one, none, one too small, one too large."""
        data = noise(length)
        objects.write(object_key(digest(data)), data)
        for hint in (length, 0, length // 2, length + MIB) if length < MIB else (length, 0):
            pieces: list[int] = []
            assert store.check_object(digest(data), size_hint=hint, on_bytes=pieces.append) == length
            assert sum(pieces) == length
        assert read(objects, object_key(digest(data))) == data

    @pytest.mark.parametrize("length", [1, CHUNK_BYTES + 1, 5 * PART + 3])
    def test_an_object_that_is_wrong_in_any_way_fails_the_check(
        self, store: SnapshotStore, objects: Backend, length: int
    ) -> None:
        data = noise(length)
        address, last = digest(data), data[-1]
        wrong = (data[:-1] + bytes([last ^ 1]), data + b"!", data[:-1], b"", b"the bytes of another object")
        # An object that is read in ranges takes long to write.
        for body in wrong if length < MIB else wrong[:2]:
            objects.write(object_key(address), body)
            for hint in (length, 0, len(body)) if length < MIB else (length,):
                with pytest.raises(IntegrityError) as caught:
                    store.check_object(address, size_hint=hint)
                assert (caught.value.store, caught.value.subject) == (objects.label, address)
                assert digest(body) not in str(caught.value)

    def test_an_object_that_is_not_there_fails_the_check_as_missing(self, store: SnapshotStore) -> None:
        store.put_object(EMPTY_ADDRESS, b"")
        for hint in (0, 5, 5 * PART):
            with pytest.raises(ObjectMissing) as caught:
                store.check_object(digest(b"nowhere"), size_hint=hint)
            assert (caught.value.store, caught.value.subject) == (store.label, digest(b"nowhere"))

    @pytest.mark.parametrize("count", [1, 2, 40])
    def test_needed_objects_come_in_input_order_with_duplicates(
        self, store: SnapshotStore, objects: Backend, count: int
    ) -> None:
        bodies = [b"%d" % number for number in range(count)]
        for body in bodies[::3]:
            store.put_object(digest(body), body)
        objects.write(f".objects/000/000/000/{'0' * 54}", b"a stranger at the start")
        objects.write(".objects/777/777/777/.tmp-host-1-2", b"a stranger in the middle")
        asked = [digest(body) for body in [*reversed(bodies), *bodies]]

        present = {digest(body) for body in bodies[::3]}
        assert store.objects_needed(asked) == [address for address in asked if address not in present]
        assert store.objects_needed(iter(sorted(present))) == []
        assert store.objects_needed([]) == []
        memory = ListingMemory()
        for part in (asked[:7], asked[7:], asked):
            absent = [address for address in part if address not in present]
            assert store.objects_needed_of_many(part, memory) == absent

    @pytest.mark.parametrize("count", [1, 2, 40])
    def test_the_lengths_of_objects_are_told_and_none_for_absent_ones(
        self, store: SnapshotStore, objects: Backend, count: int
    ) -> None:
        bodies = [b"x" * number for number in range(1, count + 1)]
        for body in bodies[::3]:
            store.put_object(digest(body), body)
        torn = digest(b"torn")
        objects.write(object_key(torn), b"")
        objects.write(f".objects/000/000/000/{'0' * 54}", b"a stranger at the start")
        there = {digest(body): len(body) for body in bodies[::3]}

        asked = [*map(digest, bodies), torn]

        assert store.lengths(asked) == dict.fromkeys(asked) | there | {torn: 0}
        assert store.lengths([]) == {}

    def test_a_torn_object_counts_as_absent_and_heals(self, store: SnapshotStore, objects: Backend) -> None:
        """A zero length is a whole object only at the address of the empty one."""
        torn, address = b"torn", digest(b"torn")
        objects.write(object_key(address), b"")
        objects.write(object_key(EMPTY_ADDRESS), b"")
        manifest, snapshot = _snapshot({"a": torn, "b": b""})

        assert not store.has_object(address)
        assert store.has_object(EMPTY_ADDRESS)
        assert store.objects_needed([address]) == [address]
        assert store.objects_needed([EMPTY_ADDRESS, address]) == [address]
        with pytest.raises(ManifestIncomplete) as caught:
            store.put_manifest(snapshot, manifest)
        assert caught.value.missing == (address,)

        store.put_object(address, torn)
        store.put_manifest(snapshot, manifest)
        assert store.list_manifest_ids() == [snapshot]

    @pytest.mark.parametrize("text", NO_ADDRESSES)
    def test_what_is_no_address_is_refused_before_anything_is_asked(
        self,
        monkeypatch: pytest.MonkeyPatch,
        objects: Backend,
        manifests: Backend,
        store: SnapshotStore,
        text: str,
    ) -> None:
        asked: list[str] = []
        for backend in {objects, manifests}:
            for verb in ("size", "sizes", "keys", "open", "write", "upload", "delete"):
                monkeypatch.setattr(backend, verb, lambda *_, verb=verb, **__: asked.append(verb))

        for attempt in (
            lambda: store.has_object(text),
            lambda: store.get_object(text),
            lambda: store.put_object(text, b""),
            lambda: store.objects_needed([EMPTY_ADDRESS, digest(b"1"), text]),
            lambda: store.get_manifest(text),
            lambda: store.put_manifest(text, b""),
            lambda: store.delete_manifest(text),
            lambda: store.manifests_present([EMPTY_ADDRESS, text]),
            lambda: store.publish_all(store, [EMPTY_ADDRESS, text]),
            lambda: store.survey([text]),
        ):
            with pytest.raises(InvalidAddress):
                attempt()
        assert asked == []

    def test_objects_are_listed_with_their_lengths_and_strangers_are_ignored(
        self, store: SnapshotStore, objects: Backend
    ) -> None:
        lengths = {digest(noise(length)): length for length in (0, 1, 5000)}
        before = time.time()
        for length in lengths.values():
            store.put_object(digest(noise(length)), noise(length))
        for stranger in ("abc/def/012/short", "README", "abc/def/012/.tmp-h-1-2"):
            objects.write(f".objects/{stranger}", b"not an object")

        listed = list(store.list_objects())
        assert [(each.address, each.length) for each in listed] == sorted(lengths.items())
        assert all(before - 60 <= each.modified <= time.time() + 60 for each in listed)

    def test_a_manifest_is_published_only_over_all_of_its_objects(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        bodies = {f"file {number}": b"%d" % number for number in range(25)} | {"empty": b""}
        manifest, snapshot = _snapshot(bodies)
        left_out = sorted(digest(b"%d" % number) for number in (3, 17))
        for body in bodies.values():
            if digest(body) not in left_out:
                store.put_object(digest(body), body)

        with pytest.raises(ManifestIncomplete) as caught:
            store.put_manifest(snapshot, manifest)
        assert sorted(caught.value.missing) == left_out
        assert manifests.size(manifest_key(parse_snapshot_id(snapshot))) is None
        assert store.list_manifest_ids() == []
        with pytest.raises(ManifestMissing):
            store.get_manifest(snapshot)

        for number in (3, 17):
            store.put_object(digest(b"%d" % number), b"%d" % number)
        store.put_manifest(snapshot, manifest)
        store.put_manifest(snapshot, manifest)
        assert store.get_manifest(snapshot) == manifest
        assert read(manifests, manifest_key(parse_snapshot_id(snapshot))) == manifest
        assert store.list_manifest_ids() == [snapshot]

    def test_a_manifest_under_another_id_is_not_written(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        store.put_object(EMPTY_ADDRESS, b"")
        manifest, _ = _snapshot({"a": b""})
        wrong = digest(b"another")

        with pytest.raises(IntegrityError):
            store.put_manifest(wrong, manifest)
        assert manifests.size(manifest_key(SnapshotId(wrong))) is None

    def test_a_corrupt_manifest_is_never_returned_and_is_replaced(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        store.put_object(EMPTY_ADDRESS, b"")
        manifest, snapshot = _snapshot({"a": b""})
        manifests.write(manifest_key(parse_snapshot_id(snapshot)), manifest.replace(b"./a", b"./b"))

        with pytest.raises(IntegrityError):
            store.get_manifest(snapshot)
        store.put_manifest(snapshot, manifest)
        assert store.get_manifest(snapshot) == manifest

    def test_strangers_among_the_manifests_are_ignored(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        store.put_object(EMPTY_ADDRESS, b"")
        published = []
        for name in "abc":
            manifest, snapshot = _snapshot({name: b""})
            store.put_manifest(snapshot, manifest)
            published.append(snapshot)
        for stranger in ("abc/def/012/short", "README", f"ABC/def/012/{'a' * 55}", "abc/def/012/.tmp-h-1-2"):
            manifests.write(f".manifests/{stranger}", b"not a manifest")

        assert store.list_manifest_ids() == sorted(published)

    def test_manifests_are_listed_with_their_lengths_and_times_and_found_by_their_ids(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        store.put_object(EMPTY_ADDRESS, b"")
        manifests_made = [_snapshot(dict.fromkeys(names, b"")) for names in ("a", "ab", "abc")]
        texts = {snapshot: manifest for manifest, snapshot in manifests_made}
        before = time.time()
        for snapshot, manifest in texts.items():
            store.put_manifest(snapshot, manifest)
        manifests.write(manifest_key(SnapshotId(digest(b"torn"))), b"")
        manifests.write(".manifests/README", b"a stranger")

        found = store.list_manifests()
        assert list(found) == store.list_manifest_ids() == sorted([*texts, digest(b"torn")])
        assert {s: len(text) for s, text in texts.items()} == {
            s: found[parse_snapshot_id(s)].length for s in texts
        }
        assert all(before - 2 <= one.modified <= time.time() + 2 for one in found.values())
        asked = [*texts, digest(b"torn"), digest(b"nowhere")]
        assert store.manifests_present(asked) == set(texts)
        assert store.manifests_present([digest(b"nowhere")]) == set()
        assert store.manifests_present(iter([])) == set()

    def test_of_several_snapshots_those_are_published_that_are_complete(
        self, store: SnapshotStore, make_place: MakePlace
    ) -> None:
        source = SnapshotStore(make_place("memory").backend)
        contents = {"one": {"a": b"a", "shared": b"s"}, "two": {"b": b"b", "shared": b"s"}, "none": {}}
        snapshots = {}
        for name, files in contents.items():
            for body in files.values():
                source.put_object(digest(body), body)
            manifest, snapshots[name] = _snapshot(files)
            source.put_manifest(snapshots[name], manifest)
        store.put_object(digest(b"a"), b"a")
        store.put_object(digest(b"s"), b"s")

        first = store.publish_all(source, snapshots.values())
        assert list(first) == list(snapshots.values())
        assert first == {
            snapshots["one"]: Published(written=True),
            snapshots["two"]: Published(missing=(digest(b"b"),)),
            snapshots["none"]: Published(written=True),
        }
        assert store.list_manifest_ids() == sorted([snapshots["one"], snapshots["none"]])

        store.put_object(digest(b"b"), b"b")
        assert store.publish_all(source, snapshots.values()) == {
            snapshots["one"]: Published(),
            snapshots["two"]: Published(written=True),
            snapshots["none"]: Published(),
        }
        assert store.list_manifest_ids() == sorted(snapshots.values())
        for snapshot in snapshots.values():
            assert store.get_manifest(snapshot) == source.get_manifest(snapshot)

    def test_a_withdrawn_snapshot_is_gone_and_its_objects_stay(self, store: SnapshotStore) -> None:
        store.put_object(EMPTY_ADDRESS, b"")
        manifest, snapshot = _snapshot({"a": b""})
        store.put_manifest(snapshot, manifest)

        store.delete_manifest(snapshot)
        store.delete_manifest(snapshot)

        assert store.list_manifest_ids() == []
        assert store.has_object(EMPTY_ADDRESS)


class SplitStoreContract(StoreContract):
    """The same with the objects in one pool and the manifests in another."""

    def test_each_pool_holds_its_own_part_only(
        self, store: SnapshotStore, objects: Backend, manifests: Backend
    ) -> None:
        store.put_object(EMPTY_ADDRESS, b"")
        manifest, snapshot = _snapshot({"a": b""})
        store.put_manifest(snapshot, manifest)

        assert [k for k, *_ in objects.keys(".objects/")] == [object_key(EMPTY_ADDRESS)]
        assert list(objects.keys(".manifests/")) == []
        assert [k for k, *_ in manifests.keys(".manifests/")] == [manifest_key(parse_snapshot_id(snapshot))]
        assert list(manifests.keys(".objects/")) == []


def _snapshot(files: dict[str, bytes]) -> tuple[bytes, str]:
    entries = [Entry("F", "644", digest(body), len(body), f"./{name}") for name, body in files.items()]
    root = Entry("D", "755", digest(b"merkle"), 0, "./")
    manifest = render([root, *entries])
    return manifest, snapshot_id(manifest)
