"""A proxy that counts, operation by operation, what an S3 server receives, and says when how much moved."""

from __future__ import annotations

import http.client
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from snapferry.stores.requests import Requests
from tests.servers import S3Server, forget_clients

# Of an answer so much is handed on at once: a client that reads slowly is felt at the server.
PIECE_BYTES = 64 * 1024


@dataclass
class Traffic:
    """
    What passed a proxy, by the monotonic clock: when there was a request, and when which bytes moved.

    *delay_s* is how long each answer takes longer. *refused* are requests that the server answered with an error of
    its own (5xx), which a client rightly sends again. A piece is (when, operation, path, bytes): a whole body, or a
    part of an answer, when the client has taken it.
    """

    delay_s: float = 0.0
    requests: list[float] = field(default_factory=list)
    refused: Requests = field(default_factory=Requests)
    pieces: list[tuple[float, str, str, int]] = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def moved(self, begin: float, end: float, operation: str = "GetObject", part: str = "") -> int:
        """Return how many bytes moved between two moments by requests of a kind whose path has *part* in it."""
        with self.lock:
            pieces = list(self.pieces)
        return sum(
            size
            for at, name, path, size in pieces
            if begin <= at < end and name == operation and part in path
        )

    def sent(self, begin: float, end: float) -> int:
        """Return how many requests were made between two moments."""
        with self.lock:
            return sum(begin <= at < end for at in self.requests)

    def most_sent(self, begin: float, seconds: float) -> int:
        """Return how many requests were made in the busiest *seconds* from *begin* on."""
        with self.lock:
            sent = sorted(at for at in self.requests if at >= begin)
        return max((bisect_left(sent, at + seconds) - number for number, at in enumerate(sent)), default=0)

    def passed(self, operation: str, path: str, size: int) -> None:
        """Note that *size* bytes of a request have moved."""
        with self.lock:
            self.pieces.append((time.monotonic(), operation, path, size))

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Count a request as running in the block."""
        with self.lock:
            self.running += 1
            self.most_running = max(self.running, self.most_running)
        try:
            if self.delay_s:
                time.sleep(self.delay_s)
            yield
        finally:
            with self.lock:
                self.running -= 1


@contextmanager
def counting_proxy(
    server: S3Server,
    traffic: Traffic | None = None,
    *,
    alter: Callable[[str, str, bytes], bytes] | None = None,
) -> Iterator[tuple[S3Server, Requests]]:
    """
    Put a proxy before *server* that counts what passes; the signed Host header stays as the client sent it.

    When how much passes is noted in *traffic*. The server receives the bodies that *alter* makes of an
    operation, a path and a body.
    """
    received = Requests()
    passing = traffic or Traffic()
    lock = threading.Lock()
    target = urlsplit(server.endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _pass_on(self) -> None:
            operation = operation_of(self.command, self.path)
            with lock:
                received[operation] += 1
            with passing.passing():
                self._answer(operation)

        def _answer(self, operation: str) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if alter is not None:
                body = alter(operation, self.path, body)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            with closing(http.client.HTTPConnection(target)) as connection:
                connection.request(self.command, self.path, body, headers)
                answer = connection.getresponse()
                with passing.lock:
                    passing.requests.append(time.monotonic())
                    passing.refused[operation] += answer.status >= 500
                if body:
                    passing.passed(operation, self.path, len(body))
                # Of an unknown length, or none that follows, it is taken whole.
                said = b"" if answer.length else answer.read()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in {
                        "transfer-encoding",
                        "connection",
                        "content-length",
                        "date",
                        "server",
                    }:
                        self.send_header(name, value)
                self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(said)))
                self.end_headers()
                while piece := said or answer.read(PIECE_BYTES):
                    said = b""
                    self.wfile.write(piece)
                    passing.passed(operation, self.path, len(piece))

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None:
            return None

    class Proxy(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A client that was killed hangs up."""
            if not isinstance(sys.exception(), OSError):
                super().handle_error(request, client_address)

    with Proxy(("127.0.0.1", 0), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
        try:
            yield S3Server(endpoint, server.client, server.environment), received
        finally:
            proxy.shutdown()
            thread.join()
            forget_clients(endpoint)


def operation_of(method: str, path: str) -> str:
    """Name what a request asks for, from its first line alone."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    has_key = "/" in parts.path.strip("/")
    mark = next((name for name in ("list-type", "uploads", "partNumber", "uploadId") if name in query), "")
    return {
        ("HEAD", "", False): "HeadBucket",
        ("HEAD", "", True): "HeadObject",
        ("GET", "", True): "GetObject",
        ("GET", "uploadId", True): "ListParts",
        ("GET", "list-type", False): "ListObjectsV2",
        ("GET", "uploads", False): "ListMultipartUploads",
        ("PUT", "", True): "PutObject",
        ("POST", "uploads", True): "CreateMultipartUpload",
        ("PUT", "partNumber", True): "UploadPart",
        ("POST", "uploadId", True): "CompleteMultipartUpload",
        ("DELETE", "uploadId", True): "AbortMultipartUpload",
        ("DELETE", "", True): "DeleteObject",
    }[method, mark, has_key]
