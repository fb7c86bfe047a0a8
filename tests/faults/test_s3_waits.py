"""Waits for S3: each can be stopped and none is endless. What stops one comes out unchanged, and nothing stays."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest

from snapferry.stores.address import object_key
from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.client import boto
from snapferry.stores.backends.s3.client import clients as s3_clients
from snapferry.stores.backends.s3.direct.response import MAX_ANSWER_BYTES
from snapferry.stores.backends.s3.http import resolver, sockets
from snapferry.stores.backends.s3.sizes import RANGED_ABOVE_BYTES
from snapferry.stores.errors import StoreError, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.runtime.interruption import interruptible
from tests.faults.hostile_server import (
    Handle,
    Hostile,
    Peer,
    _no_connections_of_other_tests,  # noqa: F401 - a fixture for all tests here
    hostile,
    mostly_slow,
    open_connections,
)
from tests.faults.test_s3_direct import own_tls  # noqa: F401 - a fixture
from tests.integration.processes import PATIENCE_S

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

MIB = 1024 * 1024
DATA = b"an object"
KEY = object_key(digest(DATA))
OK = b"HTTP/1.1 200 OK\r\n"


class Stop(OSError):
    """What an owner raises; of a kind that clients of servers take for a passing fault."""


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is taken twenty times a second instead of every five seconds."""
    for module in (sockets, resolver, boto):
        monkeypatch.setattr(module, "SLICE_S", 0.05)


def read(backend: S3Backend, size_hint: int = 0) -> bytes:
    with backend.open(KEY, size_hint=size_hint) as reader:
        return reader.read(MIB)


def upload(backend: S3Backend) -> None:
    with backend.upload(KEY, 0) as upload:
        upload.write(bytes(20 * MIB))
        upload.commit()


CALLS: dict[str, Callable[[S3Backend], object]] = {
    "size": lambda backend: backend.size(KEY),
    "sizes": lambda backend: backend.sizes([KEY] * 3),
    "open": read,
    "fetch": lambda backend: backend.fetch(KEY, 10),
    "ranges": lambda backend: read(backend, RANGED_ABOVE_BYTES + 1),
    "write": lambda backend: backend.write(KEY, DATA),
    "write 2 MiB": lambda backend: backend.write(KEY, bytes(2 * MIB)),
    "upload": upload,
    "keys": lambda backend: list(backend.keys(".objects/")),
    "delete": lambda backend: backend.delete(KEY),
    "check": lambda backend: backend.check(for_writing=False),
}


QUICK = {"sizes", "fetch", "upload"}


def stopped(
    server: Hostile, call: Callable[[S3Backend], object], when: Callable[[], bool] | None = None
) -> None:
    """Make sure that *call* ends with the owner's own exception, and that neither thread nor connection stays."""
    stop = Stop("stop")
    reached = when or (lambda: server.connections > 0)
    before = set(threading.enumerate())

    def check() -> None:
        if reached():
            raise stop

    with pytest.raises(Stop) as caught, interruptible(check):
        call(S3Backend(Bucket("bucket", endpoint=server.endpoint)))

    assert caught.value is stop
    left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("s3-")]
    for thread in left:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    # Its frames keep alive what boto3 had in hand.
    stop.__traceback__ = stop.__context__ = None
    del caught
    assert open_connections() == []


def say_nothing(peer: Peer) -> None:
    peer.request(body=False)
    peer.wait()


def drip_a_head(peer: Peer) -> None:
    while peer.request():
        peer.drip(b"HTTP/1.1 200 OK\r\nX-Odd: ")


def drip_a_refusal(peer: Peer) -> None:
    while peer.request():
        peer.send(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 1000000\r\n\r\n")
        peer.drip()


@pytest.mark.parametrize("name", mostly_slow(CALLS, QUICK))
@pytest.mark.parametrize("handle", [say_nothing, drip_a_head], ids=["silence", "a head byte by byte"])
def test_a_call_that_waits_for_an_answer_is_stopped(sent_by: str, name: str, handle: Handle) -> None:
    with hostile(handle) as server:
        stopped(server, CALLS[name])


@pytest.mark.parametrize(
    "name", mostly_slow(["open", "keys", "write", "delete", "ranges", "upload"], {"keys"})
)
def test_a_call_is_stopped_while_the_body_of_an_error_drips(sent_by: str, name: str) -> None:
    with hostile(drip_a_refusal) as server:
        stopped(server, CALLS[name])


@pytest.mark.parametrize("name", mostly_slow(CALLS, QUICK))
def test_a_call_is_stopped_in_the_pause_between_two_attempts(
    monkeypatch: pytest.MonkeyPatch, sent_by: str, name: str
) -> None:
    def refuse(peer: Peer) -> None:
        while peer.request():
            peer.send(b"HTTP/1.1 503 Slow Down\r\nx-amz-retry-after: 3600000\r\nContent-Length: 0\r\n\r\n")

    # The longest pause that boto3 itself would make is 20 s; the ceiling for a call is another test's.
    monkeypatch.setattr(boto, "CALL_S", 10**6)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *_: 10**5)
    with hostile(refuse) as server:
        stopped(server, CALLS[name])


@pytest.mark.parametrize("framing", [b"Content-Length: 1000000\r\n", b"", b"Transfer-Encoding: chunked\r\n"])
def test_a_body_that_drips_is_stopped(sent_by: str, framing: bytes) -> None:
    def drip(peer: Peer) -> None:
        while peer.request():
            peer.send(OK + framing + b"\r\n")
            peer.drip(filler=b"1\r\nx\r\n" if b"chunked" in framing else b"x")

    with hostile(drip) as server:
        stopped(server, read)


def test_ranges_that_drip_are_stopped(sent_by: str) -> None:
    def drip(peer: Peer) -> None:
        while head := peer.request():
            span = head.lower().partition(b"range: bytes=")[2].partition(b"\r")[0]
            first, _, last = span.partition(b"-")
            length = int(last) - int(first) + 1
            peer.send(
                b"HTTP/1.1 206 Partial\r\nContent-Range: bytes %s/100000000\r\nContent-Length: %d\r\n\r\n"
                % (span, length)
            )
            peer.drip()

    with hostile(drip) as server:
        stopped(server, CALLS["ranges"], lambda: len(server.requests) >= 4)


def test_a_listing_that_drips_is_stopped(sent_by: str) -> None:
    def drip(peer: Peer) -> None:
        while peer.request():
            peer.send(OK + b"Content-Length: 1000000\r\n\r\n<ListBucketResult>")
            peer.drip()

    with hostile(drip) as server:
        stopped(server, CALLS["keys"])


def test_a_listing_of_empty_pages_is_stopped(monkeypatch: pytest.MonkeyPatch, sent_by: str) -> None:
    def page(peer: Peer) -> None:
        while peer.request():
            token = b"<NextContinuationToken>%d</NextContinuationToken>" % len(server.requests)
            body = b"<ListBucketResult><IsTruncated>true</IsTruncated>" + token + b"</ListBucketResult>"
            peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)

    monkeypatch.setattr("snapferry.stores.backends.s3.listing.MAX_PAGES_WITHOUT_NEWS", 10**9)
    with hostile(page) as server:
        stopped(server, CALLS["keys"], lambda: len(server.requests) > 50)


@pytest.mark.parametrize("name", ["write 2 MiB", "upload"])
def test_a_body_that_the_server_does_not_take_is_stopped(sent_by: str, name: str) -> None:
    def take_nothing(peer: Peer) -> None:
        head = peer.request(body=False)
        if b"uploads" in head:
            body = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
            peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            peer.request(body=False)
        peer.wait()

    with hostile(take_nothing, receive_bytes=4096) as server:
        stopped(server, CALLS[name])


def test_the_completion_of_an_upload_is_stopped_and_the_upload_aborted(sent_by: str) -> None:
    def join_for_ever(peer: Peer) -> None:
        while head := peer.request():
            if head.startswith(b"DELETE"):
                peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            elif b"uploads" in head:
                body = (
                    b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
                )
                peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            elif head.startswith(b"PUT"):
                peer.send(OK + b'ETag: "e"\r\nContent-Length: 0\r\n\r\n')
            else:
                peer.send(OK + b"Content-Length: 1000000\r\n\r\n")
                peer.drip(filler=b" ")

    with hostile(join_for_ever) as server:
        stopped(
            server,
            upload,
            lambda: any(head.startswith(b"POST") and b"uploadId" in head for head in server.requests),
        )

        deletions = [head.split()[1] for head in server.requests if head.startswith(b"DELETE")]
        assert len([path for path in deletions if KEY.encode() + b"?uploadId=u" in path]) == 1


def test_a_handshake_that_hangs_is_stopped(sent_by: str) -> None:
    with hostile(lambda peer: peer.wait()) as server:
        server.endpoint = server.endpoint.replace("http:", "https:")
        stopped(server, read)


def test_over_tls_a_body_that_drips_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
    sent_by: str,
    own_tls: ssl.SSLContext,  # noqa: F811
) -> None:
    def drip(peer: Peer) -> None:
        while peer.request():
            peer.send(OK + b"Content-Length: 1000000\r\n\r\n")
            peer.drip()

    with hostile(drip, tls=own_tls) as server:
        stopped(server, read, lambda: bool(server.requests))


@pytest.mark.parametrize("name", mostly_slow(CALLS, QUICK))
def test_a_name_that_is_not_resolved_is_stopped(
    monkeypatch: pytest.MonkeyPatch, sent_by: str, name: str
) -> None:
    asked, answered = threading.Event(), threading.Event()
    resolve = socket.getaddrinfo

    def hang(host: str, *more: Any) -> Any:
        if host == "nowhere.test" and len(more) < 5:
            asked.set()
            answered.wait()
        return resolve(host, *more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    server = Hostile("http://nowhere.test:9000")
    try:
        stop = Stop("stop")

        def check() -> None:
            if asked.is_set():
                raise stop

        with pytest.raises(Stop) as caught, interruptible(check):
            CALLS[name](S3Backend(Bucket("bucket", endpoint=server.endpoint)))
        assert caught.value is stop
        assert len(resolver._lookups) == 1
    finally:
        answered.set()


def test_a_name_that_is_not_resolved_is_given_up(monkeypatch: pytest.MonkeyPatch, sent_by: str) -> None:
    answered = threading.Event()
    monkeypatch.setattr(resolver, "RESOLVE_S", 0.1)
    monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *about: answered.wait() if len(about) < 6 else resolve(*about)
    )
    try:
        with pytest.raises(StoreUnavailable):
            read(S3Backend(Bucket("bucket", endpoint="http://nowhere.test:9000")))
    finally:
        answered.set()


class TestThroughput:
    """A window of 0.4 s in place of 60: less than 15 KiB in it is too little."""

    @pytest.fixture(autouse=True)
    def _short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sockets, "WINDOW_S", 0.4)
        monkeypatch.setattr(s3_clients, "ATTEMPTS", 1)

    def slow(
        self, handle: Handle, call: Callable[[S3Backend], object], *, receive_bytes: int = 0
    ) -> StoreError:
        with hostile(handle, receive_bytes=receive_bytes) as server:
            with pytest.raises(StoreUnavailable) as caught:
                call(S3Backend(Bucket("bucket", endpoint=server.endpoint)))
            assert open_connections() == []
        return caught.value

    @pytest.mark.parametrize("name", mostly_slow(CALLS, QUICK))
    def test_a_head_that_drips_is_given_up(self, sent_by: str, name: str) -> None:
        assert "too slow" in str(self.slow(drip_a_head, CALLS[name]))

    # The answer to a HEAD has no body.
    @pytest.mark.parametrize("name", mostly_slow(sorted(CALLS.keys() - {"check", "size", "sizes"}), QUICK))
    def test_a_refusal_that_drips_is_given_up(self, sent_by: str, name: str) -> None:
        assert "too slow" in str(self.slow(drip_a_refusal, CALLS[name]))

    def test_a_body_that_drips_is_given_up(self, sent_by: str) -> None:
        def drip(peer: Peer) -> None:
            while peer.request():
                peer.send(OK + b"Content-Length: 1000000\r\n\r\n")
                peer.drip()

        assert "too slow" in str(self.slow(drip, read))

    def test_a_body_that_is_not_taken_is_given_up(self, sent_by: str) -> None:
        def take_little(peer: Peer) -> None:
            peer.connection.settimeout(5)
            while peer.connection.recv(10):
                pass

        self.slow(take_little, CALLS["write 2 MiB"], receive_bytes=4096)

    def test_time_in_which_nobody_reads_does_not_count(
        self, sent_by: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with a rate limit or a slow destination: of the time below nothing is spent waiting for the server."""
        body = bytes(MAX_ANSWER_BYTES + 100)

        def send(peer: Peer) -> None:
            while peer.request():
                peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body[:100])
                go_on.wait()
                peer.send(body[100:])

        clock = [0.0]
        go_on = threading.Event()
        with hostile(send) as server:
            backend = S3Backend(Bucket("bucket", endpoint=server.endpoint))
            with backend.open(KEY) as reader:
                first = reader.read(100)
                go_on.set()
                monkeypatch.setattr(sockets, "monotonic", lambda: clock[0])
                for _ in range(10):
                    clock[0] += 100
                assert first + reader.read(len(body)) == body

    def test_a_server_may_join_parts_for_long(self, sent_by: str) -> None:
        done = b"<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>"

        def join(peer: Peer) -> None:
            while head := peer.request():
                if b"uploads" in head:
                    body = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
                    peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                elif head.startswith(b"PUT"):
                    peer.send(OK + b'ETag: "e"\r\nContent-Length: 0\r\n\r\n')
                else:
                    peer.send(OK + b"Content-Length: %d\r\n\r\n" % (40 + len(done)))
                    for _ in range(40):
                        peer.send(b" ")
                        server.over.wait(0.03)
                    peer.send(done)

        with hostile(join) as server:
            upload(S3Backend(Bucket("bucket", endpoint=server.endpoint, read_back=False)))

    def test_a_server_does_not_join_parts_for_ever(
        self, sent_by: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sockets, "JOIN_S", 0.5)

        def join(peer: Peer) -> None:
            while head := peer.request():
                if b"uploads" in head:
                    body = b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
                    peer.send(OK + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                elif head.startswith(b"PUT"):
                    peer.send(OK + b'ETag: "e"\r\nContent-Length: 0\r\n\r\n')
                elif head.startswith(b"DELETE"):
                    peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")
                else:
                    peer.send(OK + b"Content-Length: 1000000\r\n\r\n")
                    peer.drip(filler=b" ")

        with hostile(join) as server, pytest.raises(StoreUnavailable):
            upload(S3Backend(Bucket("bucket", endpoint=server.endpoint)))


def test_a_call_begins_no_attempt_after_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, sent_by: str
) -> None:
    monkeypatch.setattr(boto, "CALL_S", 0)

    def refuse(peer: Peer) -> None:
        while peer.request():
            peer.send(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\n\r\n")

    with hostile(refuse) as server:
        with pytest.raises(StoreUnavailable):
            read(S3Backend(Bucket("bucket", endpoint=server.endpoint)))
        assert len(server.requests) == 1


def test_connections_of_boto3_are_watched() -> None:
    """Private attributes of botocore are set for it: a version without them must be noticed here."""
    client = s3_clients.client_for(None, None, "http://127.0.0.1:9").boto
    session = client._endpoint.http_session
    pools = session._manager.pool_classes_by_scheme
    assert pools is session._pool_classes_by_scheme
    assert all(issubclass(pool.ConnectionCls, boto._Watching) for pool in pools.values())
