"""Large objects on S3: ranges that come in at once, parts that go out at once, and what goes wrong with them."""

from __future__ import annotations

import logging
import re
import threading
from collections import Counter
from pathlib import Path
from typing import Self

import pytest

from snapferry.stores.address import object_key, parse_address
from snapferry.stores.backends.directory.backend import DirectoryBackend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.s3 import backend as s3
from snapferry.stores.backends.s3 import sizes
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.client import clients
from snapferry.stores.backends.s3.objects import confirm, leftovers, multipart, ranges
from snapferry.stores.backends.s3.sizes import MIN_PART_BYTES, PARTS_IN_FLIGHT, RANGES_IN_FLIGHT
from snapferry.stores.errors import AccessDenied, IntegrityError, KeyMissing, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.streams import GivesPieces, OpenReader
from tests.faults.backends import Around
from tests.faults.stub_s3 import Answer, Request, Stub, error

# Limits a test that fails; no test is decided by it.
TIMEOUT_S = 240.0
RANGE = 1000
DATA = bytes(range(251)) * 40  # 10,040 bytes: ten whole ranges and a rest
KEY = object_key(digest(DATA))
CREATED = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
COMPLETED = b"<CompleteMultipartUploadResult><ETag>&quot;whole&quot;</ETag></CompleteMultipartUploadResult>"


@pytest.fixture
def stub(shared_stub: Stub) -> Stub:
    return shared_stub


@pytest.fixture
def backend(
    stub: Stub, s3_environment: dict[str, str], fresh_s3_clients: None, monkeypatch: pytest.MonkeyPatch
) -> S3Backend:
    """A backend on the stub, whose client asks only once and knows nothing of the server yet."""
    monkeypatch.setattr(clients, "ATTEMPTS", 1)
    # Its requests would be counted with those of an upload.
    monkeypatch.setattr(confirm, "DETECT_AFTER_BYTES", 2**40)
    return S3Backend(Bucket("bucket", endpoint=stub.endpoint, region="huge-1"))


@pytest.fixture
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (s3, ranges, sizes):
        monkeypatch.setattr(module, "RANGE_BYTES", RANGE)
        monkeypatch.setattr(module, "RANGED_ABOVE_BYTES", 4 * RANGE)


def asked(request: Request) -> tuple[int, int]:
    """Return the first and the last byte that *request* asks for."""
    found = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers["Range"])
    assert found is not None, request.headers
    return int(found[1]), int(found[2])


def part_of(data: bytes, request: Request, etag: str = '"one"') -> Answer:
    """Answer with the range that is asked for, or that the object is shorter."""
    first, last = asked(request)
    if first >= len(data):
        return error(416, "InvalidRange")
    body = data[first : last + 1]
    return Answer(
        206, body, {"Content-Range": f"bytes {first}-{first + len(body) - 1}/{len(data)}", "ETag": etag}
    )


def read(reader: OpenReader, size: int) -> bytes:
    parts = []
    while part := reader.read(size):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.usefixtures("small_ranges")
class TestRanges:
    @pytest.mark.parametrize("size", [1, 7, RANGE - 1, RANGE, RANGE + 1, 3 * RANGE, 10**6])
    def test_they_are_handed_over_in_order_in_pieces_of_any_size(
        self, backend: S3Backend, stub: Stub, size: int
    ) -> None:
        stub.answer = lambda request: part_of(DATA, request)

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, size) == DATA
            assert reader.read(size) == b""
        assert sorted(map(asked, stub.requests)) == [
            (at, min(at + RANGE, len(DATA)) - 1) for at in range(0, len(DATA), RANGE)
        ]
        assert backend.requests_to_read(len(DATA)) == {"GetObject": len(stub.requests)}

    def test_several_are_fetched_at_once(self, backend: S3Backend, stub: Stub) -> None:
        """The first answer says how long the object is, so those behind it wait for its headers."""
        at_once = RANGES_IN_FLIGHT - 1
        together = threading.Barrier(at_once)

        def answer(request: Request) -> Answer:
            if 0 < asked(request)[0] // RANGE <= at_once:
                together.wait(TIMEOUT_S)
            return part_of(DATA, request)

        stub.answer = answer

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, RANGE) == DATA

    def test_all_are_of_the_object_that_the_first_one_came_from(self, backend: S3Backend, stub: Stub) -> None:
        stub.answer = lambda request: part_of(DATA, request)

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            read(reader, RANGE)

        conditions = Counter(request.headers.get("If-Match") for request in stub.requests)
        assert conditions == {None: 1, '"one"': 10}

    @pytest.mark.parametrize("replaced", ["refused", "longer", "shorter"])
    def test_an_object_that_is_replaced_is_an_error_that_passes(
        self, backend: S3Backend, stub: Stub, replaced: str
    ) -> None:
        """Not every server heeds the condition: then the length tells."""

        def answer(request: Request) -> Answer:
            if asked(request)[0] < 5 * RANGE:
                return part_of(DATA, request)
            if replaced == "refused":
                return error(412, "PreconditionFailed")
            return part_of(DATA + b"more" if replaced == "longer" else DATA[:4000], request)

        stub.answer = answer

        with (
            backend.open(KEY, size_hint=len(DATA)) as reader,
            pytest.raises(StoreUnavailable, match="replaced while it was read"),
        ):
            read(reader, RANGE)

    @pytest.mark.parametrize("broken", [1, ranges.RANGE_ATTEMPTS - 1])
    @pytest.mark.parametrize("number", [0, 3, 10], ids=["first", "middle", "last"])
    def test_one_that_breaks_off_is_asked_for_again_and_the_others_are_not(
        self, backend: S3Backend, stub: Stub, number: int, broken: int
    ) -> None:
        left = [broken]

        def answer(request: Request) -> Answer:
            whole = part_of(DATA, request)
            if asked(request)[0] == number * RANGE and left[0]:
                left[0] -= 1
                return Answer(206, whole.body[:17], whole.headers, length=len(whole.body), cut=True)
            return whole

        stub.answer = answer

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, RANGE) == DATA
        times = Counter(asked(request)[0] // RANGE for request in stub.requests)
        assert times == {each: 1 + (broken if each == number else 0) for each in range(11)}

    def test_one_that_breaks_off_every_time_is_unavailable(self, backend: S3Backend, stub: Stub) -> None:
        def answer(request: Request) -> Answer:
            whole = part_of(DATA, request)
            if asked(request)[0] == 2 * RANGE:
                return Answer(206, whole.body[:17], whole.headers, length=len(whole.body))
            return whole

        stub.answer = answer

        with backend.open(KEY, size_hint=len(DATA)) as reader, pytest.raises(StoreUnavailable) as caught:
            read(reader, RANGE)
        assert (caught.value.store, caught.value.subject) == (backend.label, KEY)
        times = Counter(asked(request)[0] // RANGE for request in stub.requests)
        assert times[2] == ranges.RANGE_ATTEMPTS

    def test_an_object_that_is_not_there_is_missing_at_first_and_in_the_middle(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        stub.answer = lambda _: error(404, "NoSuchKey")
        with pytest.raises(KeyMissing), backend.open(KEY, size_hint=len(DATA)):
            pass

        stub.answer = lambda request: (
            part_of(DATA, request) if asked(request)[0] < 5 * RANGE else error(404, "NoSuchKey")
        )
        with backend.open(KEY, size_hint=len(DATA)) as reader, pytest.raises(KeyMissing):
            read(reader, RANGE)

    @pytest.mark.parametrize("length", [1, RANGE - 1, RANGE, RANGE + 1, 30 * RANGE])
    def test_the_length_is_what_the_store_says_and_not_what_was_expected(
        self, backend: S3Backend, stub: Stub, length: int
    ) -> None:
        data = (DATA * 3)[:length]
        stub.answer = lambda request: part_of(data, request)

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, RANGE) == data

    def test_an_empty_object_that_was_announced_as_large_is_read(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        stub.answer = lambda request: error(416, "InvalidRange") if "Range" in request.headers else Answer()

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, RANGE) == b""

    def test_a_server_that_knows_no_ranges_is_read_from_front_to_back(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        stub.answer = lambda _: Answer(200, DATA)

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, RANGE) == DATA

    def test_they_take_the_direct_path_with_the_etag_as_the_server_sends_it(
        self, backend: S3Backend, stub: Stub, by_boto: list[str]
    ) -> None:
        stub.answer = lambda request: part_of(DATA, request, '"MiXed=Case"')

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, RANGE) == DATA

        assert by_boto == []
        conditions = Counter(request.headers.get("If-Match") for request in stub.requests)
        assert conditions == {None: 1, '"MiXed=Case"': 10}
        assert backend.bucket.requests_sent == {"GetObject": 11}

    @pytest.mark.parametrize("excess", [b"x", b"HTTP/1.1 206 Partial Content\r\n\r\n"])
    def test_one_with_more_bytes_than_it_announces_is_no_range(
        self, backend: S3Backend, stub: Stub, excess: bytes
    ) -> None:
        """The server sends the right bytes and more, under the header of the right range."""

        def answer(request: Request) -> Answer:
            whole = part_of(DATA, request)
            return Answer(206, whole.body + excess, whole.headers)

        stub.answer = answer

        with pytest.raises(StoreUnavailable), backend.open(KEY, size_hint=len(DATA)) as reader:
            read(reader, RANGE)

    def test_memory_that_came_back_is_used_again(self, backend: S3Backend, stub: Stub) -> None:
        stub.answer = lambda request: part_of(DATA, request)

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert isinstance(reader, GivesPieces)
            used, found = set(), bytearray()
            while piece := reader.give():
                used.add(id(piece))
                found += piece
                reader.take_back(piece)

        assert found == DATA
        # Those that are fetched ahead, the one that was given, and the rest, which is shorter.
        assert len(used) <= RANGES_IN_FLIGHT + 2

    @pytest.mark.parametrize("size", [1, RANGE, 3 * RANGE])
    def test_after_a_range_that_failed_no_later_one_is_returned(
        self, backend: S3Backend, stub: Stub, size: int
    ) -> None:
        """Otherwise a range would be missing, and two that are fetched could get the same memory."""

        def answer(request: Request) -> Answer:
            broken = asked(request)[0] == 2 * RANGE
            return error(403, "AccessDenied") if broken else part_of(DATA, request)

        stub.answer = answer
        with backend.open(KEY, size_hint=len(DATA)) as reader:
            with pytest.raises(AccessDenied):
                read(reader, size)
            for _ in range(2):
                with pytest.raises(AccessDenied):
                    reader.read(size)

    def test_a_range_of_an_object_of_no_bytes_is_none(self, backend: S3Backend, stub: Stub) -> None:
        """The header contradicts itself. A connection must not be left open, which Python would warn of."""

        def answer(request: Request) -> Answer:
            if "Range" not in request.headers:
                return Answer(200, DATA)
            return Answer(206, DATA[:RANGE], {"Content-Range": "bytes 0-0/0"})

        stub.answer = answer
        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, RANGE) == DATA

    @pytest.mark.parametrize("kind", ["file", "memory"])
    def test_a_copy_has_every_range_once_and_in_order(
        self, backend: S3Backend, stub: Stub, kind: str, tmp_path: Path
    ) -> None:
        stub.answer = lambda request: part_of(DATA, request)
        target = DirectoryBackend(str(tmp_path)) if kind == "file" else MemoryBackend()

        SnapshotStore(target).copy_object(SnapshotStore(backend), digest(DATA), size_hint=len(DATA))

        with target.open(KEY, size_hint=len(DATA)) as reader:
            assert read(reader, RANGE) == DATA

    def test_what_was_fetched_ahead_is_bounded_and_dropped_with_the_reader(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        stub.answer = lambda request: part_of(DATA, request)
        before = threading.active_count()

        with backend.open(KEY, size_hint=len(DATA)) as reader:
            assert reader.read(10) == DATA[:10]

        assert len(stub.requests) <= 1 + RANGES_IN_FLIGHT
        assert sum(thread.name.startswith("s3-range") for thread in threading.enumerate()) == 0
        assert threading.active_count() <= before + len(stub.requests)


class FakeBucket:
    """Takes uploads. Parts wait until so many are on their way as may be; *events* has what ended, in order."""

    def __init__(self, *, together: int = PARTS_IN_FLIGHT) -> None:
        self.events: list[str] = []
        self._lock = threading.Lock()
        self._together = threading.Barrier(together)
        self._waiting = together

    def answer(self, request: Request) -> Answer:
        operation = request.operation
        if operation == "PUT uploadId partNumber":
            if int(request.query["partNumber"]) <= self._waiting:
                self._together.wait(TIMEOUT_S)
            self._note("part")
            return Answer(200)
        self._note(operation)
        return Answer(200, CREATED if operation == "POST uploads" else COMPLETED)

    def _note(self, event: str) -> None:
        with self._lock:
            self.events.append(event)


class TestParts:
    PARTS = PARTS_IN_FLIGHT + 2
    LENGTH = PARTS * MIN_PART_BYTES

    def test_several_are_on_their_way_at_once_and_complete_in_order(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        bucket = FakeBucket()
        stub.answer = bucket.answer

        with backend.upload(KEY, self.LENGTH) as upload:
            for number in range(self.PARTS):
                upload.write(bytes([number]) * MIN_PART_BYTES)
            upload.commit()

        assert Counter(bucket.events) == {"POST uploads": 1, "part": self.PARTS, "POST uploadId": 1}
        sent = {int(r.query["partNumber"]): r.body for r in stub.requests if "partNumber" in r.query}
        assert [sent[n + 1] for n in range(self.PARTS)] == [
            bytes([n]) * MIN_PART_BYTES for n in range(self.PARTS)
        ]
        numbers = re.findall(rb"<PartNumber>(\d+)<", stub.requests[-1].body)
        assert [int(number) for number in numbers] == list(range(1, self.PARTS + 1))

    @pytest.mark.parametrize("fault", ["hash", "read"])
    def test_no_part_arrives_after_the_abort_when_the_source_turns_out_bad(
        self, backend: S3Backend, stub: Stub, fault: str
    ) -> None:
        """All the parts that may be on their way are, when the last bytes show that the source is corrupt or gone."""
        bucket = FakeBucket()
        stub.answer = bucket.answer
        data = bytes(self.LENGTH)
        source = SnapshotStore(_Breaks(data) if fault == "read" else _holding(data + b"!", digest(data)))
        expected = StoreUnavailable if fault == "read" else IntegrityError

        with pytest.raises(expected):
            SnapshotStore(backend).copy_object(source, digest(data), size_hint=self.LENGTH)

        operations = stub.operations()
        assert operations[-1] == "DELETE uploadId"
        # Wrong bytes are read a second time, for an upload of their own.
        assert (
            operations.count("DELETE uploadId") == operations.count("POST uploads") == 1 + (fault == "hash")
        )
        assert bucket.events[-1] == "DELETE uploadId"
        assert bucket.events.count("part") == sum("partNumber" in r.query for r in stub.requests)
        assert "POST uploadId" not in operations

    def test_one_that_is_refused_ends_the_upload_and_no_part_follows_the_abort(
        self, backend: S3Backend, stub: Stub
    ) -> None:
        bucket = FakeBucket(together=1)
        stub.answer = lambda request: (
            error(503, "SlowDown") if request.query.get("partNumber") == "2" else bucket.answer(request)
        )

        with pytest.raises(StoreUnavailable), backend.upload(KEY, self.LENGTH) as upload:
            for _ in range(4 * self.PARTS):
                upload.write(bytes(MIN_PART_BYTES))

        assert stub.operations()[-1] == "DELETE uploadId"

    def test_pieces_of_any_length_make_the_same_parts(self, backend: S3Backend, stub: Stub) -> None:
        data = bytes(number % 251 for number in range(100_000)) * 200
        for piece in (MIN_PART_BYTES, MIN_PART_BYTES - 1, MIN_PART_BYTES + 1, 1_000_000, len(data)):
            stub.requests.clear()
            bucket = FakeBucket(together=1)
            stub.answer = bucket.answer
            with backend.upload(KEY, len(data)) as upload:
                for at in range(0, len(data), piece):
                    upload.write(data[at : at + piece])
                upload.commit()

            sent = {int(r.query["partNumber"]): r.body for r in stub.requests if "partNumber" in r.query}
            assert [len(sent[number]) for number in sorted(sent)] == [
                MIN_PART_BYTES,
                MIN_PART_BYTES,
                len(data) - 2 * MIN_PART_BYTES,
            ]
            assert b"".join(sent[number] for number in sorted(sent)) == data

    def test_a_stream_of_exactly_one_part_is_one_request(self, backend: S3Backend, stub: Stub) -> None:
        with backend.upload(KEY, MIN_PART_BYTES) as upload:
            upload.write(bytes(MIN_PART_BYTES))
            upload.write(b"")
            upload.commit()

        assert stub.operations() == ["PUT"]

    def test_parts_that_are_large_are_fewer_on_their_way(
        self, backend: S3Backend, stub: Stub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory is bounded by bytes, and not by a count of parts."""
        monkeypatch.setattr(multipart, "MAX_IN_FLIGHT_BYTES", 2 * MIN_PART_BYTES)
        lock = threading.Lock()
        running, most = [0], [0]
        two = threading.Barrier(2)

        def answer(request: Request) -> Answer:
            if "partNumber" in request.query:
                with lock:
                    running[0] += 1
                    most[0] = max(most[0], running[0])
                if int(request.query["partNumber"]) <= 2:
                    two.wait(TIMEOUT_S)
                with lock:
                    running[0] -= 1
            return Answer(200, CREATED)

        stub.answer = answer
        with backend.upload(KEY, self.LENGTH) as upload:
            for _ in range(self.PARTS):
                upload.write(bytes(MIN_PART_BYTES))

        assert most == [2]


class TestLeftovers:
    OTHER = "other"

    def listed(self, *uploads: tuple[str, str], goes_on: tuple[str, str] | None = None) -> Answer:
        entries = "".join(
            f"<Upload><Key>{key}</Key><UploadId>{number}</UploadId></Upload>" for key, number in uploads
        )
        marks = (
            f"<NextKeyMarker>{goes_on[0]}</NextKeyMarker><NextUploadIdMarker>{goes_on[1]}</NextUploadIdMarker>"
            if goes_on
            else ""
        )
        text = f"<IsTruncated>{str(bool(goes_on)).lower()}</IsTruncated>{marks}{entries}"
        return Answer(200, f"<ListMultipartUploadsResult>{text}</ListMultipartUploadsResult>".encode())

    def test_just_those_of_the_key_are_aborted_on_every_page(self, backend: S3Backend, stub: Stub) -> None:
        def answer(request: Request) -> Answer:
            if request.method == "DELETE":
                return Answer(204)
            if "upload-id-marker" not in request.query:
                return self.listed((KEY, "1"), (KEY, "2"), goes_on=(KEY, "2"))
            return self.listed((KEY, "3"), (KEY + "-not", "4"))

        stub.answer = answer

        backend.abort_unfinished(KEY, 10**9)

        lists = [request for request in stub.requests if request.method == "GET"]
        aborted = [request.query["uploadId"] for request in stub.requests if request.method == "DELETE"]
        assert [request.query["prefix"] for request in lists] == [KEY, KEY]
        assert aborted == ["1", "2", "3"]
        assert {r.path for r in stub.requests if r.method == "DELETE"} == {f"/bucket/{KEY}"}

    def test_nothing_is_asked_for_an_object_of_one_request(self, backend: S3Backend, stub: Stub) -> None:
        backend.abort_unfinished(KEY, MIN_PART_BYTES)

        assert stub.requests == []

    def test_one_that_is_gone_meanwhile_keeps_no_other_from_its_end(
        self, backend: S3Backend, stub: Stub, caplog: pytest.LogCaptureFixture
    ) -> None:
        def answer(request: Request) -> Answer:
            if request.method == "GET":
                return self.listed((KEY, "1"), (KEY, "2"))
            return error(404, "NoSuchUpload") if request.query["uploadId"] == "1" else Answer(204)

        stub.answer = answer

        with caplog.at_level(logging.WARNING):
            backend.abort_unfinished(KEY, 10**9)

        assert stub.operations() == ["GET uploads", "DELETE uploadId", "DELETE uploadId"]
        assert caplog.records == []

    @pytest.mark.parametrize(
        ("lost", "ends", "aborted"),
        [(0, True, []), (1, True, ["1"]), (2, True, ["1", "2"]), (9, False, ["1", "2", "3"])],
    )
    def test_an_upload_whose_beginning_was_not_heard_of_is_aborted(
        self,
        stub: Stub,
        s3_environment: dict[str, str],
        fresh_s3_clients: None,
        monkeypatch: pytest.MonkeyPatch,
        lost: int,
        ends: bool,
        aborted: list[str],
    ) -> None:
        """The server has begun it, and a proxy on the way could not deliver its answer."""
        monkeypatch.setattr(clients, "ATTEMPTS", 3)
        begun: list[str] = []

        def answer(request: Request) -> Answer:
            if request.operation == "POST uploads":
                begun.append(str(len(begun) + 1))
                if len(begun) <= lost:
                    return error(500, "InternalError")
                return Answer(200, f"<Result><UploadId>{begun[-1]}</UploadId></Result>".encode())
            if request.operation == "GET uploads":
                return self.listed(*((KEY, upload) for upload in begun))
            return Answer(204)

        stub.answer = answer
        bucket = Bucket("bucket", "", endpoint=stub.endpoint, region="lost-1")

        if ends:
            assert leftovers.create_upload(bucket, KEY)["UploadId"] == begun[-1]
        else:
            with pytest.raises(StoreUnavailable):
                leftovers.create_upload(bucket, KEY)

        assert [one.query["uploadId"] for one in stub.requests if one.method == "DELETE"] == aborted

    @pytest.mark.parametrize(
        ("status", "code", "warnings"),
        [
            (403, "AccessDenied", 1),
            (501, "NotImplemented", 1),
            (503, "SlowDown", 1),
            (404, "NoSuchUpload", 0),
        ],
    )
    def test_a_server_that_will_not_tell_is_no_error(
        self,
        backend: S3Backend,
        stub: Stub,
        caplog: pytest.LogCaptureFixture,
        status: int,
        code: str,
        warnings: int,
    ) -> None:
        """rclone's server says NoSuchUpload where there is none."""
        stub.answer = lambda _: error(status, code)

        with caplog.at_level(logging.WARNING):
            backend.abort_unfinished(KEY, 10**9)

        leftovers = "snapferry.stores.backends.s3.objects.leftovers"
        assert [record.name for record in caplog.records].count(leftovers) == warnings

    def test_a_listing_that_goes_round_in_circles_ends(
        self, backend: S3Backend, stub: Stub, caplog: pytest.LogCaptureFixture
    ) -> None:
        stub.answer = lambda _: self.listed(goes_on=("k", "1"))

        with caplog.at_level(logging.WARNING):
            backend.abort_unfinished(KEY, 10**9)

        assert len(stub.requests) == 2
        assert "does not advance" in caplog.text


def _holding(data: bytes, address: str) -> MemoryBackend:
    """Return a backend with these bytes at an address that need not be theirs."""
    backend = MemoryBackend("source")
    backend.write(object_key(parse_address(address)), data)
    return backend


class _Breaks(Around):
    """Gives all bytes but the last piece, and then no more answers."""

    def __init__(self, data: bytes) -> None:
        super().__init__(_holding(data, digest(data)))
        self._length = len(data)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        return _BreakingReader(super().open(key, size_hint=size_hint), self._length, self.label, key)


class _BreakingReader:
    def __init__(self, reader: OpenReader, length: int, store: str, key: str) -> None:
        self._reader = reader
        self._left = length
        self._where = store, key

    def read(self, size: int, /) -> bytes:
        self._left -= size
        if self._left <= 0:
            raise StoreUnavailable(*self._where, "no answer (a test says so)")
        return self._reader.read(size)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._reader.__exit__(None, None, None)
