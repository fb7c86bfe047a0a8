"""What a store sends and moves at a pace: all of it, and none of it before its time."""

from __future__ import annotations

import hashlib
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from snapferry.stores.address import OBJECTS, object_key, parse_address
from snapferry.stores.backend import Backend
from snapferry.stores.backends.directory import streams
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.errors import KeyMissing, StoreUnavailable
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.pools.files import commit_files, stage_file
from snapferry.stores.pools.in_parts import DonePart, PartsCopy
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import Upload
from snapferry.stores.urls import parse_url
from snapferry.stores.wrappers.forwarding import ForwardingBackend
from snapferry.stores.wrappers.throttled import throttled
from tests.counting import Traffic, counting_proxy
from tests.faults.scripted_server import scripted
from tests.opening import open_backend, open_store
from tests.servers import S3Server
from tests.unit.test_directory_clone import standing_in

MIB = 1024 * 1024

KEY = object_key(parse_address("a" * 64))


class Stop(Exception):
    pass


class Ledger:
    """A pace that writes down what it is asked for, and stops everything when told to."""

    def __init__(self) -> None:
        self.sent = self.moved = self.most_at_once = 0
        self.stopped = False
        self._lock = threading.Lock()

    def acquire_requests(self, count: int, /) -> None:
        if self.stopped:
            raise Stop
        with self._lock:
            self.sent += count

    def acquire_bytes(self, count: int, /) -> None:
        if self.stopped:
            raise Stop
        with self._lock:
            self.moved += count

    def refund_bytes(self, count: int, /) -> None:
        with self._lock:
            self.moved -= count


def test_a_wrapper_hands_on_everything_that_a_backend_has() -> None:
    of_backends = {name for name, _ in inspect.getmembers(Backend) if not name.startswith("_")} - {"inner"}

    assert of_backends <= vars(ForwardingBackend).keys()


def staged_in(backend: Backend, key: str, data: bytes) -> Upload:
    upload = backend.upload(key, len(data))
    upload.write(data)
    upload.finish()
    return upload


@pytest.fixture
def pace() -> Ledger:
    return Ledger()


@pytest.fixture(params=["memory", "file"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    return MemoryBackend() if request.param == "memory" else DirectoryBackend(str(tmp_path / "store"))


@pytest.mark.parametrize("size_hint", [1000, 0, 10, 9999])
def test_each_call_is_a_request_and_each_byte_counts_whatever_was_expected(
    backend: Backend, pace: Ledger, size_hint: int
) -> None:
    slow = throttled(backend, pace)
    data = os.urandom(1000)

    slow.write(KEY, data)
    assert (pace.sent, pace.moved) == (1, 1000)
    found = slow.fetch(KEY, size_hint)
    assert found is not None
    assert data.startswith(found)
    assert (pace.sent, pace.moved) == (2, 1000 + len(found))
    before = pace.moved
    with slow.open(KEY, size_hint=size_hint) as reader:
        assert reader.read(2000) == data
        assert reader.read(2000) == b""
    assert (pace.sent, pace.moved) == (3, before + 1000)
    with slow.upload(KEY, size_hint) as upload:
        upload.write(data)
        upload.write(data)
        upload.commit()
    assert (pace.sent, pace.moved) == (4, before + 3000)
    staged = [staged_in(slow, object_key(parse_address(f"{n}" * 64)), data) for n in range(5)]
    slow.commit_all(staged)
    assert (pace.sent, pace.moved) == (9, before + 8000)
    assert slow.size(KEY) == 2000
    assert slow.sizes([KEY, object_key(parse_address("b" * 64))]) == [2000, None]
    assert pace.sent == 12
    assert len(list(slow.keys(OBJECTS))) == 6
    slow.delete(KEY)
    assert (pace.sent, pace.moved) == (14, before + 8000)


def test_a_thousand_keys_listed_are_a_request(pace: Ledger) -> None:
    backend = MemoryBackend()
    for number in range(2001):
        backend.write(object_key(digest(b"%d" % number)), b"")

    assert len(list(throttled(backend, pace).keys(OBJECTS))) == 2001
    assert pace.sent == 3


def test_what_is_not_there_is_not_paid_for(backend: Backend, pace: Ledger) -> None:
    slow = throttled(backend, pace)
    backend.write(object_key(parse_address("b" * 64)), b"")

    for ask in (lambda: slow.fetch(KEY, 100), lambda: slow.open(KEY, size_hint=10 * MIB)):
        with pytest.raises(KeyMissing):
            ask()
    assert pace.moved == 0


@pytest.fixture
def said(clones: bool, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What each attempt to clone a file returned. It succeeds if *clones*."""
    found: list[bool] = []

    def clone(source: int, target: int) -> bool:
        found.append(clones and standing_in(source, target))
        return found[-1]

    monkeypatch.setattr(streams, "clone", clone)
    return found


@pytest.mark.parametrize("clones", [True, False])
@pytest.mark.parametrize("size_hint", [3 * CHUNK_BYTES + 17, 3 * CHUNK_BYTES - 9, CHUNK_BYTES + 1])
def test_a_clone_counts_as_a_copy_and_stays_one(
    tmp_path: Path, said: list[bool], clones: bool, size_hint: int
) -> None:
    data = os.urandom(3 * CHUNK_BYTES + 17)
    address = digest(data)
    source, destination = open_store(str(tmp_path / "a")), open_store(str(tmp_path / "b"))
    source.put_object(address, data)
    read, written = Ledger(), Ledger()
    source.limit_rate(read, read)
    destination.limit_rate(written, written)

    destination.copy_object(source, address, size_hint=size_hint)

    assert said == [clones]
    assert destination.get_object(address) == data
    assert (read.sent, read.moved) == (1, len(data))
    assert (written.sent, written.moved - len(data)) == (2, len(data))


def test_a_store_takes_up_a_pace_in_the_middle_of_a_group(tmp_path: Path, pace: Ledger) -> None:
    source, destination = open_store(str(tmp_path / "a")), open_store(str(tmp_path / "b"))
    objects = {digest(data): data for data in (b"%d" % number for number in range(10))}
    for address, data in objects.items():
        source.put_object(address, data)
    staged = []
    for number, address in enumerate(objects):
        if number == 5:
            destination.limit_rate(pace, pace)
        staged.append(destination.stage_object(source, address, size_hint=1)[0])

    destination.commit_staged(staged)

    assert destination.objects_needed(objects) == []
    assert pace.moved == 5


def copy_everything(source: SnapshotStore, destination: SnapshotStore, sizes: dict[str, int]) -> None:
    destination.objects_needed(sizes)
    for address, size in sizes.items():
        destination.copy_object(source, parse_address(address), size_hint=size)


class Watching(Traffic):
    """Looks at each request when it comes whether it was paid for by then, and at its bytes when they have moved."""

    def watch(self, pace: Ledger) -> None:
        """Look from now on."""
        self.pieces.clear()
        self.unpaid: list[tuple[int, int, int, int]] = []
        self._pace = pace
        self._came = 0

    @contextmanager
    def passing(self) -> Iterator[None]:
        pace = getattr(self, "_pace", None)
        if pace is None:
            yield
            return
        with self.lock:
            self._came += 1
        self._look(pace)
        yield
        self._look(pace)

    def _look(self, pace: Ledger) -> None:
        with self.lock:
            sizes = [
                size for _, name, _, size in self.pieces if name in {"GetObject", "PutObject", "UploadPart"}
            ]
            moved = sum(sizes)
            if self._came > pace.sent or moved > pace.moved:
                self.unpaid.append((self._came, pace.sent, moved, pace.moved))


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "boto3 alone"])
def test_every_request_and_byte_of_s3_is_paid_for_before_it_is_sent(
    rclone_memory_s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr("snapferry.stores.backends.s3.direct.paths.Paths.path_to", lambda *_: None)
    read, written = Ledger(), Ledger()
    traffic_in, traffic_out = Watching(), Watching()
    sizes = [0, 1, 5000, CHUNK_BYTES + 5, 3 * MIB, 20 * MIB + 1, 35 * MIB + 7]
    data = {digest(each): each for each in (os.urandom(size) for size in sizes)}
    with (
        counting_proxy(rclone_memory_s3, traffic_in) as (here, received_here),
        counting_proxy(rclone_memory_s3, traffic_out) as (there, received_there),
    ):
        source = open_store(here.url(here.make_bucket(), "a"))
        destination = open_store(there.url(there.make_bucket(), "b"))
        for address, each in data.items():
            source.put_object(address, each)
        received_here.clear()
        source.limit_rate(read, read)
        destination.limit_rate(written, written)
        traffic_in.watch(read)
        traffic_out.watch(written)

        copy_everything(source, destination, {address: len(each) for address, each in data.items()})

    assert traffic_in.unpaid == traffic_out.unpaid == []
    assert read.sent == received_here.total()
    assert written.sent == received_there.total()
    assert read.moved == sum(sizes)
    assert written.moved == sum(sizes)
    # Seven objects, two of them in parts.
    assert received_there["UploadPart"] == 3 + 5
    assert received_here["GetObject"] == 6 + 5


@pytest.mark.parametrize(
    "call",
    [
        lambda store, address, *_: store.has_object(address),
        lambda store, address, *_: store.objects_needed([address, "f" * 64]),
        lambda store, address, *_: store.get_object(address),
        lambda store, address, size: store.put_object(address, b"0123456789" * size),
        lambda store, *_: list(store.list_manifest_ids()),
        lambda store, *_: store.delete_manifest("1" * 64),
        lambda store, *_: store.check(),
    ],
    ids=["head", "list", "get", "put", "manifests", "delete", "check"],
)
@pytest.mark.parametrize("size", [1, 300_000], ids=["small", "large"])
def test_where_the_pace_stops_nothing_is_sent(
    rclone_memory_s3: S3Server, call: Callable[[SnapshotStore, str, int], object], size: int
) -> None:
    address = digest(b"0123456789" * size)
    with counting_proxy(rclone_memory_s3) as (server, received):
        store = open_store(server.url(server.make_bucket(), "a"))
        store.check()
        store.has_object(address)
        pace = Ledger()
        pace.stopped = True
        store.limit_rate(pace, pace)
        before = received.total()

        with pytest.raises(Stop):
            call(store, address, size)

        assert received.total() == before


def test_the_pace_stops_a_huge_object_among_its_ranges(rclone_memory_s3: S3Server, tmp_path: Path) -> None:
    data = os.urandom(60 * MIB)
    address = digest(data)
    with counting_proxy(rclone_memory_s3) as (server, received):
        source = open_store(server.url(server.make_bucket(), "a"))
        source.put_object(address, data)
        received.clear()
        destination = open_store(str(tmp_path / "b"))
        pace = Ledger()

        def stop(_: int) -> None:
            # Set while ranges are on their way: those that follow find it.
            source.limit_rate(pace, pace)
            pace.stopped = True

        with pytest.raises(Stop):
            destination.copy_object(source, address, size_hint=len(data), on_bytes=stop)
        assert received["GetObject"] < 8
        assert destination.objects_needed([address]) == [address]


def test_an_upload_that_is_stopped_by_the_pace_leaves_nothing(moto_s3: S3Server, pace: Ledger) -> None:
    bucket = moto_s3.make_bucket()
    slow = throttled(open_backend(parse_url(moto_s3.url(bucket))), pace)

    with pytest.raises(Stop), slow.upload(KEY, 30 * MIB) as upload:
        upload.write(bytes(10 * MIB))
        upload.write(bytes(8 * MIB))
        assert moto_s3.unfinished_uploads(bucket) == [KEY]
        pace.stopped = True
        upload.write(bytes(12 * MIB))
        upload.commit()

    assert moto_s3.unfinished_uploads(bucket) == []


def test_a_request_that_is_tried_again_is_paid_for_again(
    s3_environment: dict[str, str], pace: Ledger
) -> None:
    busy = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n"
    etag = hashlib.md5(b"x" * 1000, usedforsecurity=False).hexdigest().encode()
    fine = b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nETag: "' + etag + b'"\r\n\r\n'
    with scripted([busy], [busy], [fine]) as server:
        backend = open_backend(parse_url(f"s3://bucket/p?endpoint_url={server.endpoint}"))
        slow = throttled(backend, pace)

        slow.write(KEY, b"x" * 1000)

        assert len(server.requests) == 3
        assert (pace.sent, pace.moved) == (3, 3000)


@pytest.mark.parametrize("expected", [0, 400, 1000, 5000])
def test_of_an_answer_that_is_there_as_a_whole_what_came_is_paid_for(
    s3_environment: dict[str, str], pace: Ledger, expected: int
) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000
    with scripted([whole]) as server:
        slow = throttled(open_backend(parse_url(f"s3://bucket/p?endpoint_url={server.endpoint}")), pace)

        with slow.open(KEY, size_hint=expected) as reader:
            assert pace.moved == 1000
            assert reader.read(2000) == b"x" * 1000

    assert (pace.sent, pace.moved) == (1, 1000)


def test_a_broken_answer_gives_back_what_did_not_come(s3_environment: dict[str, str], pace: Ledger) -> None:
    cut = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 400
    with scripted([cut, None]) as server:
        slow = throttled(open_backend(parse_url(f"s3://bucket/p?endpoint_url={server.endpoint}")), pace)

        with pytest.raises(StoreUnavailable), slow.open(KEY, size_hint=1000) as reader:
            reader.read(2000)

        assert pace.moved == 0


@pytest.mark.usefixtures("s3_environment")
@pytest.mark.parametrize("from_bucket", [True, False])
def test_parts_of_an_object_keep_to_the_pace_of_both_stores(
    rclone_memory_s3: S3Server, tmp_path: Path, from_bucket: bool
) -> None:
    data = os.urandom(4 * 16 * 1024 - 3)
    address = digest(data)
    bucket = open_backend(parse_url(rclone_memory_s3.url(rclone_memory_s3.make_bucket(), "p")))
    stores: list[Backend] = [bucket, DirectoryBackend(str(tmp_path))]
    if not from_bucket:
        stores.reverse()
    stores[0].write(object_key(address), data)
    paces = Ledger(), Ledger()
    source, destination = (throttled(store, pace) for store, pace in zip(stores, paces, strict=True))

    copy = PartsCopy.begin(source, destination, address, "job", len(data), 16 * 1024)
    assert copy is not None
    done: dict[int, DonePart] = {}

    def record(text: str) -> bool:
        found = copy.part_in(text)
        assert found is not None
        done[found.part] = found
        return True

    with copy:
        for part in range(copy.shape.parts):
            copy.copy_part(part, lambda: True, record)
        copy.commit(lambda: done)

    assert destination.size(object_key(address)) == len(data)
    read, written = paces
    assert read.moved == len(data)
    # A note is written beside an upload to a bucket.
    assert len(data) <= written.moved < len(data) + 2000
    assert min(read.sent, written.sent) >= copy.shape.parts


@pytest.mark.parametrize("clones", [True, False])
@pytest.mark.parametrize("size", [CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 17, 99 * CHUNK_BYTES])
def test_a_file_of_a_tree_is_cloned_at_a_pace_and_counts_once(
    tmp_path: Path, pace: Ledger, said: list[bool], clones: bool, size: int
) -> None:
    data = os.urandom(3 * CHUNK_BYTES + 17)
    source = open_store(str(tmp_path / "store"))
    source.put_object(digest(data), data)
    source.limit_rate(pace, pace)
    target = TreeTarget(str(tmp_path / "tree"))
    target.prepare([])

    upload, length = stage_file(source, target, TreeEntry(False, 0o644, digest(data), size, "file"))
    commit_files(target, [upload])

    assert said == [clones]
    assert (tmp_path / "tree" / "file").read_bytes() == data
    assert (pace.moved, length) == (len(data), len(data))
