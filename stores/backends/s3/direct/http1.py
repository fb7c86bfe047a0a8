"""
One request over one connection, and its answer, with as little as possible in between.

*ordinary or not at all*: an answer is understood here only if it is HTTP/1.1
of the plainest kind, with one Content-Length. Every other is read by
`http.client`, or ends as the exception that it is.
*never the wrong answer*: a connection is used again only when all of its last
answer was read and nothing came behind it.
*never longer than boto3*: what `http.client` would not wait for is not waited
for here. Waits and lengths are bounded by `sockets`.
"""

from __future__ import annotations

import io
import re
import select
import socket
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from http.client import HTTPException, IncompleteRead
from typing import Final, NamedTuple, cast

from snapferry.stores.backends.s3.http.interim import LastWord
from snapferry.stores.backends.s3.http.sockets import (
    MAX_PAGE_BYTES,
    AnswerTooLong,
    PlainSocket,
    TLSSocket,
    connect,
)
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, Reach

# As much as the head of an answer and a small body take.
RECEIVE_BYTES: Final = 16 * 1024
# The longest answer of a kind that is no object and no listing.
MAX_ANSWER_BYTES: Final = 64 * 1024
# Of a length in decimal; no object is nearly as long.
MAX_DIGITS: Final = 18

_LENGTH: Final = b"\r\ncontent-length:"
_FOLD: Final = (b" ", b"\t")
_FOUND: Final = (b"http/1.1 200 ", b"http/1.1 200\r")
_NONE: Final = (b"http/1.1 404 ", b"http/1.1 404\r")
_FRAMING: Final = {"content-length", "transfer-encoding"}
_status_line = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9][ \r]").match
# `http.client` refuses more lines than these, without waiting for the end of the head.
_MAX_LINES: Final = 101

Connection = PlainSocket | TLSSocket


class NotConnected(Exception):
    """No connection came about; its cause is the error of the system. Nothing was sent."""


class Head(NamedTuple):
    """
    An ordinary answer up to its body: *length* is the body's, *came* what arrived of it already.

    The rest is on *connection*, which belongs to whoever has this.
    """

    status: int
    length: int
    came: bytes
    connection: Connection
    goes_on: bool
    """The server will take another request on the connection."""
    lines: bytes = b""
    """The lines of its headers, in lowercase."""


class Full(NamedTuple):
    """An answer of any kind, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Wire:
    """
    Connections to one server. Safe to share between threads, not with a forked child.

    *tls* is None for plain HTTP. Connections go where *reach* allows (`NotAllowed`). A connection that stays silent for
    *read_timeout_s* is given up. As many are kept as were once in use together.
    What an owner raises to stop a wait comes out as `sockets.Passing`.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None,
        connect_timeout_s: float,
        read_timeout_s: float,
        reach: Reach = ANYWHERE_BUT_LINK_LOCAL,
    ) -> None:
        self._address = address
        self._reach = reach
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._idle: list[Connection] = []
        if tls is not None:
            tls.sslsocket_class = TLSSocket

    def ask(self, request: bytes, *, bodyless: bool = False, streamed: bool = False) -> Head | Full:
        """
        Send *request* and read its answer, a `Head` if that is an ordinary success.

        *bodyless*: it asks by HEAD, where an ordinary "there is none" is a `Head`
        too. *streamed*: the body of an unusual success is not read.
        Raises `NotConnected`, and `OSError` or `HTTPException` for an answer
        that does not come or breaks off; whether the server did what was asked
        is unknown then.
        """
        connection = self._take()
        try:
            connection.expect()
            connection.sendall(request)
            came = connection.recv(RECEIVE_BYTES)
            while (end := came.find(b"\r\n\r\n")) < 0:
                more = connection.recv(RECEIVE_BYTES) if _may_become_head(came) else b""
                if not more:
                    return self._read(connection, came, bodyless=bodyless, streamed=streamed)
                came += more
            head = _read_head(connection, came, end, bodyless)
            if head is None:
                return self._read(connection, came, bodyless=bodyless, streamed=streamed)
        except BaseException:
            connection.close()
            raise
        return head

    def ask_for_all(self, request: bytes) -> Full:
        """
        Send *request* and read its answer to the end. Raises as `ask` does.

        Raises `AnswerTooLong` where it is longer than a page of a listing can be, alone or in `Passing`.
        """
        connection = self._take()
        try:
            connection.expect()
            connection.sendall(request)
            return self._read(connection, b"", at_most=None)
        except BaseException:
            connection.close()
            raise

    def rest_of(self, head: Head) -> Full:
        """Return the answer that *head* begins, to its end. Raises as `ask` does, also if it is too long."""
        if head.length > MAX_ANSWER_BYTES:
            head.connection.close()
            raise HTTPException(f"an answer of {head.length} bytes where a few words were expected")
        body = Body(self, head)
        try:
            return Full(head.status, {"Content-Length": str(head.length)}, body.read(head.length))
        finally:
            body.close()

    def give_back(self, connection: Connection) -> None:
        """Keep *connection*, all of whose answers were read, for another request."""
        self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that nobody uses. More can be made afterwards."""
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    def _take(self) -> Connection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break
            # What can be read before anything was asked is the end, or no answer to us.
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            decrypted = isinstance(connection, ssl.SSLSocket) and connection.pending()
            if not decrypted and not poll.poll(0):
                return connection
            connection.close()
        return self._connect()

    def _connect(self) -> Connection:
        try:
            connection: Connection = connect(
                self._address,
                self._connect_timeout_s,
                [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                self._reach,
            )
            try:
                if self._tls is not None:
                    wrapped = self._tls.wrap_socket(connection, server_hostname=self._address[0])
                    connection = cast("TLSSocket", wrapped)
                connection.settimeout(self._read_timeout_s)
            except BaseException:
                connection.close()
                raise
        except OSError as error:
            raise NotConnected from error
        return connection

    def _read(
        self,
        connection: Connection,
        came: bytes,
        *,
        bodyless: bool = False,
        streamed: bool = False,
        at_most: int | None = MAX_ANSWER_BYTES,
    ) -> Full:
        method = "HEAD" if bodyless else None
        incoming = _Resumed(came, connection)
        # HTTPResponse asks for no more of a socket than this stand-in has.
        answer = LastWord(incoming, method=method)  # type: ignore[arg-type]
        try:
            answer.begin()
            if streamed and answer.status < 300:
                connection.close()
                return Full(answer.status, dict(answer.getheaders()), b"")
            if at_most is None and (answer.length or 0) > MAX_PAGE_BYTES:
                raise AnswerTooLong(f"the server announces {answer.length} bytes for a page of a listing")
            connection.allow(MAX_PAGE_BYTES if at_most is None else at_most + 8 * RECEIVE_BYTES)
            # Without a size it would not notice that an announced length did not come.
            whole = at_most is None or (answer.length is not None and answer.length <= at_most)
            body = answer.read() if whole else answer.read(at_most)
        except ValueError as error:
            raise HTTPException(f"the answer makes no sense: {error}") from error
        headers = dict(answer.getheaders())
        if not whole and answer.status >= 300 and not answer.isclosed():
            # Of a refusal that is too long the status counts: taken for a body that broke off, it would be waited for.
            body, headers = b"", {n: v for n, v in headers.items() if n.lower() not in _FRAMING}
        full = Full(answer.status, headers, body)
        ended = answer.isclosed() and not incoming.left_over
        if ended and not answer.will_close:
            self.give_back(connection)
        else:
            connection.close()
        return full


def _may_become_head(came: bytes) -> bool:
    """Return whether *came*, the beginning of an answer, is worth waiting for the end of an ordinary head."""
    if len(came) >= MAX_ANSWER_BYTES or not came or not came.startswith(b"HTTP/1."[: len(came)]):
        return False
    lines = came.count(b"\n")
    if not lines:
        return True
    # `http.client` takes a head for ended where a line is empty, whatever ends its lines.
    return bool(_status_line(came)) and lines <= _MAX_LINES and b"\n\n" not in came and b"\n\r\n" not in came


def _read_head(connection: Connection, came: bytes, end: int, bodyless: bool) -> Head | None:
    # Searched and not taken apart: this is done for every request, and three headers matter.
    head = came[: end + 2].lower()
    goes_on = b"\r\nconnection:" not in head or b"\r\nconnection: keep-alive\r\n" in head
    body = came[end + 4 :]
    if bodyless and head.startswith(_NONE):
        # Whatever is said of a body, there is none.
        return Head(404, 0, b"", connection, goes_on and not body)
    at = head.find(_LENGTH)
    until = head.find(b"\r\n", at + 2)
    length = head[at + len(_LENGTH) : until].strip()
    if at < 0 or not length.isdigit() or len(length) > MAX_DIGITS or head.find(_LENGTH, until) >= 0:
        return None
    if head[until + 2 : until + 3] in _FOLD or b"\r\ntransfer-encoding" in head:
        return None
    # Some take one character alone for the end of a header, others do not.
    if not head.startswith(_FOUND) or not head.count(b"\n") == head.count(b"\r") == head.count(b"\r\n"):
        return None
    expected = 0 if bodyless else int(length)
    if len(body) > expected:
        # Nothing was asked that this could be the answer to.
        goes_on = False
        body = body[:expected]
    return Head(200, int(length), body, connection, goes_on, head)


class Body:
    """
    The body behind a `Head`, on its way in.

    The connection is given back when the end was read, and closed if this is
    closed before.
    """

    def __init__(self, wire: Wire, head: Head) -> None:
        self._wire = wire
        self._connection: Connection | None = head.connection
        self._goes_on = head.goes_on
        self._came = head.came
        self._length = head.length
        self._left = head.length
        self._settle()
        if self._connection is not None:
            self._connection.allow(None)

    @property
    def length(self) -> int:
        """The length that the head announces."""
        return self._length

    def read(self, size: int) -> bytes:
        """
        Return the next *size* bytes, fewer only at the end.

        Raises `IncompleteRead` if the body stops before its announced length,
        `OSError` if it stalls or is cut; after an error nothing more is to be had.
        """
        wanted = min(size, self._left)
        if len(self._came) >= wanted:
            chunk, self._came = self._came[:wanted], self._came[wanted:]
        else:
            chunk = self._receive(wanted)
        self._left -= wanted
        self._settle()
        return chunk

    def close(self) -> None:
        """Let go of the connection. May be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _receive(self, wanted: int) -> bytes:
        chunk = bytearray(wanted)
        at = len(self._came)
        chunk[:at] = self._came
        self._came = b""
        with memoryview(chunk) as view:
            while at < wanted:
                try:
                    got = 0 if self._connection is None else self._connection.recv_into(view[at:])
                except BaseException:
                    self.close()
                    raise
                if not got:
                    self.close()
                    raise IncompleteRead(b"", self._length)
                at += got
        return bytes(chunk)

    def _settle(self) -> None:
        if self._left == len(self._came) and self._connection is not None:
            if self._goes_on:
                self._wire.give_back(self._connection)
                self._connection = None
            else:
                self.close()


class _Resumed(io.RawIOBase):
    """
    What already came from a socket, and then the socket.

    *left_over* says, once the file made of it is closed, whether more had come than was read of it.
    """

    def __init__(self, came: bytes, connection: Connection) -> None:
        self._came = came
        self._connection = connection
        self._dry = False
        self.left_over = False

    def makefile(self, mode: str) -> io.BufferedReader:
        return _Incoming(self, 4 * RECEIVE_BYTES)

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        if self._dry:
            return 0
        if not self._came:
            return self._connection.recv_into(into)
        size = min(len(into), len(self._came))
        into[:size], self._came = self._came[:size], self._came[size:]
        return size

    def dry_up(self, buffered: Callable[[], bytes]) -> None:
        """Receive nothing more; *buffered* tells what was read ahead."""
        self._dry = True
        self.left_over = bool(self._came or buffered())


class _Incoming(io.BufferedReader):
    def __init__(self, raw: _Resumed, size: int) -> None:
        super().__init__(raw, size)
        self._resumed = raw

    def close(self) -> None:
        if not self.closed:
            self._resumed.dry_up(self.peek)
        super().close()
