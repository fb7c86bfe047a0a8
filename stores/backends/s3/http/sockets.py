"""
Sockets that never wait for long without looking around: both ways to S3 use them, the direct one and boto3's.

*interruptible*: each wait for the server ends after `SLICE_S` seconds at the latest, for a checkpoint of
`snapferry.stores.runtime.interruption`. What a checkpoint raises travels through boto3 as `Passing`, a `BaseException`,
because boto3 takes every `Exception` for a failed attempt.
*never too slow*: a transfer that moves less than `LEAST_BYTES` in `WINDOW_S` seconds of waiting is given up.
Time in which this side does not read or send does not count.
*never too much*: an answer may have as many bytes as `expect` allows, its head included.
"""

from __future__ import annotations

import contextvars
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from snapferry.stores.errors import NotAllowed
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, Reach
from snapferry.stores.runtime.interruption import SLICE_S, checkpoint

# Fewer bytes in so many seconds of waiting are no transfer: 256 bytes a second. With 128 requests in flight, the
# most that one process has, this is a line of 256 kbit/s.
WINDOW_S: Final = 60.0
LEAST_BYTES: Final = 15 * 1024

# The server joins the parts of a large object in silence, or sends a blank now and then: the longest silence and
# the longest time in all.
JOIN_SILENCE_S: Final = 600.0
JOIN_S: Final = 1800.0

# The longest head of an answer, words that come before it ("100 Continue") included.
MAX_HEAD_BYTES: Final = 256 * 1024
# The longest answer that is no object. A page of a listing has at most 1,000 keys of 1,024 bytes, each three times
# as long where it is escaped.
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024

# A resolver asks several servers several times before it gives up.
RESOLVE_S: Final = 30.0
# A name may stand for many addresses, each of which is waited for.
CONNECT_S: Final = 20.0

# A request of so few bytes fits the buffers on the way.
SENT_AT_ONCE_BYTES: Final = 8 * 1024

_UNLIMITED: Final = 1 << 62


class Passing(BaseException):
    """Carries *error* through boto3, which would take it for a failed attempt. Never leaves the S3 backend."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class AnswerTooLong(Exception):
    """The server sends more than any answer of this kind can have."""


class TooSlow(TimeoutError):
    """The server takes or sends next to nothing; the message says how little."""


def check_passing() -> None:
    """Call `checkpoint`; what it raises is wrapped in `Passing`."""
    try:
        checkpoint()
    except Exception as error:
        raise Passing(error) from error


if TYPE_CHECKING:
    _Base = socket.socket
else:
    _Base = object


class _Watched(_Base):
    """
    The waiting of a socket. The methods `_receive`, `_receive_into` and `_send` are those of the class below.

    `expect` begins a request. The default values are for what happens before: a proxy or TLS being set up.
    """

    _receive: Callable[..., bytes]
    _receive_into: Callable[..., int]
    _send: Callable[..., int]

    _silence_s = WINDOW_S
    _joining = False
    _left = MAX_HEAD_BYTES
    _waited = 0.0
    _moved = 0
    _check_at = 0.0

    def expect(self, *, joining: bool = False) -> None:
        """Begin a request, and wait for the head of its answer. *joining*: it lets parts become an object."""
        self._joining = joining
        self._left = MAX_HEAD_BYTES
        self._waited = 0.0
        self._moved = 0

    def allow(self, size_bytes: int | None) -> None:
        """Let so many bytes more come of the answer, None for any number."""
        self._left = _UNLIMITED if size_bytes is None else size_bytes

    def recv(self, size: int, flags: int = 0) -> bytes:
        started = monotonic()
        while True:
            try:
                came = self._receive(size, flags)
            except (BlockingIOError, TimeoutError):
                self._look_around(started)
                continue
            # As in `_account`, without the call: this is done for every request.
            length = len(came)
            self._left -= length
            self._moved += length
            now = monotonic()
            self._waited += now - started
            if self._left < 0 or self._waited >= WINDOW_S or now >= self._check_at:
                self._look_closely(now)
            return came

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        started = monotonic()
        while True:
            try:
                came = self._receive_into(buffer, size, flags)
            except (BlockingIOError, TimeoutError):
                self._look_around(started)
                continue
            self._left -= came
            self._account(came, started)
            return came

    def sendall(self, data: Any, flags: int = 0) -> None:
        sent = 0
        if type(data) is bytes and len(data) <= SENT_AT_ONCE_BYTES:
            # Most requests. The wait for the answer will tell what there is to tell.
            try:
                sent = self._send(data, flags)
            except (BlockingIOError, TimeoutError):
                sent = 0
            if sent == len(data):
                return
        left = memoryview(data).cast("B")[sent:]
        started = monotonic()
        while left:
            try:
                sent = self._send(left, flags)
            except (BlockingIOError, TimeoutError):
                self._look_around(started)
                continue
            left = left[sent:]
            started = self._account(sent, started)

    def _account(self, moved: int, started: float) -> float:
        """Take note of bytes that were waited for since *started*; return the time."""
        now = monotonic()
        self._moved += moved
        self._waited += now - started
        if self._left < 0 or self._waited >= WINDOW_S or now >= self._check_at:
            self._look_closely(now)
        return now

    def _look_closely(self, now: float) -> None:
        """Raise where an answer is too long or comes too slowly, or where the owner says "stop"."""
        if self._left < 0:
            raise Passing(AnswerTooLong("the server sends a longer answer than there can be"))
        if self._waited >= WINDOW_S:
            self._judge(self._waited)
        if now >= self._check_at:
            self._check_at = now + SLICE_S
            check_passing()

    def _look_around(self, started: float) -> None:
        """Return if what has been waited for since *started* may be waited for longer."""
        check_passing()
        silent = monotonic() - started
        if silent >= (JOIN_SILENCE_S if self._joining else self._silence_s):
            raise TimeoutError("the server says nothing")
        if self._waited + silent >= WINDOW_S:
            self._judge(self._waited + silent)

    def _judge(self, waited: float) -> None:
        if self._joining:
            if waited >= JOIN_S:
                raise TooSlow(f"the server has not joined the parts within {JOIN_S:.0f} s")
        elif self._moved < LEAST_BYTES:
            raise TooSlow(
                f"too slow: {self._moved} bytes in {waited:.0f} s of waiting, at least {LEAST_BYTES} must move"
            )
        else:
            self._waited, self._moved = 0.0, 0


class PlainSocket(_Watched, socket.socket):
    """A watched TCP connection. `settimeout` sets the longest silence."""

    _receive = socket.socket.recv
    _receive_into = socket.socket.recv_into
    _send = socket.socket.send
    _wait_s = 0.0

    def settimeout(self, value: float | None) -> None:
        # The kernel does the waiting: Python's own timeouts ask the system twice for each reading and writing.
        self._silence_s = WINDOW_S if value is None else value
        wait_s = min(self._silence_s, SLICE_S)
        if wait_s != self._wait_s:
            self._wait_s = wait_s
            super().settimeout(None)
            timeval = struct.pack("ll", int(wait_s), max(1, int(wait_s % 1 * 1_000_000)))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.setsockopt(socket.SOL_SOCKET, option, timeval)

    def gettimeout(self) -> float | None:
        return self._silence_s


class TLSSocket(_Watched, ssl.SSLSocket):  # type: ignore[misc]
    """A watched connection by TLS; a context makes it if this is its ``sslsocket_class``."""

    _receive = ssl.SSLSocket.recv
    _receive_into = ssl.SSLSocket.recv_into
    _send = ssl.SSLSocket.send

    def settimeout(self, value: float | None) -> None:
        self._silence_s = WINDOW_S if value is None else value
        super().settimeout(min(self._silence_s, SLICE_S))

    def gettimeout(self) -> float | None:
        return self._silence_s

    def do_handshake(self, block: bool = False) -> None:
        started = monotonic()
        while True:
            try:
                super().do_handshake(block)
            except TimeoutError:
                try:
                    check_passing()
                except Passing:
                    # Python closes it for an `Exception` only.
                    self.close()
                    raise
                if monotonic() - started >= self._silence_s:
                    raise
            else:
                return


def connect(
    address: tuple[str, int], timeout_s: float, options: Any = (), reach: Reach = ANYWHERE_BUT_LINK_LOCAL
) -> PlainSocket:
    """
    Return a connection to *address*, whose name may stand for several; each is waited for *timeout_s*.

    What the name resolves to is looked at here, and connected to only if *reach* allows it: a name server that
    answers differently the second time gains nothing. *options* are for `setsockopt`. Raises `OSError`, `Passing`,
    with `NotAllowed` where *reach* allows none.
    """
    failed: OSError | None = None
    refused = ""
    give_up_at = monotonic() + CONNECT_S
    for family, kind, protocol, _, place in resolve(*address):
        check_passing()
        if why := reach.refuses(str(place[0])):
            refused = why
            continue
        left_s = give_up_at - monotonic()
        if failed is not None and left_s <= 0:
            break
        connection = PlainSocket(family, kind, protocol)
        try:
            for option in options:
                connection.setsockopt(*option)
            # Python's own timeout, which bounds the connecting too.
            socket.socket.settimeout(connection, min(timeout_s, max(left_s, 0.1)))
            socket.socket.connect(connection, place)
            connection.settimeout(timeout_s)
        except OSError as error:
            connection.close()
            failed = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    if refused and failed is None:
        said = f"no connection is made: it {refused}, see docs/security.md"
        raise Passing(NotAllowed(f"the server {address[0]}:{address[1]}", "", said))
    raise failed or OSError(f"{address[0]} has no address")


_lookups: dict[tuple[str, int], _Lookup] = {}
_looking = threading.Lock()


def _after_fork() -> None:
    global _lookups, _looking
    _lookups, _looking = {}, threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class _Lookup:
    """One look-up of a name in a thread of its own, for all who wait for it: nothing can end it."""

    def __init__(self, host: str, port: int) -> None:
        self.ended = threading.Event()
        self.found: Any = None
        self.error: Exception | None = None
        self._name = host, port

    def run(self) -> None:
        try:
            self.found = socket.getaddrinfo(*self._name, 0, socket.SOCK_STREAM)
        except Exception as error:  # noqa: BLE001 - handed over to those who wait
            self.error = error
        finally:
            with _looking:
                _lookups.pop(self._name, None)
            self.ended.set()


def resolve(host: str, port: int) -> list[Any]:
    """Return what `socket.getaddrinfo` does for TCP. Raises `OSError`, also after `RESOLVE_S`, and `Passing`."""
    name = host.strip("[]")
    try:
        return socket.getaddrinfo(name, port, 0, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        pass
    with _looking:
        lookup = _lookups.get((name, port))
        if lookup is None:
            lookup = _lookups[name, port] = _Lookup(name, port)
            # Without the context of whoever happens to be the first to ask.
            run = contextvars.Context().run
            threading.Thread(target=run, args=(lookup.run,), name="s3-resolve", daemon=True).start()
    give_up_at = monotonic() + RESOLVE_S
    while not lookup.ended.wait(min(SLICE_S, RESOLVE_S)):
        check_passing()
        if monotonic() >= give_up_at:
            raise TimeoutError(f"the name {name} was not resolved within {RESOLVE_S:.0f} s")
    if lookup.error is not None:
        raise lookup.error
    found: list[Any] = lookup.found
    return found
