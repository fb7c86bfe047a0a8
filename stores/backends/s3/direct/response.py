"""
Answers of HTTP/1.1 on the direct path: the head of an ordinary answer, its body, and the reading of any other answer.

*ordinary or not at all*: `read_head` accepts only an HTTP/1.1 answer of the plainest kind, with one Content-Length.
Python's `http.client` reads every other answer.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from http.client import IncompleteRead
from typing import Final, NamedTuple

from snapferry.stores.backends.s3.http.sockets import PlainSocket, TLSSocket

# The head of an answer and a small body fit in it.
RECEIVE_BYTES: Final = 16 * 1024
# The longest answer that is not an object and not a page of a listing, and the longest object that is read at once.
MAX_ANSWER_BYTES: Final = 64 * 1024
# The decimal digits of a length. No object is nearly as long.
MAX_DIGITS: Final = 18

_LENGTH: Final = b"\r\ncontent-length:"
_FOLD: Final = (b" ", b"\t")
_OK: Final = (b"http/1.1 200 ", b"http/1.1 200\r")
_PARTIAL: Final = (b"http/1.1 206 ", b"http/1.1 206\r")
_NOT_FOUND: Final = (b"http/1.1 404 ", b"http/1.1 404\r")
_status_line = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9][ \r]").match
# `http.client` refuses more lines than these without waiting for the end of the head.
_MAX_LINES: Final = 101

Connection = PlainSocket | TLSSocket


class Head(NamedTuple):
    """
    An ordinary answer up to its body.

    *length* is the length of the body in bytes, *received* the part of it that has arrived. The rest is on
    *connection*, which the holder of this must release or close.
    """

    status: int
    length: int
    received: bytes
    connection: Connection
    reusable: bool
    """The server accepts another request on the connection."""
    lines: bytes = b""
    """The lines of the headers, in lowercase."""
    sent: bytes = b""
    """The same as the server sent them."""

    def header(self, start: bytes) -> str:
        """Return the value of the header whose line begins with *start*, in lowercase after a line end, "" for none."""
        at = self.lines.find(start)
        if at < 0:
            return ""
        value = self.sent[at + len(start) : self.lines.find(b"\r\n", at + 2)]
        return value.decode("latin-1").strip()


def may_become_head(received: bytes) -> bool:
    """Return whether *received*, the beginning of an answer, may still become an ordinary head."""
    if (
        len(received) >= MAX_ANSWER_BYTES
        or not received
        or not received.startswith(b"HTTP/1."[: len(received)])
    ):
        return False
    lines = received.count(b"\n")
    if not lines:
        return True
    # `http.client` takes an empty line for the end of a head, whatever ends its lines.
    return (
        bool(_status_line(received))
        and lines <= _MAX_LINES
        and b"\n\n" not in received
        and b"\n\r\n" not in received
    )


def read_head(
    connection: Connection, received: bytes, end: int, *, bodyless: bool, partial: bool = False
) -> Head | None:
    """
    Return the head that ends at *end* of *received*, None if the answer is not an ordinary one.

    *bodyless*: the answer is to a HEAD, so it has no body, and 404 is an ordinary answer too. *partial*: the answer is
    to a request for a range, so 206 is an ordinary answer too.
    """
    # Searched, not split: this runs for every request, and only three headers matter.
    head = received[: end + 2].lower()
    reusable = b"\r\nconnection:" not in head or b"\r\nconnection: keep-alive\r\n" in head
    body = received[end + 4 :]
    if bodyless and head.startswith(_NOT_FOUND):
        # An answer to a HEAD has no body, whatever length it announces.
        return Head(404, 0, b"", connection, reusable and not body)
    at = head.find(_LENGTH)
    until = head.find(b"\r\n", at + 2)
    length = head[at + len(_LENGTH) : until].strip()
    if at < 0 or not length.isdigit() or len(length) > MAX_DIGITS or head.find(_LENGTH, until) >= 0:
        return None
    if head[until + 2 : until + 3] in _FOLD or b"\r\ntransfer-encoding" in head:
        return None
    # Some programs take a lone CR or LF for the end of a header, others do not.
    status = 200 if head.startswith(_OK) else 206 if partial and head.startswith(_PARTIAL) else 0
    if not status or not head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n"):
        return None
    expected = 0 if bodyless else int(length)
    if len(body) > expected:
        # Nothing was requested to which the excess could be the answer.
        reusable = False
        body = body[:expected]
    return Head(status, int(length), body, connection, reusable, head, received[: end + 2])


class Body:
    """
    The body after *head*, read from its connection as it is needed.

    The connection goes to *release* when the body was read to its end and the connection is reusable. Otherwise it is
    closed, also where this is closed before the end.
    """

    def __init__(self, head: Head, release: Callable[[Connection], None]) -> None:
        self._release = release
        self._connection: Connection | None = head.connection
        self._reusable = head.reusable
        self._received = head.received
        self._length = head.length
        self._left = head.length
        self._end_if_received()
        if self._connection is not None:
            self._connection.allow(None)

    @property
    def length(self) -> int:
        """The announced length in bytes."""
        return self._length

    def read(self, size: int, /) -> bytes:
        """
        Return the next *size* bytes, fewer only at the end.

        Raises `IncompleteRead` if the body ends before its announced length, and `OSError` if it stalls or the
        connection breaks. After an error nothing more can be read.
        """
        wanted = min(size, self._left)
        if len(self._received) >= wanted:
            chunk, self._received = self._received[:wanted], self._received[wanted:]
        else:
            filled = bytearray(wanted)
            self._receive(memoryview(filled))
            chunk = bytes(filled)
        self._left -= wanted
        self._end_if_received()
        return chunk

    def read_into(self, buffer: memoryview, /) -> int:
        """Fill *buffer* with the next bytes, fewer only at the end; return their number. Raises as `read` does."""
        wanted = min(len(buffer), self._left)
        self._receive(buffer[:wanted])
        self._left -= wanted
        self._end_if_received()
        return wanted

    def close(self) -> None:
        """Close the connection if the body was not read to its end. May be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _receive(self, into: memoryview) -> None:
        wanted, at = len(into), min(len(into), len(self._received))
        into[:at], self._received = self._received[:at], self._received[at:]
        while at < wanted:
            try:
                got = 0 if self._connection is None else self._connection.recv_into(into[at:])
            except BaseException:
                self.close()
                raise
            if not got:
                self.close()
                raise IncompleteRead(b"", self._length)
            at += got

    def _end_if_received(self) -> None:
        if self._left == len(self._received) and self._connection is not None:
            if self._reusable:
                self._release(self._connection)
                self._connection = None
            else:
                self.close()


class Resumed(io.RawIOBase):
    """
    A file for `http.client`: the bytes *received* from a connection so far, and then the connection.

    *left_over* is set when that file is closed: whether more was received than was read from it.
    """

    def __init__(self, received: bytes, connection: Connection) -> None:
        self._received = received
        self._connection = connection
        self._ended = False
        self.left_over = False

    def makefile(self, mode: str) -> io.BufferedReader:
        return _Buffered(self, 4 * RECEIVE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        if self._ended:
            return 0
        if not self._received:
            return self._connection.recv_into(into)
        size = min(len(into), len(self._received))
        into[:size], self._received = self._received[:size], self._received[size:]
        return size

    def end(self, buffered: Callable[[], bytes]) -> None:
        """Receive nothing more; *buffered* returns what was read ahead."""
        self._ended = True
        self.left_over = bool(self._received or buffered())


class _Buffered(io.BufferedReader):
    def __init__(self, raw: Resumed, size: int) -> None:
        super().__init__(raw, size)
        self._resumed = raw

    def close(self) -> None:
        if not self.closed:
            self._resumed.end(self.peek)
        super().close()
