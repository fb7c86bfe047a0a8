"""
A proxy that lets every request to an S3 server wait, as one that is far away would.

    python -m benchmarks.latency HOST:PORT SECONDS

It says its own port, then for each line on standard input what it has counted
since the last one, and ends with its input.

*only latency*: each request is held back from its first byte on, and what
follows passes as fast as it can; bandwidth is not limited, and opening a
connection takes no longer than it does. *bytes untouched*: what it reads of
requests and answers is for counting alone, and a misreading changes no byte.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self, cast
from urllib.parse import parse_qs, urlsplit

from .commands import environment
from .measure import cpu_of

_HEAD_ENDS: Final = b"\r\n\r\n"
_CHUNKS_END: Final = b"0\r\n\r\n"
_content_length = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE).search
_is_chunked = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE).search


@dataclass
class Seen:
    """What passed: requests by operation, and how many were in flight at once at most."""

    requests: Counter[str] = field(default_factory=Counter)
    most_in_flight: int = 0


class Answer:
    """Finds the end of the answer to one request, for a server that does not send ahead."""

    def __init__(self, *, to_head: bool) -> None:
        self._to_head = to_head
        self._head = b""
        self._left: int | None = None
        self._chunked = False

    def ends_with(self, data: bytes) -> bool:
        """Take *data*, which comes next; say whether the answer is complete with it."""
        if self._left is None:
            self._head += data
            head, found, rest = self._head.partition(_HEAD_ENDS)
            if not found:
                return False
            status = head[9:12]
            if status == b"100":
                self._head = b""
                return self.ends_with(rest) if rest else False
            length = _content_length(head)
            self._chunked = length is None and _is_chunked(head) is not None
            bodyless = self._to_head or status in (b"204", b"304")
            self._left = 0 if bodyless or length is None else int(length[1])
            if bodyless:
                return True
            data = rest
        if self._chunked:
            self._head = (self._head + data)[-len(_CHUNKS_END) :]
            return self._head == _CHUNKS_END
        self._left -= len(data)
        return self._left <= 0


class Latency:
    """A proxy before *host*:*port* that holds each request back for *delay_s*. Serves after `start`."""

    def __init__(self, host: str, port: int, delay_s: float) -> None:
        self.target = host, port
        self.delay_s = delay_s
        self.in_flight = 0
        self.seen = Seen()

    async def start(self) -> asyncio.Server:
        """Listen on a free port of this machine."""
        return await asyncio.get_running_loop().create_server(
            lambda: _FromClient(self), "127.0.0.1", 0, backlog=1024
        )

    def begun(self, request: bytes) -> None:
        """Count a request by its first bytes."""
        method, _, rest = request.partition(b" ")
        path = rest.partition(b" ")[0]
        self.seen.requests[operation(method.decode("latin-1"), path.decode("latin-1"))] += 1
        self.in_flight += 1
        self.seen.most_in_flight = max(self.in_flight, self.seen.most_in_flight)

    def ended(self) -> None:
        """Count a request as answered, or given up."""
        self.in_flight -= 1

    def take_seen(self) -> Seen:
        """Return what was seen since the last call."""
        seen, self.seen = self.seen, Seen(most_in_flight=self.in_flight)
        return seen


class _Half(asyncio.Protocol):
    """One of the two connections that belong together; what it cannot write in time stops the other's reading."""

    transport: asyncio.Transport | None = None
    other: _Half

    def pause_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other.transport is not None:
            self.other.transport.resume_reading()


class _FromClient(_Half):
    def __init__(self, proxy: Latency) -> None:
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._answer: Answer | None = None
        self._held: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self.other = self._server = _FromServer(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # That of another event loop need not be one by its class.
        self.transport = cast(asyncio.Transport, transport)
        self._connecting = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            await self._loop.create_connection(lambda: self._server, *self._proxy.target)
        except OSError:
            if self.transport is not None:
                self.transport.close()
            return
        if self.transport is None or self.transport.is_closing():
            self._server.close()
        self._pass_on()

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            self._proxy.begun(data)
            self._answer = Answer(to_head=data.startswith(b"HEAD "))
            self._timer = self._loop.call_later(self._proxy.delay_s, self._due)
        self._held.append(data)
        self._pass_on()

    def _due(self) -> None:
        self._timer = None
        self._pass_on()

    def _pass_on(self) -> None:
        if self._timer is None and self._held and self._server.transport is not None:
            self._server.transport.write(b"".join(self._held))
            self._held.clear()

    def answered(self, data: bytes) -> None:
        if self.transport is not None:
            self.transport.write(data)
        if self._answer is not None and self._answer.ends_with(data):
            self._answer = None
            self._proxy.ended()

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._answer is not None:
            self._answer = None
            self._proxy.ended()
        self.transport = None
        self._server.close()


class _FromServer(_Half):
    def __init__(self, client: _FromClient) -> None:
        self.other = self._client = client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # That of another event loop need not be one by its class.
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._client.answered(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self._client.transport is not None:
            self._client.transport.close()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


def operation(method: str, path: str) -> str:
    """Name what a request asks for, from its first line alone."""
    parts = urlsplit(path)
    query = parse_qs(parts.query, keep_blank_values=True)
    of = "object" if "/" in parts.path.strip("/") else "bucket"
    mark = next((name for name in ("list-type", "uploads", "partNumber", "uploadId") if name in query), "")
    return _OPERATIONS.get((method, mark, of), f"{method} {of}")


_OPERATIONS: Final = {
    ("HEAD", "", "bucket"): "HeadBucket",
    ("HEAD", "", "object"): "HeadObject",
    ("GET", "", "object"): "GetObject",
    ("GET", "list-type", "bucket"): "ListObjectsV2",
    ("PUT", "", "object"): "PutObject",
    ("POST", "uploads", "object"): "CreateMultipartUpload",
    ("PUT", "partNumber", "object"): "UploadPart",
    ("POST", "uploadId", "object"): "CompleteMultipartUpload",
    ("DELETE", "uploadId", "object"): "AbortMultipartUpload",
}


class LatencyProxy:
    """The proxy in a process of its own, before the server at *endpoint*. For a ``with`` block."""

    def __init__(self, endpoint: str, delay_s: float) -> None:
        self._command = [sys.executable, "-m", "benchmarks.latency", urlsplit(endpoint).netloc, str(delay_s)]
        self._process: subprocess.Popen[str] | None = None
        self.endpoint = ""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            env=environment({}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,
        )
        self.endpoint = f"http://127.0.0.1:{int(self._said())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(BrokenPipeError):
                self._process.communicate()

    @property
    def cpu_seconds(self) -> float:
        """The CPU time that the proxy has taken so far."""
        return cpu_of([self._process.pid] if self._process else [])

    def seen(self) -> Seen:
        """Return what passed since the last call."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found = json.loads(self._said())
        return Seen(Counter(found["requests"]), found["most_in_flight"])

    def _said(self) -> str:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the proxy that adds latency has ended")
        return line


async def _serve(target: str, delay_s: float) -> None:
    host, _, port = target.partition(":")
    proxy = Latency(host, int(port), delay_s)
    server = await proxy.start()
    print(server.sockets[0].getsockname()[1], flush=True)
    input_ended = asyncio.get_running_loop().create_future()

    def asked() -> None:
        lines = os.read(0, 4096)
        for _ in range(lines.count(b"\n")):
            seen = proxy.take_seen()
            print(json.dumps({"requests": seen.requests, "most_in_flight": seen.most_in_flight}), flush=True)
        if not lines and not input_ended.done():
            input_ended.set_result(None)

    asyncio.get_running_loop().add_reader(0, asked)
    await input_ended


def _run(target: str, delay_s: float) -> None:
    try:
        # Little more than half the CPU time for the same requests.
        import uvloop
    except ImportError:
        asyncio.run(_serve(target, delay_s))
    else:
        uvloop.run(_serve(target, delay_s))


if __name__ == "__main__":
    _run(sys.argv[1], float(sys.argv[2]))
