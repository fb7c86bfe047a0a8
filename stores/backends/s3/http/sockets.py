"""
Sockets that check for interruption while they wait. Both paths to S3 use them, the direct path and boto3's.

*interruptible*: a wait for the server is cut into pieces of at most `SLICE_S` seconds, with a checkpoint
(`stores.runtime.interruption`) between them. An exception of a checkpoint is raised as `CarriedError`.
*minimum throughput*: a transfer that moves less than `MIN_WINDOW_BYTES` in `WINDOW_S` seconds of waiting fails. The
time in which this process neither reads nor sends does not count.
*bounded*: an answer may have as many bytes as `begin_request` and `allow` permit, its head included.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from snapferry.stores.errors import NotAllowed
from snapferry.stores.network.ip_policy import ANYWHERE_BUT_LINK_LOCAL, IpPolicy
from snapferry.stores.runtime.interruption import SLICE_S
from snapferry.stores.text.format import counted

from .errors import AnswerTooLong, CarriedError, TooSlow, checkpoint_through_boto
from .resolver import resolve

# Less than 256 bytes per second is not a transfer. With 128 requests in flight, the most that one process has, this
# takes a line of 256 kbit/s.
WINDOW_S: Final = 60.0
MIN_WINDOW_BYTES: Final = 15 * 1024

# Limits while the server joins the parts of an upload: for one silence, and in all. Meanwhile Amazon sends white space
# now and then, and may take several minutes (API reference, CompleteMultipartUpload).
JOIN_SILENCE_S: Final = 600.0
JOIN_S: Final = 1800.0

# The longest head of an answer, with the interim answers before it ("100 Continue").
MAX_HEAD_BYTES: Final = 256 * 1024
# The longest answer that is not an object. A page of a listing has at most 1,000 keys of 1,024 bytes, each three
# times as long when it is escaped (API reference, ListObjectsV2).
MAX_PAGE_BYTES: Final = 8 * 1024 * 1024

# A name may have many addresses. Each is tried for the timeout of the caller, all of them together for this long.
CONNECT_S: Final = 20.0

# A request of this size fits into the buffers of the kernel.
SENT_AT_ONCE_BYTES: Final = 8 * 1024

# So often a connection without an answer is read for messages of TLS's own. Servers send one or two session tickets.
MOST_TICKETS: Final = 8

_UNLIMITED: Final = 1 << 62

if TYPE_CHECKING:
    _Base = socket.socket
else:
    _Base = object


class _Watched(_Base):
    """
    Watches a socket. The subclass sets `_receive`, `_receive_into` and `_send`, which do the transfer.

    `begin_request` resets the counters. Until the first request, the class attributes hold: they limit the set-up of
    TLS, and the conversation with a proxy.
    """

    _receive: Callable[..., bytes]
    _receive_into: Callable[..., int]
    _send: Callable[..., int]

    _max_silence_s = WINDOW_S
    _joining = False
    _bytes_allowed = MAX_HEAD_BYTES
    _waited_s = 0.0
    _moved = 0
    _check_at = 0.0
    _poll: select.poll | None = None

    def begin_request(self, *, joining: bool = False) -> None:
        """Reset the counters for a request and the head of its answer. *joining*: the request joins parts."""
        self._joining = joining
        self._bytes_allowed = MAX_HEAD_BYTES
        self._waited_s = 0.0
        self._moved = 0

    def allow(self, size_bytes: int | None) -> None:
        """Let the rest of the answer have *size_bytes* bytes; None removes the limit."""
        self._bytes_allowed = _UNLIMITED if size_bytes is None else size_bytes

    def is_readable(self) -> bool:
        """Return whether there is something to read: data, or the end of the connection."""
        return self._is_readable_within(0)

    def _is_readable_within(self, wait_s: float) -> bool:
        poll = self._poll
        if poll is None:
            poll = self._poll = select.poll()
            poll.register(self, select.POLLIN)
        return bool(poll.poll(wait_s * 1000))

    def recv(self, size: int, flags: int = 0) -> bytes:
        started = monotonic()
        while True:
            try:
                received = self._receive(size, flags)
            except (BlockingIOError, TimeoutError):
                self._check_silence(started)
                continue
            # The same as `_count`, without a call: this runs for every request.
            length = len(received)
            self._bytes_allowed -= length
            self._moved += length
            now = monotonic()
            self._waited_s += now - started
            if self._bytes_allowed < 0 or self._waited_s >= WINDOW_S or now >= self._check_at:
                self._check_limits(now)
            return received

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        started = monotonic()
        while True:
            try:
                length = self._receive_into(buffer, size, flags)
            except (BlockingIOError, TimeoutError):
                self._check_silence(started)
                continue
            self._bytes_allowed -= length
            self._count(length, started)
            return length

    def sendall(self, data: Any, flags: int = 0) -> None:
        sent = 0
        if type(data) is bytes and len(data) <= SENT_AT_ONCE_BYTES:
            # Most requests. A problem with the connection shows while the answer is awaited.
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
                self._check_silence(started)
                continue
            left = left[sent:]
            started = self._count(sent, started)

    def _count(self, moved: int, started: float) -> float:
        """Count *moved* bytes and the time since *started*; return the time now."""
        now = monotonic()
        self._moved += moved
        self._waited_s += now - started
        if self._bytes_allowed < 0 or self._waited_s >= WINDOW_S or now >= self._check_at:
            self._check_limits(now)
        return now

    def _check_limits(self, now: float) -> None:
        """Raise where an answer is too long or too slow, or where the owner of the work wants it to stop."""
        if self._bytes_allowed < 0:
            raise CarriedError(AnswerTooLong("the answer of the server is longer than allowed"))
        if self._waited_s >= WINDOW_S:
            self._check_throughput(self._waited_s)
        if now >= self._check_at:
            self._check_at = now + SLICE_S
            checkpoint_through_boto()

    def _check_silence(self, started: float) -> None:
        """Return if a wait that began at *started* may continue."""
        checkpoint_through_boto()
        silent_s = monotonic() - started
        if silent_s >= (JOIN_SILENCE_S if self._joining else self._max_silence_s):
            raise TimeoutError("the server sends nothing")
        if self._waited_s + silent_s >= WINDOW_S:
            self._check_throughput(self._waited_s + silent_s)

    def _check_throughput(self, waited_s: float) -> None:
        if self._joining:
            if waited_s >= JOIN_S:
                raise TooSlow(f"the server has not joined the parts within {JOIN_S:.0f} s")
        elif self._moved < MIN_WINDOW_BYTES:
            raise TooSlow(
                f"too slow: {counted(self._moved, 'byte')} in {waited_s:.0f} s of waiting; the minimum is"
                f" {MIN_WINDOW_BYTES}"
            )
        else:
            self._waited_s, self._moved = 0.0, 0


class PlainSocket(_Watched, socket.socket):
    """A watched TCP connection. `settimeout` sets the longest silence."""

    _receive = socket.socket.recv
    _receive_into = socket.socket.recv_into
    _send = socket.socket.send
    _slice_s = 0.0

    def settimeout(self, value: float | None) -> None:
        # The kernel waits: with a timeout of Python's own, each read and write takes two system calls.
        self._max_silence_s = WINDOW_S if value is None else value
        slice_s = min(self._max_silence_s, SLICE_S)
        if slice_s != self._slice_s:
            self._slice_s = slice_s
            super().settimeout(None)
            timeval = struct.pack("ll", int(slice_s), max(1, int(slice_s % 1 * 1_000_000)))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                self.setsockopt(socket.SOL_SOCKET, option, timeval)

    def gettimeout(self) -> float | None:
        return self._max_silence_s

    def recv_within(self, wait_s: float, size: int) -> bytes | None:
        """As `recv`, but return None where no data arrives within *wait_s* seconds; at most `SLICE_S`."""
        if wait_s and not self._is_readable_within(wait_s):
            return None
        try:
            received = self._receive(size, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        self._bytes_allowed -= len(received)
        self._count(len(received), monotonic())
        return received


class TLSSocket(_Watched, ssl.SSLSocket):  # type: ignore[misc]
    """A watched TLS connection. An SSLContext makes it when this class is its ``sslsocket_class``."""

    _receive = ssl.SSLSocket.recv
    _receive_into = ssl.SSLSocket.recv_into
    _send = ssl.SSLSocket.send

    def is_readable(self) -> bool:
        """As for a plain connection. What was there to read may be lost."""
        for _ in range(MOST_TICKETS):
            if not self.pending() and not super().is_readable():
                return False
            # What has arrived may be TLS's own, such as a session ticket, with no data behind it.
            super().settimeout(0)
            try:
                self._receive(1)
            except ssl.SSLWantReadError:
                continue
            except OSError:
                return True
            else:
                return True
            finally:
                super().settimeout(min(self._max_silence_s, SLICE_S))
        return True

    def recv_within(self, wait_s: float, size: int) -> bytes | None:
        """As for a plain connection."""
        give_up_at = monotonic() + wait_s
        while self.pending() or self._is_readable_within(max(give_up_at - monotonic(), 0)):
            # What has arrived may be TLS's own, such as a session ticket, with no data behind it.
            super().settimeout(0)
            try:
                return self.recv(size)
            except ssl.SSLWantReadError:
                continue
            finally:
                super().settimeout(min(self._max_silence_s, SLICE_S))
        return None

    def settimeout(self, value: float | None) -> None:
        self._max_silence_s = WINDOW_S if value is None else value
        super().settimeout(min(self._max_silence_s, SLICE_S))

    def gettimeout(self) -> float | None:
        return self._max_silence_s

    def do_handshake(self, block: bool = False) -> None:
        started = monotonic()
        while True:
            try:
                super().do_handshake(block)
            except TimeoutError:
                try:
                    checkpoint_through_boto()
                except CarriedError:
                    # Python closes the socket for an `Exception` only.
                    self.close()
                    raise
                if monotonic() - started >= self._max_silence_s:
                    raise
            else:
                return


def connect(
    address: tuple[str, int],
    timeout_s: float,
    options: Any = (),
    ip_policy: IpPolicy = ANYWHERE_BUT_LINK_LOCAL,
) -> PlainSocket:
    """
    Return a connection to *address*. Its name may have several IP addresses; each is tried for *timeout_s* seconds.

    The IP addresses are checked against *ip_policy* here and used at once, so a name server that answers differently
    the second time gains nothing. *options* are for `setsockopt`. Raises `OSError`, and `CarriedError`, with
    `NotAllowed` where *ip_policy* allows none of the IP addresses.
    """
    failure: OSError | None = None
    refusal = ""
    give_up_at = monotonic() + CONNECT_S
    for family, kind, protocol, _, place in resolve(*address):
        checkpoint_through_boto()
        if why := ip_policy.refuses(str(place[0])):
            refusal = why
            continue
        left_s = give_up_at - monotonic()
        if failure is not None and left_s <= 0:
            break
        connection = PlainSocket(family, kind, protocol)
        try:
            for option in options:
                connection.setsockopt(*option)
            # Python's own timeout, because that of the kernel does not limit `connect`.
            socket.socket.settimeout(connection, min(timeout_s, max(left_s, 0.1)))
            socket.socket.connect(connection, place)
            connection.settimeout(timeout_s)
        except OSError as error:
            connection.close()
            failure = error
        except BaseException:
            connection.close()
            raise
        else:
            return connection
    if refusal and failure is None:
        detail = f"no connection is made: it {refusal}, see docs/security.md"
        raise CarriedError(NotAllowed(f"the server {address[0]}:{address[1]}", "", detail))
    raise failure or OSError(f"{address[0]} has no address")
