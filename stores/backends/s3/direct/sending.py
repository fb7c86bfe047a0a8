"""
Send a request with a long body, and notice an answer that comes before the body was sent.

A server that refuses a request may answer at once and close the connection. So the client asks it first ("Expect:
100-continue", RFC 9110, section 10.1.1), and looks between two blocks of the body whether there is an answer.
"""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from http.client import RemoteDisconnected
from time import monotonic
from typing import Final

from .response import RECEIVE_BYTES, Connection

# As long as boto3 waits for "100 Continue". Many servers never send it.
CONTINUE_S: Final = 1.0

# Over TLS the bytes of a block count as moved only when all of it was sent. So a block must be short enough for the
# longest silence that a slow line may have.
_BLOCK_BYTES: Final = 64 * 1024

# 101 is the end of HTTP and so no interim answer; see `http.interim`.
_interim = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9][0-9][ \r\n]").match
# As `http.client`, take an empty line for the end of a head, whatever ends its lines.
_end_of_head = re.compile(rb"\n\r?\n").search
_STATUS_LINE_BYTES: Final = len(b"HTTP/1.1 200 ")


def send(connection: Connection, head: bytes, body: memoryview, *, expects: bool) -> tuple[bytes, bool]:
    """
    Send *head* and *body*; return the beginning of the final answer, and whether the whole body was sent.

    *expects*: the head has the header ``Expect``. Raises `OSError` and `HTTPException`.
    """
    connection.sendall(head)
    received = b""
    if expects:
        received, go_on = _wait_for_continue(connection)
        if not go_on:
            return received, False
    for start in range(0, len(body), _BLOCK_BYTES):
        more = connection.recv_within(0, RECEIVE_BYTES)
        if more is not None:
            received = _without_interim(received + _not_the_end(more))
            if _is_final(received):
                return received, False
        try:
            connection.sendall(body[start : start + _BLOCK_BYTES])
        except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
            # The server may have sent an error before it closed the connection.
            with suppress(OSError):
                received = _without_interim(received + connection.recv(RECEIVE_BYTES))
            if _is_final(received):
                return received, False
            raise
    while not _is_final(received):
        received = _without_interim(received + _not_the_end(connection.recv(RECEIVE_BYTES)))
    return received, True


def _wait_for_continue(connection: Connection) -> tuple[bytes, bool]:
    """Return what was received of another answer than "100 Continue", and whether to send the body."""
    received = b""
    # In all: a server that sends a byte now and then must not extend the wait.
    give_up_at = monotonic() + CONTINUE_S
    while (left_s := give_up_at - monotonic()) > 0:
        more = connection.recv_within(left_s, RECEIVE_BYTES)
        if more is None:
            break
        rest = _without_interim(received + _not_the_end(more))
        if _is_final(rest):
            return rest, False
        if len(rest) < len(received) + len(more):
            return rest, True
        received = rest
    return received, True


def _without_interim(received: bytes) -> bytes:
    while _interim(received) and (end := _end_of_head(received)) is not None:
        received = received[end.end() :]
    return received


def _is_final(received: bytes) -> bool:
    return len(received) >= _STATUS_LINE_BYTES and not _interim(received)


def _not_the_end(received: bytes) -> bytes:
    if not received:
        raise RemoteDisconnected("the server closed the connection without an answer")
    return received
