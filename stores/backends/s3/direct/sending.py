"""
Send a request with a long body, and notice an answer that comes before the body was sent.

A server that refuses a request may answer at once and close the connection. So the client asks it first ("Expect:
100-continue", RFC 9110, section 10.1.1), and looks between two blocks of the body whether there is an answer.
"""

from __future__ import annotations

import re
from contextlib import suppress
from http.client import RemoteDisconnected
from typing import Final

from .response import RECEIVE_BYTES, Connection

# As long as boto3 waits for "100 Continue". Many servers never send it.
CONTINUE_S: Final = 1.0

# Over TLS a block is sent whole before its bytes count as moved.
_BLOCK_BYTES: Final = 256 * 1024

# 101 is the end of HTTP and so no interim answer; see `http.interim`.
_interim = re.compile(rb"HTTP/1\.[01] 1(?!01)[0-9][0-9][ \r]").match
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
        except (BrokenPipeError, ConnectionResetError):
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
    while (more := connection.recv_within(CONTINUE_S, RECEIVE_BYTES)) is not None:
        rest = _without_interim(received + _not_the_end(more))
        if _is_final(rest):
            return rest, False
        if len(rest) < len(received) + len(more):
            return rest, True
        received = rest
    return received, True


def _without_interim(received: bytes) -> bytes:
    while _interim(received) and (end := received.find(b"\r\n\r\n")) >= 0:
        received = received[end + 4 :]
    return received


def _is_final(received: bytes) -> bool:
    return len(received) >= _STATUS_LINE_BYTES and not _interim(received)


def _not_the_end(received: bytes) -> bytes:
    if not received:
        raise RemoteDisconnected("the server closed the connection without an answer")
    return received
