"""A proxy before an S3 server that misbehaves on demand."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import urlsplit

KINDS = (
    "503", "429", "truncated", "flipped", "flipped-up", "cut-before", "cut-after", "slow", "stalled", "refused",
)  # fmt: skip

# Headers that this proxy writes itself.
_OWN = {"transfer-encoding", "connection", "date", "server", "content-length"}


@dataclass
class Trouble:
    """What the proxy does to a *share* of the requests; "" for nothing."""

    kind: str = ""
    share: float = 0.0
    chance: random.Random = field(default_factory=random.Random)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> str:
        """Return what is to be done to the next request."""
        with self.lock:
            return self.kind if self.kind and self.chance.random() < self.share else ""


def _flip(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


class _Handler(BaseHTTPRequestHandler):
    """Passes a request on to *target*, unless *trouble* has other plans."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    target: ClassVar[str]
    trouble: ClassVar[Trouble]
    ended: ClassVar[threading.Event]

    def _pass_on(self) -> None:
        kind = self.trouble.now()
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if kind in ("503", "429"):
            self._answer(int(kind), {}, b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")
            return
        if kind == "stalled":
            self.ended.wait(20)
        if kind in ("stalled", "cut-before"):
            self.close_connection = True
            return
        found = self._ask(_flip(body) if kind == "flipped-up" else body)
        if found is None or kind == "cut-after":
            self.close_connection = True
            return
        if kind == "slow":
            time.sleep(0.5)
        self._hand_on(kind, *found)

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except OSError:
            return None
        finally:
            connection.close()

    def _hand_on(self, kind: str, status: int, headers: dict[str, str], data: bytes) -> None:
        length = headers.get("Content-Length", "0")
        kept = {name: value for name, value in headers.items() if name.lower() not in _OWN}
        if kind == "flipped" and self.command == "GET" and "list-type" not in self.path:
            data = _flip(data)
        if self.command == "HEAD":
            self._answer(status, kept, b"", length=length)
        elif kind == "truncated" and data:
            self._answer(status, kept, data[: len(data) // 2], length=str(len(data)))
            self.close_connection = True
        else:
            self._answer(status, kept, data)

    def _answer(self, status: int, headers: dict[str, str], data: bytes, *, length: str = "") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815 - http.server's names

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def troubled(endpoint: str, trouble: Trouble) -> Iterator[str]:
    """Put a proxy before *endpoint* that makes *trouble*; yield its own endpoint."""
    ended = threading.Event()
    shared = {"target": urlsplit(endpoint).netloc, "trouble": trouble, "ended": ended}

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 256

        def verify_request(self, request: object, client_address: object) -> bool:
            return trouble.kind != "refused"

        def handle_error(self, *_: object) -> None:
            """A client that hangs up is part of the game."""

    with Server(("127.0.0.1", 0), type("Handler", (_Handler,), shared)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()
            thread.join()
