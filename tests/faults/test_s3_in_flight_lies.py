"""Many requests to S3 in flight in one thread: only a whole, confirmed answer to the same request counts."""

from __future__ import annotations

import select
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snapferry.stores.backends.s3.backend import S3Backend
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct import in_flight
from snapferry.stores.backends.s3.direct.http1 import ConnectionPool
from snapferry.stores.backends.s3.direct.in_flight import MOST_FAILURES, PooledRequest, exchange
from snapferry.stores.backends.s3.direct.requests import DirectRequests
from snapferry.stores.backends.s3.direct.response import Head
from snapferry.stores.backends.s3.features import Confirmation
from snapferry.stores.backends.s3.http.sockets import PlainSocket, TLSSocket
from tests.faults.hostile_server import Peer, hostile
from tests.faults.scripted_server import scripted
from tests.faults.stub_s3 import Answer, Request, Stub, error
from tests.integration.processes import PATIENCE_S, until

from .test_s3_direct_parts import trusted_tls

pytestmark = pytest.mark.usefixtures("s3_environment", "fresh_s3_clients")

STORED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
FAILED = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n"


def pool_of(endpoint: str, folder: Path) -> ConnectionPool:
    """Return connections to the server at *endpoint*, over TLS with the certificate in *folder* if it says so."""
    scheme, _, place = endpoint.partition("://")
    host, _, port = place.partition(":")
    tls = ssl.create_default_context(cafile=str(folder / "certificate.pem")) if scheme == "https" else None
    return ConnectionPool((host, int(port)), tls=tls, connect_timeout_s=PATIENCE_S, read_timeout_s=PATIENCE_S)


def backend_at(endpoint: str) -> S3Backend:
    return S3Backend(Bucket("bucket", "prefix", endpoint=endpoint))


def test_a_second_answer_does_not_confirm_the_next_write() -> None:
    arrived = threading.Event()
    more = threading.Event()

    def serve(peer: Peer) -> None:
        if len(peer.server.requests) == 0:
            peer.request()
            peer.send(STORED)
            more.wait()
            peer.send(STORED)
            arrived.set()
        while peer.request():
            peer.send(FAILED)

    def objects() -> Iterator[tuple[str, bytes]]:
        yield "a", b"1"
        more.set()
        arrived.wait()
        yield "b", b"2"

    with hostile(serve) as server:
        backend = backend_at(server.endpoint)
        features = backend.bucket.features
        features.confirmation, features.checksum_accepted = Confirmation.DIGEST, True

        assert list(backend.write_each(objects(), 1)) == [(0, 1)]
        assert len(server.requests) == 2


def test_a_connection_that_was_made_ahead_is_used_after_a_session_ticket(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    context = trusted_tls(monkeypatch, tmp_path)
    with scripted([b""], tls=context) as server:
        pool = pool_of(server.endpoint, tmp_path)
        pool.open_ahead(1)
        until(lambda: pool.idle, "a connection")
        (made,) = pool.idle
        poll = select.poll()
        poll.register(made, select.POLLIN)
        assert poll.poll(PATIENCE_S * 1000)

        assert pool.take_idle() is made
        assert isinstance(made, TLSSocket)
        assert made.version() == "TLSv1.3"
        made.close()


@pytest.mark.parametrize("over_tls", [False, True])
def test_no_request_waits_for_the_answer_to_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, over_tls: bool
) -> None:
    """The connection of the second is made meanwhile. Over TLS, the first one has session tickets to read."""
    both = threading.Barrier(2)

    def serve(peer: Peer) -> None:
        peer.request()
        both.wait(PATIENCE_S)
        peer.send(STORED)
        peer.wait()

    monkeypatch.setattr(in_flight, "SLICE_S", 3600.0)
    context = trusted_tls(monkeypatch, tmp_path) if over_tls else None
    with hostile(serve, tls=context) as server:
        pool = pool_of(server.endpoint, tmp_path)
        requests = (PooledRequest(pool, b"GET / HTTP/1.1\r\n\r\n", lambda *_: "answered") for _ in range(2))

        assert list(exchange(requests, 2)) == ["answered"] * 2
        pool.close()


def test_writes_that_fail_end_the_reading(stub: Stub) -> None:
    """Not only those that fail one after the other: an object may be read between two of them."""
    refused = [threading.Event() for _ in range(100)]

    def answer(request: Request) -> Answer:
        number = int(request.path.rpartition("/")[2])
        if request.method == "PUT":
            refused[number].set()
            return error(403, "AccessDenied")
        if number:
            refused[number - 1].wait(PATIENCE_S)
        return Answer(200, b"x")

    stub.answer = answer
    source, target = backend_at(stub.endpoint), S3Backend(Bucket("other", endpoint=stub.endpoint))

    target.bucket.features.checksum_accepted = True
    path = target.bucket.free_path
    assert isinstance(path, DirectRequests)
    for connection in [path.pool.acquire(), path.pool.acquire()]:
        path.pool.release(connection)

    copied = target.copy_each(source, map(str, range(100)), lambda _, data: data == b"x", 2)

    assert copied is not None
    assert list(copied) == []
    assert stub.operations().count("PUT") <= MOST_FAILURES + 2


def test_a_server_of_which_nothing_is_known_can_refuse_altered_bytes(stub: Stub) -> None:
    backend = backend_at(stub.endpoint)
    backend.bucket.features.checksum_accepted = True

    assert list(backend.write_each([("a", b"1")], 1)) == [(0, 1)]

    assert stub.requests[0].headers["Content-MD5"]


@pytest.mark.parametrize("known", [None, Confirmation.ETAG])
def test_wrong_bytes_are_replaced_before_anything_else_is_sent(
    stub: Stub, known: Confirmation | None
) -> None:
    """The batch may be stopped before it comes to the objects that were left out."""
    wrong = {"ETag": f'"{"0" * 32}"'}
    stub.answer = lambda _: Answer(200, headers=wrong if len(stub.requests) == 1 else {})
    backend = backend_at(stub.endpoint)
    backend.bucket.features.confirmation = known
    backend.bucket.features.checksum_accepted = True

    class Stopped(BaseException):
        pass

    def objects() -> Iterator[tuple[str, bytes]]:
        yield "a", b"1"
        raise Stopped

    found: list[tuple[int, int]] = []
    with pytest.raises(Stopped):
        found.extend(backend.write_each(objects(), 1))

    puts = [
        request.path for request in stub.requests if request.method == "PUT" and "digests" not in request.path
    ]
    assert puts == ["/bucket/prefix/a"] * 2
    assert backend.bucket.confirmations.counts() == {"etag": 1}


def test_an_answer_that_came_while_others_were_handled_is_not_late(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answered = threading.Event()
    both = threading.Barrier(2)

    def serve(peer: Peer) -> None:
        slow = b"slow" in peer.request()
        both.wait()
        if slow:
            go_on.wait()
        peer.send(STORED)
        if slow:
            answered.set()
        peer.wait()

    go_on = threading.Event()

    def first(head: Head, body: bytes) -> str:
        go_on.set()
        answered.wait()
        monkeypatch.setattr(PlainSocket, "gettimeout", lambda _: 0.0)
        return "first"

    monkeypatch.setattr(in_flight, "SLICE_S", 0.0)
    with hostile(serve) as server:
        pool = pool_of(server.endpoint, tmp_path)
        pool.release(pool.acquire())
        pool.open_ahead(2)
        until(lambda: len(pool.idle) == 2, "two connections")
        requests = [
            PooledRequest(pool, b"GET /quick HTTP/1.1\r\n\r\n", first),
            PooledRequest(pool, b"GET /slow HTTP/1.1\r\n\r\n", lambda *_: "second"),
        ]

        assert list(exchange(iter(requests), 2)) == ["first", "second"]
        pool.close()


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + b"x" * 40_000


@pytest.mark.parametrize("over_tls", [False, True])
@pytest.mark.parametrize(
    ("whole", "stops_at"),
    [
        (ANSWER, 1),
        (ANSWER, 20),
        (ANSWER, ANSWER.index(b"\r\n\r\n") + 2),
        (ANSWER, ANSWER.index(b"\r\n\r\n") + 4),
        (ANSWER, 5000),
        (ANSWER, len(ANSWER) - 1),
        (b"HTTP/1.1 503 Later\r\nContent-Length: 9\r\n\r\nnot today", 42),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 50),
        (b"220 mail is welcome here\r\n" * 9, 30),
    ],
)
def test_an_answer_that_stalls_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whole: bytes, stops_at: int, over_tls: bool
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def serve(peer: Peer) -> None:
        if b"slow" in peer.request():
            peer.send(whole[:stops_at])
            begun.set()
            go_on.wait()
            peer.send(whole[stops_at:])
        else:
            begun.wait()
            for _ in range(5):
                peer.send(STORED)
                peer.request()
        peer.wait()

    answered: list[bytes] = []

    def quick(head: Head, body: bytes) -> str:
        answered.append(body)
        if len(answered) == 5:
            go_on.set()
        return "quick"

    context = trusted_tls(monkeypatch, tmp_path) if over_tls else None
    with hostile(serve, tls=context) as server:
        pool = pool_of(server.endpoint, tmp_path)
        # One takes the place of a connection that is given up.
        for connection in [pool.acquire() for _ in range(3)]:
            pool.release(connection)
        requests = [
            PooledRequest(pool, b"GET /slow HTTP/1.1\r\n\r\n", lambda _, body: body),
            *[PooledRequest(pool, b"GET /quick HTTP/1.1\r\n\r\n", quick)] * 5,
        ]

        found = list(exchange(iter(requests), 2))

        assert found.count("quick") == 5
        assert found[5:] == ([b"x" * 40_000] if whole == ANSWER else [])
        pool.close()
