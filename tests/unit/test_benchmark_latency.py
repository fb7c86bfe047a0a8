"""The benchmark's proxy that makes a server far away."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from benchmarks.latency import Answer, LatencyProxy, operation
from tests.integration.processes import PATIENCE_S

DELAY_S = 0.15


class Server(ThreadingHTTPServer):
    daemon_threads = True


class Handler(BaseHTTPRequestHandler):
    """Answers a PUT with what it was sent, and a GET in chunks."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000000")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\nabc\r\n")
        self.wfile.write(b"2\r\nde\r\n0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@contextmanager
def connected(proxy: LatencyProxy) -> Iterator[HTTPConnection]:
    connection = HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=PATIENCE_S)
    try:
        yield connection
    finally:
        connection.close()


def test_each_request_is_held_back_and_each_byte_arrives(endpoint):
    body = bytes(range(256)) * 20_000
    with LatencyProxy(endpoint, DELAY_S) as proxy, connected(proxy) as connection:
        started = time.monotonic()
        for method, sent, expected in (
            ("PUT", body, body),
            ("HEAD", None, b""),
            ("GET", None, b"abcde"),
            ("PUT", b"", b""),
        ):
            connection.request(method, "/bucket/key", sent)
            assert connection.getresponse().read() == expected
        elapsed = time.monotonic() - started
        seen = proxy.seen()
        again = proxy.seen()

    assert proxy.endpoint.rpartition(":")[2].isdigit()
    assert elapsed >= 4 * DELAY_S
    assert seen.requests == {"PutObject": 2, "HeadObject": 1, "GetObject": 1}
    assert seen.most_in_flight == 1
    assert again.requests == {}
    assert again.most_in_flight == 0


def test_requests_in_flight_at_once_are_counted_and_wait_at_the_same_time(endpoint):
    with LatencyProxy(endpoint, 2 * DELAY_S) as proxy:
        connections = [HTTPConnection(urlsplit(proxy.endpoint).netloc, timeout=PATIENCE_S) for _ in range(12)]
        for connection in connections:
            connection.request("PUT", "/bucket/key", b"x")
        answers = [connection.getresponse().read() for connection in connections]
        for connection in connections:
            connection.close()
        seen = proxy.seen()

    assert answers == [b"x"] * 12
    assert 1 < seen.most_in_flight <= 12
    assert seen.requests.total() == 12


def test_a_client_that_gives_up_is_no_longer_in_flight(endpoint):
    with LatencyProxy(endpoint, 60.0) as proxy, socket.socket() as client:
        client.connect(("127.0.0.1", urlsplit(proxy.endpoint).port))
        client.sendall(b"GET /bucket/key HTTP/1.1\r\n\r\n")
        deadline = time.monotonic() + 30
        while proxy.seen().most_in_flight < 1:
            assert time.monotonic() < deadline
        client.close()
        while proxy.seen().most_in_flight > 0:
            assert time.monotonic() < deadline


def test_a_server_that_is_not_there_closes_the_connection():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{probe.getsockname()[1]}"
        with LatencyProxy(nowhere, 0.0) as proxy, socket.socket() as client:
            client.settimeout(30)
            client.connect(("127.0.0.1", urlsplit(proxy.endpoint).port))
            assert client.recv(1) == b""


def answer_ends(*parts: bytes, to_head: bool = False) -> list[bool]:
    answer = Answer(to_head=to_head)
    return [answer.ends_with(part) for part in parts]


def test_the_end_of_an_answer_is_found_however_it_is_cut():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

    assert answer_ends(head + b"hello") == [True]
    assert answer_ends(head, b"hel", b"lo") == [False, False, True]
    assert answer_ends(head[:20], head[20:] + b"hello") == [False, True]
    assert answer_ends(head, to_head=True) == [True]
    assert answer_ends(b"HTTP/1.1 204 No Content\r\n\r\n") == [True]
    assert answer_ends(b"HTTP/1.1 100 Continue\r\n\r\n", head + b"hello") == [False, True]
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert answer_ends(chunked + b"1\r\na\r\n", b"0\r\n", b"\r\n") == [False, False, True]


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/bucket/a/b", "GetObject"),
        ("GET", "/bucket?list-type=2&prefix=a/b", "ListObjectsV2"),
        ("PUT", "/bucket/a?partNumber=1&uploadId=x", "UploadPart"),
        ("POST", "/bucket/a?uploads", "CreateMultipartUpload"),
        ("HEAD", "/bucket", "HeadBucket"),
        ("DELETE", "/bucket/a", "DELETE object"),
    ],
)
def test_a_request_is_named_by_its_first_line(method, path, name):
    assert operation(method, path) == name


def test_without_its_faster_loop_the_proxy_serves_as_well(endpoint):
    from benchmarks.latency import Latency

    async def ask() -> bytes:
        parts = urlsplit(endpoint)
        proxy = Latency(str(parts.hostname), int(parts.port or 0), 0.0)
        async with await proxy.start() as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET /bucket/key HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = await reader.readuntil(b"0\r\n\r\n")
            writer.close()
            await writer.wait_closed()
            return answer

    assert b"abc" in asyncio.run(ask())
