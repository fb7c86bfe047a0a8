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
from typing import ClassVar, Final
from urllib.parse import urlsplit

REFUSED: Final = "refused"

# What may be done to a request: name -> what it is called in the table of faults.
KINDS: Final = {
    "500": "500 Internal Error",
    "503": "503 Slow Down",
    "429": "429 Too Many Requests",
    "cut-before": "cut before the request",
    "cut-in": "cut in the request",
    "cut-after": "cut after the request",
    "truncated": "answer truncated",
    "flipped": "bits of answers flipped",
    "flipped-up": "bits of requests flipped",
    "slow": "slow",
    "stalled": "stalled",
}

# Seconds that a stalled request is kept, and that a slow one takes longer.
_STALLED_S = 20.0
_SLOW_S = 0.5

# Headers that this proxy writes itself.
_OWN = {"transfer-encoding", "connection", "date", "server", "content-length"}


@dataclass
class Trouble:
    """What the proxy does to shares of the requests. Several kinds may be made at a time."""

    chance: random.Random = field(default_factory=random.Random)
    lock: threading.Lock = field(default_factory=threading.Lock)
    made: list[tuple[str, float]] = field(default_factory=list)

    @contextmanager
    def making(self, kind: str, share: float) -> Iterator[None]:
        """Do *kind* to a *share* of the requests until the end of the block."""
        entry = (kind, share)
        with self.lock:
            self.made.append(entry)
        try:
            yield
        finally:
            with self.lock:
                self.made.remove(entry)

    def now(self) -> str:
        """Return what is to be done to the next request, "" for nothing."""
        with self.lock:
            if not self.made:
                return ""
            kind, share = self.chance.choice(self.made)
            return kind if self.chance.random() < share else ""

    @property
    def refused(self) -> bool:
        """Whether connections are refused."""
        with self.lock:
            return any(kind == REFUSED for kind, _ in self.made)


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
        if kind == REFUSED:
            self.close_connection = True
            return
        length = int(self.headers.get("Content-Length", 0))
        if kind == "cut-in":
            self._begin(self.rfile.read(length // 2), length)
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if kind.isdigit():
            self._answer(int(kind), {}, b"<Error><Code>SlowDown</Code><Message>later</Message></Error>")
            return
        if kind == "stalled":
            self.ended.wait(_STALLED_S)
        if kind in ("stalled", "cut-before"):
            self.close_connection = True
            return
        found = self._ask(_flip(body) if kind == "flipped-up" else body)
        if found is None or kind == "cut-after":
            self.close_connection = True
            return
        if kind == "slow":
            time.sleep(_SLOW_S)
        self._hand_on(kind, *found)

    def _headers(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name.lower() != "expect"}

    def _begin(self, part: bytes, length: int) -> None:
        """Send the server a request of *length* bytes, but only a *part* of its body."""
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self._headers().items():
                connection.putheader(name, value)
            if length:
                connection.endheaders(part)
        except OSError:
            pass
        finally:
            connection.close()

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes] | None:
        connection = http.client.HTTPConnection(self.target, timeout=60)
        try:
            connection.request(self.command, self.path, body or None, self._headers())
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        except (OSError, http.client.HTTPException):
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
        """Print nothing."""


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
            return not trouble.refused

        def handle_error(self, *_: object) -> None:
            """Ignore clients that hang up."""

    with Server(("127.0.0.1", 0), type("Handler", (_Handler,), shared)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            ended.set()
            server.shutdown()
            thread.join()
