"""
An S3 server that answers whatever a test tells it to, over a real connection.

It can do what a good server never does: stop in the middle, contradict
itself, or say nothing.
"""

from __future__ import annotations

import hashlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from urllib3 import HTTPHeaderDict

from tests.servers import forget_clients


@dataclass(frozen=True)
class Request:
    """What a client asked. *query* has one value per name."""

    method: str
    path: str
    query: dict[str, str]
    headers: HTTPHeaderDict
    body: bytes

    @property
    def operation(self) -> str:
        """Name the call by what tells it apart, as in ``POST uploads``."""
        marks = [name for name in ("uploads", "uploadId", "partNumber", "list-type") if name in self.query]
        return " ".join([self.method, *marks])


@dataclass(frozen=True)
class Answer:
    """
    What to say. *length* is announced in place of the true one; *cut* ends the connection with a reset.

    What is written successfully gets its MD5 as ETag, unless *headers* have another or *no_etag* is set.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    cut: bool = False
    no_length: bool = False
    no_etag: bool = False


@dataclass
class Stub:
    """A running stub. Tests set *answer*; *requests* are those that came."""

    endpoint: str
    answer: Callable[[Request], Answer]
    requests: list[Request] = field(default_factory=list)

    def operations(self) -> list[str]:
        return [request.operation for request in self.requests]


def error(status: int, code: str, message: str = "It went wrong.") -> Answer:
    """Return the answer with which S3 says *code*; without a code one without a body, as to a HEAD."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode() if code else b""
    return Answer(status, body, {"Content-Type": "application/xml"})


def page(keys: list[str], *, token: str | None = None, truncated: bool | None = None) -> Answer:
    """Return a page of a listing."""
    rest = "<LastModified>2024-05-06T07:08:09.000Z</LastModified><Size>1</Size>"
    entries = "".join(f"<Contents><Key>{key}</Key>{rest}</Contents>" for key in keys)
    goes_on = truncated if truncated is not None else token is not None
    ending = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    text = f"<IsTruncated>{str(goes_on).lower()}</IsTruncated>{ending}{entries}"
    return Answer(200, f"<ListBucketResult><Name>bucket</Name>{text}</ListBucketResult>".encode())


@contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """Run a stub that answers 200 without a body until told otherwise; over TLS with *tls*."""
    stub = Stub("", lambda _: Answer())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = {
                name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()
            }
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            request = Request(self.command, parts.path, query, HTTPHeaderDict(self.headers.items()), body)
            stub.requests.append(request)
            self._say(stub.answer(request), body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815 - http.server's names

        def _say(self, answer: Answer, body: bytes) -> None:
            if "Date" in answer.headers:
                self.send_response_only(answer.status)
            else:
                self.send_response(answer.status)
            headers = answer.headers
            if self.command == "PUT" and answer.status == 200 and not answer.no_etag:
                headers = {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'} | headers
            for name, value in headers.items():
                self.send_header(name, value)
            length = len(answer.body) if answer.length is None else answer.length
            if not answer.no_length:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
                self.close_connection = answer.no_length or length != len(answer.body)
            if answer.cut:
                # Lingering for no time at all turns the close into a reset.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return None

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is part of many a test."""

    with Server(("127.0.0.1", 0), Handler) as server:
        stub.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield stub
        finally:
            server.shutdown()
            thread.join()
            forget_clients(stub.endpoint)
