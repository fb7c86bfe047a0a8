"""Answers of S3 that are too long, contradict themselves or make no sense: each costs what was asked for, no more."""

from __future__ import annotations

import gc
import hashlib
import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapferry.stores.address import Address, object_key
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.backends.s3 import listing
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.client import clients as s3_clients
from snapferry.stores.backends.s3.direct.listing import NotAPage, read_page
from snapferry.stores.backends.s3.direct.paths import Paths
from snapferry.stores.backends.s3.http.errors import AnswerTooLong
from snapferry.stores.backends.s3.http.sockets import MAX_PAGE_BYTES
from snapferry.stores.backends.s3.http.xml_limits import MAX_TAGS
from snapferry.stores.backends.s3.sizes import RANGED_ABOVE_BYTES
from snapferry.stores.errors import (
    AccessDenied,
    IntegrityError,
    KeyMissing,
    StoreError,
    StoreFault,
    StoreUnavailable,
)
from snapferry.stores.features import FiniteSpace
from snapferry.stores.hashing import digest
from snapferry.stores.runtime import oversize
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.transfer import copy_batch
from tests.faults.hostile_server import (
    Handle,
    Peer,
    _no_connections_of_other_tests,  # noqa: F401 - a fixture for all tests here
    hostile,
    mostly_slow,
    open_connections,
)
from tests.faults.scripted_server import Piece, scripted
from tests.faults.stub_s3 import Answer, Request, serving
from tests.integration.raw_store import manifest_of
from tests.property.strategies import examples

MIB = 1024 * 1024
DATA = b"an object"
KEY = object_key(digest(DATA))
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(DATA)


# Of an answer whose head boto3 does not understand, the connection is closed when the garbage is collected.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("s3_environment"),
]


@pytest.fixture(autouse=True, scope="module")
def _garbage() -> Iterator[None]:
    """Let no test of another file find what these leave behind."""
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _client_settings(fresh_s3_clients: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients that ask once, and that wait longer than a test may take."""
    monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)
    monkeypatch.setattr(s3_clients, "READ_TIMEOUT_S", 3600)


def read(backend: S3Backend, size_hint: int = 0) -> bytes:
    with backend.open(KEY, size_hint=size_hint) as reader:
        return b"".join(iter(lambda: reader.read(MIB), b""))


def upload(backend: S3Backend) -> None:
    with backend.upload(KEY, 0) as upload:
        upload.write(bytes(20 * MIB))
        upload.commit()


def keys(backend: S3Backend, start_after: str = "") -> list[str]:
    return [found.key for found in backend.keys("p/", start_after)]


CALLS: dict[str, Callable[[S3Backend], object]] = {
    "size": lambda backend: backend.size(KEY),
    "open": read,
    "ranges": lambda backend: read(backend, RANGED_ABOVE_BYTES + 1),
    "write": lambda backend: backend.write(KEY, DATA),
    "upload": upload,
    "keys": keys,
    "delete": lambda backend: backend.delete(KEY),
    "check": lambda backend: backend.check(for_writing=False),
    "leftovers": lambda backend: backend.abort_unfinished(KEY, 100 * MIB),
}


def answering(*pieces: Piece):
    """A server that gives every request the same answer and keeps the connection."""
    return scripted(list(pieces))


def paged(*bodies: bytes) -> Handle:
    """Give the n-th request the n-th page, the last one again and again."""

    def serve(peer: Peer) -> None:
        while peer.request():
            body = (
                b"<ListBucketResult>"
                + bodies[min(len(peer.server.requests), len(bodies)) - 1]
                + b"</ListBucketResult>"
            )
            peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    return serve


def entries(*names: str) -> bytes:
    rest = "<LastModified>2024-05-06T07:08:09.000Z</LastModified><Size>1</Size>"
    return "".join(f"<Contents><Key>{name}</Key>{rest}</Contents>" for name in names).encode()


MORE = b"<IsTruncated>true</IsTruncated><NextContinuationToken>%d</NextContinuationToken>"
END = b"<IsTruncated>false</IsTruncated>"


class TestLength:
    @pytest.mark.parametrize("length", [10**17, 10**18, 99999999999999999999, 5 * 2**40 + 1])
    @pytest.mark.parametrize("name", ["open", "ranges"])
    def test_an_object_longer_than_any_is_refused_at_once(self, sent_by: str, name: str, length: int) -> None:
        span = b"Content-Range: bytes 0-8388607/%d\r\n" % length
        head = b"HTTP/1.1 206 Partial\r\nContent-Length: 8388608\r\n" + span if name == "ranges" else b""
        head = head or OK + b"Content-Length: %d\r\n" % length
        with answering(head + b"\r\n" + DATA) as server, pytest.raises(StoreFault):
            CALLS[name](S3Backend(Bucket("bucket", endpoint=server.endpoint)))

    def test_a_length_below_zero_is_no_length(self, sent_by: str) -> None:
        with answering(OK + b"Content-Length: -1\r\n\r\n", None) as server:
            backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))
            for call in (CALLS["size"], CALLS["open"]):
                with pytest.raises(StoreError):
                    call(backend)

    def test_a_body_without_a_length_ends_far_beyond_what_was_expected(
        self, sent_by: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oversize, "FAR_BEYOND_BYTES", 4 * MIB)

        def serve(peer: Peer) -> None:
            while peer.request():
                peer.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
                while True:
                    peer.send(b"100000\r\n" + bytes(MIB) + b"\r\n")

        with hostile(serve) as server, pytest.raises(StoreFault):
            read(S3Backend(Bucket("bucket", endpoint=server.endpoint)))

    @pytest.mark.parametrize("second", [7, None, 6 * MIB])
    @pytest.mark.parametrize("name", ["open", "ranges"])
    def test_a_length_far_beyond_the_expectation_needs_a_second_answer_that_agrees(
        self, sent_by: str, monkeypatch: pytest.MonkeyPatch, name: str, second: int | None
    ) -> None:
        monkeypatch.setattr(oversize, "FAR_BEYOND_BYTES", 4 * MIB)
        monkeypatch.setattr(oversize, "FAR_BEYOND_TIMES", 0)

        def answer(request: Request) -> Answer:
            if request.method == "HEAD":
                return Answer(404) if second is None else Answer(200, length=second)
            if "Range" in request.headers:
                return Answer(206, bytes(6 * MIB), {"Content-Range": f"bytes 0-{6 * MIB - 1}/{6 * MIB}"})
            return Answer(200, bytes(6 * MIB))

        with serving() as stub:
            stub.answer = answer
            backend = S3Backend(Bucket("bucket", endpoint=stub.endpoint))
            if second == 6 * MIB:
                assert CALLS[name](backend) == bytes(6 * MIB)
            else:
                with pytest.raises(StoreError):
                    CALLS[name](backend)

    def test_a_length_that_is_far_beyond_what_fits_the_destination_costs_that_object(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(oversize, "FAR_BEYOND_BYTES", 4 * MIB)
        written: list[str] = []

        class Small(MemoryBackend, FiniteSpace):
            def free_bytes(self) -> int:
                return 5 * MIB

            def upload(self, key: str, size_hint: int):
                written.append(key)
                return super().upload(key, size_hint)

        with serving() as stub:
            stub.answer = lambda _: Answer(200, bytes(6 * MIB))
            source, destination = (
                SnapshotStore(S3Backend(Bucket("bucket", endpoint=stub.endpoint))),
                SnapshotStore(Small()),
            )
            with pytest.raises(StoreFault, match="room for"):
                destination.copy_object(source, digest(DATA), size_hint=1)
        assert written == []


class TestInterim:
    """What comes before the answer: a status of 1xx."""

    @pytest.mark.parametrize("status", [100, 102, 103, 199])
    @pytest.mark.parametrize("times", [1, 3])
    def test_it_is_passed_over(self, sent_by: str, status: int, times: int) -> None:
        before = b"HTTP/1.1 %d Some\r\nLink: <a>\r\n\r\n" % status * times
        with answering(before + OK + LENGTH + b"\r\n" + DATA) as server:
            assert read(S3Backend(Bucket("bucket", endpoint=server.endpoint))) == DATA
        with answering(before + b"HTTP/1.1 503 Slow\r\nContent-Length: 0\r\n\r\n") as server:
            backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))
            for name in ("size", "open", "write", "delete"):
                with pytest.raises(StoreUnavailable):
                    CALLS[name](backend)

    @pytest.mark.parametrize("name", ["open", "write", "delete"])
    def test_it_is_no_success_alone(self, sent_by: str, name: str) -> None:
        for status in (100, 101, 102, 103):
            with (
                answering(b"HTTP/1.1 %d Some\r\n\r\n" % status, None) as server,
                pytest.raises(StoreUnavailable),
            ):
                CALLS[name](S3Backend(Bucket("bucket", endpoint=server.endpoint)))

    @pytest.mark.parametrize(
        "leave",
        [b"HTTP/1.1 100 Continue\r\n", b"HTTP/1.1 103 Hints\r\nLink: ", b"no HTTP\r\n", b"HTTP/1.1\r\n"],
    )
    def test_leave_to_send_a_body_that_breaks_off_is_an_error_at_once(self, leave: bytes) -> None:
        """boto3 alone would read its end again and again."""

        def serve(peer: Peer) -> None:
            peer.request(body=False)
            peer.send(leave)

        with hostile(serve) as server, pytest.raises(StoreUnavailable):
            S3Backend(Bucket("bucket", endpoint=server.endpoint)).write(KEY, bytes(2 * MIB))

    @pytest.mark.parametrize(
        "leave",
        [
            b"HTTP/1.1 100 Continue\r\n\r\n" * 2,
            b"HTTP/1.1 100 Continue\n\n",
            b"HTTP/1.1 103 Hints\r\nA: b\r\n\r\n",
        ],
    )
    def test_leave_to_send_a_body_has_many_forms(self, leave: bytes) -> None:
        data = bytes(2 * MIB)
        etag = hashlib.md5(data, usedforsecurity=False).hexdigest().encode()

        def serve(peer: Peer) -> None:
            head = peer.request(body=False)
            peer.send(leave)
            if len(peer._incoming.read(len(data))) == len(data) and head:
                peer.send(OK + b'ETag: "%s"\r\nContent-Length: 0\r\n\r\n' % etag)

        with hostile(serve) as server:
            S3Backend(Bucket("bucket", endpoint=server.endpoint)).write(KEY, data)
            assert len(server.requests) == 1


def test_a_refusal_with_a_long_reason_is_a_refusal(sent_by: str) -> None:
    with serving() as stub:
        stub.answer = lambda _: Answer(
            403, b"<Error><Code>AccessDenied</Code><Message>%s</Message></Error>" % (b"x" * MIB)
        )
        for name in ("open", "write", "delete"):
            with pytest.raises(AccessDenied):
                CALLS[name](S3Backend(Bucket("bucket", endpoint=stub.endpoint)))


@pytest.mark.parametrize("replaced", [False, True])
def test_ranges_of_an_object_with_a_weak_etag_are_of_one_object(replaced: bool) -> None:
    data = random.Random(1).randbytes(RANGED_ABOVE_BYTES + 5)

    def answer(request: Request) -> Answer:
        if request.headers.get("If-Match", "").startswith("W/"):
            return Answer(412)
        start, stop = (int(end) for end in request.headers["Range"].removeprefix("bytes=").split("-"))
        etag = 'W/"b"' if replaced and start else 'W/"a"'
        piece = data[start : stop + 1]
        span = f"bytes {start}-{start + len(piece) - 1}/{len(data)}"
        return Answer(206, piece, {"ETag": etag, "Content-Range": span})

    with serving() as stub:
        stub.answer = answer
        backend = S3Backend(Bucket("bucket", endpoint=stub.endpoint))
        if replaced:
            with pytest.raises(StoreUnavailable, match="replaced"):
                read(backend, len(data))
        else:
            assert read(backend, len(data)) == data


@pytest.mark.parametrize("long", ["UploadId", "ETag"])
def test_what_a_server_names_an_upload_and_its_parts_is_bounded(long: str) -> None:
    def answer(request: Request) -> Answer:
        if request.operation == "POST uploads":
            name = "u" * (3000 if long == "UploadId" else 300)
            return Answer(200, f"<R><UploadId>{name}</UploadId></R>".encode())
        return Answer(200, headers={"ETag": "e" * 3000})

    with serving() as stub:
        stub.answer = answer
        with pytest.raises(StoreFault, match="at most"):
            upload(S3Backend(Bucket("bucket", endpoint=stub.endpoint)))


class TestSizeOfAnswers:
    # A success of "open" and "ranges" is the object.
    @pytest.mark.parametrize(
        ("name", "status"),
        [
            pytest.param(
                name,
                status,
                marks=() if status == 404 and name in {"open", "keys", "upload"} else pytest.mark.slow,
            )
            for name in CALLS
            for status in (200, 206, 404, 500)
            if status >= 300 or name not in {"open", "ranges"}
        ],
    )
    @pytest.mark.parametrize(
        "framing", [b"Content-Length: 1073741824\r\n", b"Transfer-Encoding: chunked\r\n"]
    )
    def test_no_answer_but_an_object_is_longer_than_a_page(
        self, sent_by: str, name: str, status: int, framing: bytes
    ) -> None:
        sent = [0]

        def serve(peer: Peer) -> None:
            while head := peer.request():
                peer.send(b"HTTP/1.1 %d Some\r\n" % status + framing + b"\r\n")
                while not head.startswith(b"HEAD"):
                    peer.send(
                        b"10000\r\n" + bytes(65536) + b"\r\n" if b"chunked" in framing else bytes(65536)
                    )
                    sent[0] += 65536
                    assert sent[0] < 20 * (MAX_PAGE_BYTES + 16 * MIB)

        with hostile(serve) as server:
            backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))
            try:
                CALLS[name](backend)
            except StoreError:
                pass
            else:
                # A HEAD has no body, and what cannot be swept is logged.
                assert name in {"size", "check", "leftovers"} or (name, status) == ("delete", 404)
            assert open_connections() == []
            assert sent[0] < len(server.requests) * (MAX_PAGE_BYTES + 16 * MIB)

    @pytest.mark.parametrize(
        "name", mostly_slow(["size", "open", "write", "keys", "delete", "check"], {"open"})
    )
    @pytest.mark.parametrize(
        "before",
        [b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, b"X-Much: " + b"x" * 65_000 + b"\r\n", b"X: y\r\n" * 1000],
    )
    def test_a_head_has_an_end(self, sent_by: str, name: str, before: bytes) -> None:
        def serve(peer: Peer) -> None:
            while peer.request():
                if not before.startswith(b"HTTP"):
                    peer.send(OK)
                while True:
                    peer.send(before)

        with hostile(serve) as server, pytest.raises(StoreError):
            CALLS[name](S3Backend(Bucket("bucket", endpoint=server.endpoint)))

    def test_a_compressed_body_is_not_expanded(self, sent_by: str) -> None:
        with answering(OK + b"Content-Encoding: gzip\r\n" + LENGTH + b"\r\n" + DATA) as server:
            assert read(S3Backend(Bucket("bucket", endpoint=server.endpoint))) == DATA

    @pytest.mark.parametrize(
        "text",
        [
            b"<!DOCTYPE a [<!ENTITY a 'aaaaaaaaaa'>"
            + b"".join(b"<!ENTITY %c '%s'>" % (n + 1, b"&%c;" % n * 10) for n in range(ord("a"), ord("i")))
            + b"]><ListBucketResult><Name>&i;</Name></ListBucketResult>",
            b"<ListBucketResult>" + b"<a/>" * (2 * MAX_TAGS) + b"</ListBucketResult>",
            b"<ListBucketResult>" + b"<a>" * (2 * MAX_TAGS),
            b"<ListBucketResult " + b"".join(b"a%d='' " % n for n in range(MAX_TAGS)) + b"/>",
        ],
        ids=["entities", "tags", "depth", "attributes"],
    )
    @pytest.mark.parametrize("status", [200, 404])
    def test_xml_becomes_little_more_than_it_is(self, sent_by: str, text: bytes, status: int) -> None:
        with (
            answering(
                b"HTTP/1.1 %d Some\r\nContent-Length: %d\r\n\r\n" % (status, len(text)) + text
            ) as server,
            pytest.raises(StoreError),
        ):
            keys(S3Backend(Bucket("bucket", endpoint=server.endpoint)))
        tracemalloc.start()
        try:
            with pytest.raises((NotAPage, AnswerTooLong)):
                read_page(text)
            assert tracemalloc.get_traced_memory()[1] < 4 * MIB
        finally:
            tracemalloc.stop()


class TestListing:
    def fault(self, *bodies: bytes, start_after: str = "") -> StoreFault:
        with hostile(paged(*bodies)) as server, pytest.raises(StoreFault) as caught:
            keys(S3Backend(Bucket("bucket", endpoint=server.endpoint)), start_after)
        return caught.value

    def found(self, *bodies: bytes, start_after: str = "") -> list[str]:
        with hostile(paged(*bodies)) as server:
            return keys(S3Backend(Bucket("bucket", endpoint=server.endpoint)), start_after)

    def test_a_page_may_have_more_keys_than_1000(self, sent_by: str) -> None:
        names = [f"p/{n:05}" for n in range(3000)]
        assert self.found(END + entries(*names)) == names

    @pytest.mark.parametrize("yes", ["TRUE", "True", "1", " true\n"])
    def test_a_listing_goes_on_however_a_server_spells_it(self, sent_by: str, yes: str) -> None:
        """boto3 takes all of these for false; a mirror would delete what the other pages list."""
        more = MORE.replace(b"true", yes.encode())
        assert self.found(more % 1 + entries("p/a"), END + entries("p/b")) == ["p/a", "p/b"]

    @pytest.mark.parametrize("odd", ["", "yes", "t", "truefalse", "2"])
    def test_a_listing_that_neither_goes_on_nor_ends_is_an_error(self, sent_by: str, odd: str) -> None:
        page = f"<IsTruncated>{odd}</IsTruncated>".encode() + entries("p/a")
        with hostile(paged(page)) as server, pytest.raises(StoreUnavailable):
            keys(S3Backend(Bucket("bucket", endpoint=server.endpoint)))

    def test_keys_that_are_repeated_are_passed_over(self, sent_by: str) -> None:
        assert self.found(
            MORE % 1 + entries("p/a", "p/a", "p/b"),
            MORE % 2 + entries("p/b"),
            END + entries("p/b", "p/c", "p/c"),
        ) == ["p/a", "p/b", "p/c"]

    def test_a_listing_that_goes_back_is_an_error(self, sent_by: str) -> None:
        assert "byte order" in str(
            self.fault(MORE % 1 + entries("p/a", "p/b"), END + entries("p/a", "p/b", "p/c"))
        )
        assert "byte order" in str(self.fault(END + entries("p/b", "p/a")))

    def test_keys_outside_of_the_prefix_are_an_error(self, sent_by: str) -> None:
        assert "prefix" in str(self.fault(END + entries("o/a", "p/a")))

    def test_a_server_that_ignores_start_after_is_coped_with(self, sent_by: str) -> None:
        assert self.found(
            MORE % 1 + entries("p/a", "p/b"), END + entries("p/c", "p/d"), start_after="p/c"
        ) == ["p/d"]

    def test_a_server_that_ignores_start_after_for_long_is_named(self, sent_by: str) -> None:
        pages = [MORE % n + entries(f"p/{n:05}") for n in range(30)]
        found = str(self.fault(*pages, start_after="p/z"))
        assert "start-after" in found
        assert "byte order" not in found

    def test_a_listing_that_goes_on_without_a_new_key_ends(
        self, sent_by: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(listing, "MAX_PAGES_WITHOUT_NEWS", 20)
        numbered = [MORE % n + entries("p/a") for n in range(100)]
        assert "no new key" in str(self.fault(*numbered))

    def test_a_few_empty_pages_are_fine(self, sent_by: str) -> None:
        assert self.found(*(MORE % n for n in range(50)), END + entries("p/a")) == ["p/a"]

    @pytest.mark.parametrize("size", ["-1", "x", "", "1e3", "99999999999999999999", "9" * 5000, "0x10"])
    def test_a_size_that_is_none_is_an_error(self, sent_by: str, size: str) -> None:
        with pytest.raises(StoreError):
            self.found(END + entries("p/a").replace(b"<Size>1<", f"<Size>{size}<".encode()))

    @pytest.mark.parametrize(
        "date",
        ["0001-01-01T00:00:00", "0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59-14:00", "inf", "nan", "", "1e400",
         "-1", "2024-13-01T00:00:00Z", "Thu, 01 Jan 0001 00:00:00 GMT", "9" * 400],
    )  # fmt: skip
    def test_a_date_is_read_or_is_an_error(self, sent_by: str, date: str) -> None:
        try:
            (found,) = self.found(END + entries("p/a").replace(b"2024-05-06T07:08:09.000Z", date.encode()))
        except StoreError:
            return
        assert found == "p/a"

    @pytest.mark.parametrize("key", ["p/%00", "p/%ED%A0%80", "p/%FF", "p/\udcff", "p/%", "p/+%2B"])
    def test_an_odd_key_is_passed_on_or_an_error(self, sent_by: str, key: str) -> None:
        body = END + b"<EncodingType>url</EncodingType>" + entries(key.encode(errors="replace").decode())
        assert len(self.found(body)) == 1


class TestNoWaits:
    """The server keeps the connection open, and nothing but an end of the waiting ends the test."""

    ODD: ClassVar[dict[str, bytes]] = {
        "bare LF between headers": OK + b"X-Odd: a\n" + LENGTH + b"\r\n" + DATA,
        "bare LF everywhere": (OK + LENGTH + b"\r\n").replace(b"\r\n", b"\n") + DATA,
        "bare LF at the end of the head": OK + LENGTH[:-2] + b"\n\r\n" + DATA,
        "an empty line with a bare LF": OK + LENGTH + b"\n" + DATA,
        "another protocol": b"220 mail.example.org ESMTP\r\n",
        "no status": b"HTTP/1.1 abc\r\n",
        "a status of four digits": b"HTTP/1.1 2000 OK\r\n",
        "no version": b"HTTP 200 OK\r\n",
        "a head of 200 lines without an end": OK + b"X: y\r\n" * 200,
        "204 with a length": b"HTTP/1.1 204 No Content\r\n" + LENGTH + b"\r\n",
        "304 with a length": b"HTTP/1.1 304 Not Modified\r\n" + LENGTH + b"\r\n",
        "two lengths": OK + LENGTH + LENGTH + b"\r\n" + DATA,
        "length and chunks": OK + LENGTH + b"Transfer-Encoding: chunked\r\n\r\n9\r\nan object\r\n0\r\n\r\n",
        "HTTP/1.0 with a length": b"HTTP/1.0 200 OK\r\n" + LENGTH + b"\r\n" + DATA,
        "close with a length": OK + b"Connection: close\r\n" + LENGTH + b"\r\n" + DATA,
        "a status and nothing of a reason": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + DATA,
    }  # fmt: skip

    @pytest.mark.parametrize(
        "name", mostly_slow(["size", "open", "write", "keys", "delete", "check"], {"open"})
    )
    @pytest.mark.parametrize("odd", ODD)
    @pytest.mark.timeout(120)
    def test_nothing_is_waited_for_that_does_not_come(self, sent_by: str, name: str, odd: str) -> None:
        def serve(peer: Peer) -> None:
            while head := peer.request():
                answer = self.ODD[odd]
                peer.send(
                    answer[: -len(DATA)] if head.startswith(b"HEAD") and answer.endswith(DATA) else answer
                )

        with hostile(serve) as server:
            backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))
            with suppress(StoreError):
                CALLS[name](backend)
            assert server.requests

    @pytest.mark.timeout(120)
    def test_a_head_that_is_answered_with_a_body_leaves_nothing_for_the_next_answer(
        self, sent_by: str
    ) -> None:
        with answering(OK + LENGTH + b"\r\n" + DATA) as server:
            backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))
            for _ in range(5):
                assert backend.size(KEY) == len(DATA)


class TestOneObject:
    """Wrong answers for one object of several cost that one, whatever is wrong with them."""

    ANSWERS: ClassVar[dict[str, bytes]] = {
        "a time without end": OK + b"Last-Modified: inf\r\n" + LENGTH + b"\r\n" + DATA,
        "a listing in place of a refusal": b"HTTP/1.1 404 Not Found\r\nContent-Length: 90\r\n\r\n"
        + (b"<ListBucketResult><IsTruncated>false</IsTruncated><Error>a</Error></ListBucketResult>").ljust(90),
        "an error that is no error": b"HTTP/1.1 500 Bad\r\nContent-Length: 40\r\n\r\n"
        + b"<Error><Code><a/></Code><Code/></Error>".ljust(40),
        "a length of twenty digits": OK + b"Content-Length: 99999999999999999999\r\n\r\n" + DATA,
        "an unknown encoding": b"HTTP/1.1 400 Bad\r\nContent-Length: 60\r\n\r\n"
        + b"<?xml version='1.0' encoding='x-none'?><Error/>".ljust(60),
        "a date in year 1": OK + b"Last-Modified: Mon, 01 Jan 0001 00:00:00 -2359\r\n" + LENGTH + b"\r\n" + DATA,
        "numbers that are none": OK
        + b"x-amz-missing-meta: x\r\nx-amz-mp-parts-count: y\r\nExpires: z\r\n" + LENGTH + b"\r\n" + DATA,
        "no HTTP": b"\x00\xff\xfe",
        "a header of bytes": OK + b"ETag: \xff\xfe\x00\r\nLast-Modified: \xff\r\n" + LENGTH + b"\r\n" + DATA,
        "a redirect to nowhere": b"HTTP/1.1 301 Moved\r\nx-amz-bucket-region: \xff\r\nContent-Length: 0\r\n\r\n",
        "a redirect to a region that is none":
        b"HTTP/1.1 307 Moved\r\nLocation: http://[::1\r\nx-amz-bucket-region: a/b c\r\nContent-Length: 0\r\n\r\n",
    }  # fmt: skip

    @pytest.mark.parametrize("odd", ANSWERS)
    def test_the_other_objects_are_copied(
        self, sent_by: str, odd: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # The server closes the connection behind the odd answer: a request that was just sent there needs another one.
        monkeypatch.setattr(s3_clients, "ATTEMPTS", 3)
        objects = {digest(bytes([n])): bytes([n]) for n in range(6)}
        bad = sorted(objects)[2]

        def serve(peer: Peer) -> None:
            while head := peer.request():
                path = head.split()[1].decode()
                address = Address(path.rpartition(".objects/")[2].replace("/", ""))
                if address == bad:
                    peer.send(self.ANSWERS[odd])
                    return
                body = objects.get(address, b"")
                peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

        class Quiet:
            def begin(self, needed: list[Address]) -> None: ...
            def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None: ...

        with hostile(serve) as server:
            source = SnapshotStore(S3Backend(Bucket("bucket", endpoint=server.endpoint)))
            outcome = copy_batch(source, SnapshotStore(MemoryBackend()), dict.fromkeys(objects, 1), Quiet())

        assert {failure.address for failure in outcome.failures} <= {bad}, outcome.failures
        assert outcome.copied + len(outcome.failures) == len(objects)


@pytest.mark.parametrize("length", [100, 600_000, 3 * MIB])
@pytest.mark.parametrize("wrong", [1, 2])
def test_wrong_bytes_are_read_a_second_time_at_every_size(sent_by: str, length: int, wrong: int) -> None:
    data = random.Random(length).randbytes(length)
    answers = [data[:-1] + bytes([data[-1] ^ 1])] * wrong + [data]
    with serving() as stub:
        stub.answer = lambda _: Answer(200, answers[min(len(stub.requests), len(answers)) - 1])
        source, destination = (
            SnapshotStore(S3Backend(Bucket("bucket", endpoint=stub.endpoint))),
            SnapshotStore(MemoryBackend()),
        )
        # What comes in one piece is read once more as a stream before it is read a second time.
        if wrong == 1 or length == 100:
            assert destination.copy_object(source, digest(data), size_hint=length) == length
            assert destination.get_object(digest(data)) == data
        else:
            with pytest.raises(IntegrityError):
                destination.copy_object(source, digest(data), size_hint=length)
            assert not destination.has_object(digest(data))


@pytest.mark.parametrize("wrong", [1, 2])
def test_a_manifest_of_wrong_bytes_is_read_a_second_time(sent_by: str, wrong: int) -> None:
    text = manifest_of({"./a": b"a"})
    answers = [text[:-2] + b"?\n"] * wrong + [text]
    with serving() as stub:
        stub.answer = lambda _: Answer(200, answers[min(len(stub.requests), len(answers)) - 1])
        store = SnapshotStore(S3Backend(Bucket("bucket", endpoint=stub.endpoint)))
        if wrong == 1:
            assert store.get_manifest(digest(text)) == text
        else:
            with pytest.raises(IntegrityError):
                store.get_manifest(digest(text))
        assert len(stub.requests) == 2


# ruff: noqa: E501
NASTY = [
    b"inf", b"-1", b"99999999999999999999", b"\x00", b"\xff\xfe", b"\r\n", b"\n", b"\r\n\r\n", b"&a;", b"<", b"]]>",
    b"<!DOCTYPE a>", b"encoding='x'", b"0001-01-01T00:00:00", b"Transfer-Encoding: chunked\r\n", b"ffffffffffffffff\r\n",
    b"Content-Length: 0\r\n", b"Connection: close\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"404", b"301", b"204", b"206",
    b"Content-Range: bytes 0-8/9\r\n", b"x-amz-bucket-region: \r\n", b"%ED%A0%80", b"<IsTruncated>true</IsTruncated>",
    b"Last-Modified: inf\r\n", b"<Error><Code></Code></Error>", b"9" * 5000, b"nan", b"'", b"\x80" * 9,
]  # fmt: skip
GOOD = [
    OK + b'ETag: "e"\r\nLast-Modified: Mon, 06 May 2024 07:08:09 GMT\r\n' + LENGTH + b"\r\n" + DATA,
    OK + b"Content-Length: 300\r\n\r\n"
    + (b"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>" + END + entries("p/a", "p/b") + b"</ListBucketResult>").ljust(300),
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 70\r\n\r\n"
    + b"<Error><Code>NoSuchKey</Code><Message>It is not there.</Message></Error>".ljust(70),
    b"HTTP/1.1 206 Partial\r\nContent-Length: 9\r\nContent-Range: bytes 0-8/9\r\nETag: e\r\n\r\n" + DATA,
    OK + b"Content-Length: 90\r\n\r\n"
    + b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>".ljust(90),
]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """An answer with a few changes: something nasty put in or in place of a piece, a piece lost, repeated or moved."""
    answer = draw(st.sampled_from(GOOD))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(answer)))
        to = min(len(answer), at + draw(st.integers(0, 30)))
        piece = draw(st.sampled_from([*NASTY, b"", answer[at:to] * 2, bytes([draw(st.integers(0, 255))])]))
        answer = answer[:at] + piece + answer[to:]
    return answer


class Lying:
    """A backend on a server that gives one answer to everything and hangs up."""

    answer = b""
    direct = True
    backend: S3Backend


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=mutated())
def test_nothing_but_a_store_error_comes_out_whatever_an_answer_is(lying: Lying, answer: bytes) -> None:
    lying.answer = answer
    for direct in (True, False):
        lying.direct = direct
        for call in CALLS.values():
            try:
                call(lying.backend)
            except (StoreError, KeyMissing):
                continue


@pytest.fixture
def lying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lying]:
    found = Lying()
    to = Paths.path_to
    monkeypatch.setattr(Paths, "path_to", lambda self, *place: to(self, *place) if found.direct else None)

    def serve(peer: Peer) -> None:
        if peer.request():
            peer.send(found.answer)
            peer.connection.shutdown(1)
            peer.request(body=False)

    with hostile(serve) as server:
        found.backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))
        yield found
