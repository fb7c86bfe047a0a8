"""
The floor of copying one large object: the least that anybody must do, and nothing else.

    python -m benchmarks.one_object SOURCE DESTINATION

SOURCE and DESTINATION are a file, or the URL of an object (http://HOST:PORT/BUCKET/KEY) on a server that checks no
signatures (`benchmarks.big_server`). A process on each core reads ranges of the object, piece by piece, into a buffer
that is used again. Each piece is hashed once with BLAKE3 while it is in the CPU's cache, and written once: to its place
in the file, or over a second plain socket as part of an upload. Nothing is signed, checked, flushed or tried again, and
the digests of the ranges are not merged.

It is no way to copy anything: killed, it leaves half a file under its final name.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from blake3 import blake3

from .floor import on_all_cores
from .measure import cores, say_seconds

MIB: Final = 1024 * 1024

# The fastest of 4 to 64 MiB for ranges, 1/8 to 2 MiB for buffers and 1 to 4 connections for each core. The server is on
# the same machine, so more connections than cores gain nothing. Nor does a SHA-256 with each part, which saves the
# server an MD5, or a file that is mapped.
RANGE_BYTES: Final = 16 * MIB
BUFFER_BYTES: Final = MIB

_HEAD_BYTES: Final = 64 * 1024
_ASKED: Final = "http://"


class _Connection:
    """Requests for one URL, one after the other. Raises RuntimeError for any answer that is no success."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._path = parts.netloc, parts.path
        host, _, port = parts.netloc.partition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def begin(self, method: str, query: str = "", headers: str = "", length: int = 0) -> None:
        """Send a request without its body of *length* bytes."""
        first = f"{method} {self._path}{query} HTTP/1.1\r\nHost: {self._host}\r\n"
        self.send(f"{first}Content-Length: {length}\r\n{headers}\r\n".encode())

    def send(self, data: bytes | memoryview) -> None:
        """Send *data*."""
        self._socket.sendall(data)

    def answer(self) -> tuple[int, bytes]:
        """Return the length of the answer's body, and the part of it that came with the head."""
        came = b""
        while b"\r\n\r\n" not in came:
            block = self._socket.recv(_HEAD_BYTES)
            if not block:
                raise RuntimeError("the server hung up")
            came += block
        head, _, body = came.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(head.partition(b"\r\n")[0].decode())
        length = re.search(rb"\r\nContent-Length: (\d+)", head, re.IGNORECASE)
        return int(length[1]) if length else 0, body

    def receive_into(self, room: memoryview) -> None:
        """Fill *room*."""
        while room:
            got = self._socket.recv_into(room)
            if not got:
                raise RuntimeError("the server hung up")
            room = room[got:]

    def ask(self, method: str, query: str, body: bytes = b"") -> bytes:
        """Return the body of the answer to a whole request."""
        self.begin(method, query, length=len(body))
        self.send(body)
        length, first = self.answer()
        rest = bytearray(length - len(first))
        self.receive_into(memoryview(rest))
        return first + rest


class _Source(Protocol):
    def begin(self, start: int, stop: int) -> None:
        """Go to the bytes from *start* to before *stop*."""

    def read_into(self, room: memoryview) -> None:
        """Fill *room* with the next of them."""


class _File:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDONLY)
        self._at = 0

    def begin(self, start: int, stop: int) -> None:
        self._at = start

    def read_into(self, room: memoryview) -> None:
        if os.preadv(self._file, [room], self._at) != len(room):
            raise RuntimeError("the file became shorter")
        self._at += len(room)


class _Object:
    def __init__(self, url: str) -> None:
        self._connection = _Connection(url)
        self._first = b""

    def begin(self, start: int, stop: int) -> None:
        self._connection.begin("GET", headers=f"Range: bytes={start}-{stop - 1}\r\n")
        _, self._first = self._connection.answer()

    def read_into(self, room: memoryview) -> None:
        size = min(len(self._first), len(room))
        room[:size] = self._first[:size]
        self._first = self._first[size:]
        self._connection.receive_into(room[size:])


class _Target(Protocol):
    def begin(self, number: int, size_bytes: int) -> None:
        """Begin the range of that *number*."""

    def write(self, piece: memoryview) -> None:
        """Write the next *piece* of it."""

    def end(self) -> None:
        """End it."""


class _Place:
    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY)
        self._at = 0

    def begin(self, number: int, size_bytes: int) -> None:
        self._at = number * RANGE_BYTES

    def write(self, piece: memoryview) -> None:
        self._at += os.pwrite(self._file, piece, self._at)

    def end(self) -> None:
        pass


class _Upload:
    def __init__(self, url: str, upload: str) -> None:
        self._connection = _Connection(url)
        self._upload = upload

    def begin(self, number: int, size_bytes: int) -> None:
        query = f"?partNumber={number + 1}&uploadId={self._upload}"
        self._connection.begin("PUT", query, length=size_bytes)

    def write(self, piece: memoryview) -> None:
        self._connection.send(piece)

    def end(self) -> None:
        self._connection.answer()


def copy(source: str, destination: str) -> None:
    """Copy an object. Raises RuntimeError, and OSError if the destination is a file that exists."""
    size = _size(source)
    upload = _begin_upload(destination) if _is_url(destination) else ""
    if not upload:
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        Path(destination).touch(exist_ok=False)
    numbers, filled = os.pipe()
    # As many as fit into a pipe, which is enough for 250 GB. Whoever is free takes the next.
    os.write(filled, b"".join(number.to_bytes(4, "big") for number in range(-(-size // RANGE_BYTES))))
    os.close(filled)

    def work(_: Sequence[str]) -> None:
        reads: _Source = _Object(source) if _is_url(source) else _File(source)
        writes: _Target = _Upload(destination, upload) if upload else _Place(destination)
        room = memoryview(bytearray(BUFFER_BYTES))
        while taken := os.read(numbers, 4):
            _copy_range(reads, writes, int.from_bytes(taken, "big"), size, room)

    on_all_cores([str(core) for core in range(cores())], work)
    if upload:
        _end_upload(destination, upload)


def _copy_range(reads: _Source, writes: _Target, number: int, size: int, room: memoryview) -> None:
    start = number * RANGE_BYTES
    stop = min(start + RANGE_BYTES, size)
    hasher = blake3()
    reads.begin(start, stop)
    writes.begin(number, stop - start)
    for at in range(start, stop, BUFFER_BYTES):
        piece = room[: stop - at]
        reads.read_into(piece)
        hasher.update(piece)
        writes.write(piece)
    hasher.digest()
    writes.end()


def _is_url(name: str) -> bool:
    return name.startswith(_ASKED)


def _size(source: str) -> int:
    if not _is_url(source):
        return os.stat(source).st_size
    connection = _Connection(source)
    connection.begin("HEAD")
    return connection.answer()[0]


def _begin_upload(url: str) -> str:
    found = re.search(rb"<UploadId>(.*?)<", _Connection(url).ask("POST", "?uploads"))
    if found is None:
        raise RuntimeError("the server began no upload")
    return found[1].decode()


def _end_upload(url: str, upload: str) -> None:
    connection = _Connection(url)
    query = f"?uploadId={upload}"
    parts = re.findall(
        rb"<PartNumber>(\d+)</PartNumber><ETag>&quot;(\w+)&quot;", connection.ask("GET", query)
    )
    text = b"".join(b"<Part><PartNumber>%b</PartNumber><ETag>%b</ETag></Part>" % part for part in parts)
    connection.ask("POST", query, b"<CompleteMultipartUpload>%b</CompleteMultipartUpload>" % text)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    copy(sys.argv[1], sys.argv[2])


if __name__ == "__main__":
    say_seconds(main)
