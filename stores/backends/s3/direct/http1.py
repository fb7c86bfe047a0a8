"""
One HTTP/1.1 request over one connection, and its answer, with as little work in between as possible.

*never the wrong answer*: a connection is used again only after its last answer was read to the end and nothing
followed it.
*never longer than boto3*: where `http.client` would stop waiting, this stops as well. `http.sockets` limits waits and
lengths.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress
from contextvars import copy_context
from http.client import HTTPException, IncompleteRead
from time import monotonic
from typing import Final, cast

from snapferry.stores.backends.s3.direct_path import Response
from snapferry.stores.backends.s3.http.errors import AnswerTooLong, CarriedError
from snapferry.stores.backends.s3.http.interim import FinalResponse
from snapferry.stores.backends.s3.http.sockets import MAX_PAGE_BYTES, TLSSocket, connect
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, IpPolicy
from snapferry.stores.text.format import counted

from .response import (
    MAX_ANSWER_BYTES,
    RECEIVE_BYTES,
    Connection,
    Head,
    Resumed,
    may_become_head,
    read_head,
)
from .sending import send

AGAIN_S: Final = 1.0
"""After a connection could not be made, or ended within this time unused, none is made ahead for so many seconds."""

_FRAMING: Final = {"content-length", "transfer-encoding"}


class NotConnected(Exception):
    """The connection could not be made; the cause is the error of the system. Nothing was sent."""


FAILURES: Final = (NotConnected, HTTPException, OSError)
"""What a request raises that did not end in an answer."""


class ConnectionPool:
    """
    Connections to one server. Safe to share between threads, not with a forked child.

    *tls* is None for plain HTTP. Connections go only where *ip_policy* allows (`NotAllowed`). A connection that is
    silent for *read_timeout_s* fails. The pool keeps as many connections as were once in use at the same time.

    Every method that waits raises `CarriedError` where a checkpoint raises.
    """

    def __init__(
        self,
        address: tuple[str, int],
        *,
        tls: ssl.SSLContext | None,
        connect_timeout_s: float,
        read_timeout_s: float,
        ip_policy: IpPolicy = ANYWHERE_BUT_LINK_LOCAL,
    ) -> None:
        self._address = address
        self._ip_policy = ip_policy
        self._tls = tls
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._idle: list[Connection] = []
        # Connections that no request has used yet.
        self._ahead: list[Connection] = []
        self._made_ahead_at = float("-inf")
        self._opening = 0
        self._open_at = float("-inf")
        self._opening_lock = threading.Lock()
        if tls is not None:
            tls.sslsocket_class = TLSSocket

    @property
    def idle(self) -> tuple[Connection, ...]:
        """The connections that no request uses."""
        return (*self._idle, *self._ahead)

    def request(
        self, data: bytes, *, bodyless: bool = False, streamed: bool = False, partial: bool = False
    ) -> Head | Response:
        """
        Send the request *data* and read its answer: a `Head` if that is an ordinary success.

        *bodyless*: the request is a HEAD, so an ordinary 404 is a `Head` too. *streamed*: do not read the body of any
        other success. *partial*: the request is for a range, so an ordinary 206 is a `Head` too. Raises `NotConnected`,
        and `OSError` or `HTTPException` where no answer arrives or it breaks off; then it is unknown whether the server
        has done what was requested.
        """
        connection = self.acquire()
        try:
            connection.begin_request()
            connection.sendall(data)
            received = connection.recv(RECEIVE_BYTES)
            return self._answer_from(
                connection, received, bodyless=bodyless, streamed=streamed, partial=partial
            )
        except BaseException:
            connection.close()
            raise

    def request_with_body(self, data: bytes, body: memoryview, *, expects: bool) -> Head | Response:
        """
        Send the request *data* and its *body*, which is not copied, and read the answer as `request` does.

        *expects*: *data* has the header ``Expect``. An error that the server sends before it has the whole body is an
        answer. Anything else before that is a failure.
        """
        connection = self.acquire()
        try:
            connection.begin_request()
            received, whole = send(connection, data, body, expects=expects)
            if whole:
                return self._answer_from(connection, received)
            answer = self._read(connection, received, keep=False)
            if answer.status < 300:
                raise HTTPException("the server confirms a body that it has not received")
        except BaseException:
            connection.close()
            raise
        return answer

    def request_page(self, data: bytes) -> Response:
        """
        Send the request *data* for a page of a listing, and read its answer to the end. Raises as `request` does.

        Raises `AnswerTooLong`, alone or in `CarriedError`, where the answer is longer than a page can be.
        """
        connection = self.acquire()
        try:
            connection.begin_request()
            connection.sendall(data)
            return self._read(connection, b"", limit=None)
        except BaseException:
            connection.close()
            raise

    def read_rest(self, head: Head) -> Response:
        """Return the answer that begins with *head*, to its end. Raises as `read_short` does."""
        body = self.read_short(head)
        self.finish(head)
        return Response(head.status, {"Content-Length": str(head.length)}, body)

    def read_short(self, head: Head) -> bytes:
        """
        Return the body after *head*, which is short. Raises `OSError` and `HTTPException` where it ends early.

        Call `finish` then; after an error the connection is closed. Servers send the head with the first few KiB, so
        most bodies arrive in one or two pieces.
        """
        received, connection = head.received, head.connection
        try:
            if head.length > MAX_ANSWER_BYTES:
                raise HTTPException(
                    f"an answer of {counted(head.length, 'byte')} where a short one was expected"
                )
            while missing := head.length - len(received):
                more = connection.recv(missing)
                if not more:
                    raise IncompleteRead(b"", missing)
                received += more
        except BaseException:
            connection.close()
            raise
        return received

    def finish(self, head: Head) -> None:
        """Release or close the connection of *head*, an answer whose body has arrived or which has none."""
        if head.reusable:
            self._idle.append(head.connection)
        else:
            head.connection.close()

    def release(self, connection: Connection) -> None:
        """Keep *connection* for another request; all its answers were read to the end."""
        self._idle.append(connection)

    def close(self) -> None:
        """Close the connections that no request uses. New ones may be made afterwards."""
        for connections in (self._idle, self._ahead):
            with suppress(IndexError):
                while True:
                    connections.pop().close()

    def acquire(self) -> Connection:
        """Return an idle connection, or a new one. Raises `NotConnected`."""
        return self.take_idle() or self._connect()

    def take_idle(self) -> Connection | None:
        """Return an idle connection, None if there is none."""
        while connections := self._idle or self._ahead:
            try:
                connection = connections.pop()
            except IndexError:
                continue
            # Data before a request is the end of the connection, or an answer to something else.
            if not connection.is_readable():
                return connection
            connection.close()
            if connections is self._ahead and (now := monotonic()) < self._made_ahead_at + AGAIN_S:
                # The server may allow no more of them.
                self._open_at = now + AGAIN_S
        return None

    def open_ahead(self, count: int) -> None:
        """
        Let threads connect until *count* connections are idle or on their way; return at once.

        Nothing is tried for `AGAIN_S` seconds after a connection could not be made, or ended at once.
        """
        with self._opening_lock:
            missing = count - self._opening - len(self.idle)
            if missing <= 0 or monotonic() < self._open_at:
                return
            self._opening += missing
        for started in range(missing):
            try:
                threading.Thread(target=copy_context().run, args=(self._open,), daemon=True).start()
            except (RuntimeError, MemoryError):
                # There can be no more threads. The connections that there are must do.
                with self._opening_lock:
                    self._opening -= missing - started
                    self._open_at = monotonic() + AGAIN_S
                return

    def _open(self) -> None:
        opened = False
        try:
            connection = self._connect()
            self._made_ahead_at = monotonic()
            self._ahead.append(connection)
            opened = True
        except (NotConnected, CarriedError):
            # Whoever needs a connection gets the error.
            pass
        finally:
            with self._opening_lock:
                self._opening -= 1
                if not opened:
                    self._open_at = monotonic() + AGAIN_S

    def _connect(self) -> Connection:
        try:
            connection: Connection = connect(
                self._address,
                self._connect_timeout_s,
                [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
                self._ip_policy,
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

    def _answer_from(
        self,
        connection: Connection,
        received: bytes,
        *,
        bodyless: bool = False,
        streamed: bool = False,
        partial: bool = False,
    ) -> Head | Response:
        """Read the answer that begins with *received*."""
        while (end := received.find(b"\r\n\r\n")) < 0:
            more = connection.recv(RECEIVE_BYTES) if may_become_head(received) else b""
            if not more:
                return self._read(connection, received, bodyless=bodyless, streamed=streamed)
            received += more
        head = read_head(connection, received, end, bodyless=bodyless, partial=partial)
        if head is None:
            return self._read(connection, received, bodyless=bodyless, streamed=streamed)
        return head

    def _read(
        self,
        connection: Connection,
        received: bytes,
        *,
        bodyless: bool = False,
        streamed: bool = False,
        limit: int | None = MAX_ANSWER_BYTES,
        keep: bool = True,
    ) -> Response:
        """
        Read an answer of any kind with `http.client`; *received* is its beginning. Without a *limit*: a page.

        *keep*: the connection may be used again.
        """
        method = "HEAD" if bodyless else None
        stream = Resumed(received, connection)
        # HTTPResponse uses of a socket only the methods that `Resumed` has.
        answer = FinalResponse(stream, method=method)  # type: ignore[arg-type]
        try:
            answer.begin()
            if streamed and answer.status < 300:
                connection.close()
                return Response(answer.status, dict(answer.getheaders()), b"")
            if limit is None and (answer.length or 0) > MAX_PAGE_BYTES:
                raise AnswerTooLong(
                    f"the server announces {counted(answer.length or 0, 'byte')} for a page of a listing"
                )
            connection.allow(MAX_PAGE_BYTES if limit is None else limit + 8 * RECEIVE_BYTES)
            # Read without a size where possible: with a size, `read` does not notice a body that ends early.
            whole = limit is None or (answer.length is not None and answer.length <= limit)
            body = answer.read() if whole else answer.read(limit)
        except ValueError as error:
            raise HTTPException(f"the answer is malformed: {error}") from error
        headers = dict(answer.getheaders())
        if not whole and answer.status >= 300 and not answer.isclosed():
            # Of an error that is too long only the status counts. boto3 would take a body that breaks off for a
            # failure of the network, and retry.
            body, headers = b"", {n: v for n, v in headers.items() if n.lower() not in _FRAMING}
        response = Response(answer.status, headers, body)
        ended = answer.isclosed() and not stream.left_over
        if keep and ended and not answer.will_close:
            self.release(connection)
        else:
            connection.close()
        return response
