"""
Many requests in flight in one thread, each on a connection of its own. Answers come in any order.

*in runs*: answers that have arrived are read one after the other, and as many new requests are sent in one run. So the
code stays in the processor's caches, and no thread waits for another one's turn.
*no answer holds up another*: what has arrived of an answer is kept until the rest is there.
*nothing is decided*: a request without an ordinary answer has failed, whatever the reason was. Whoever sends it again
by itself gets the error. After a few failures in a row nothing more is sent, unless something in flight then succeeds.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable, Generator, Iterator
from http.client import HTTPException
from time import monotonic, sleep
from typing import Final, NamedTuple

from snapferry.stores.backends.s3.http.errors import AnswerTooLong, CarriedError
from snapferry.stores.backends.s3.http.sockets import TLSSocket
from snapferry.stores.errors import StoreError
from snapferry.stores.runtime.interruption import SLICE_S, checkpoint, is_owners

from .http1 import FAILURES, ConnectionPool
from .response import MAX_ANSWER_BYTES, RECEIVE_BYTES, Connection, Head, may_become_head, read_head

MOST_FAILURES: Final = 3
"""After so many failures in a row nothing more is sent."""

# Where only a few answers have arrived, others arrive soon if the server is near. The wait for them takes so many
# seconds for each request in flight.
GATHER_S: Final = 0.00004

AHEAD_S: Final = 0.02
"""Seconds after which a request that waits for a connection is tried again, whatever the others do."""


class PooledRequest(NamedTuple):
    """The request *data* to the server of *pool*, and what *then* makes of the head and the body of its answer."""

    pool: ConnectionPool
    data: bytes
    then: Callable[[Head, bytes], object]


class _Flight:
    """A *request* that was sent over *connection*, and what has arrived of its answer."""

    __slots__ = ("began", "body", "connection", "head", "request")

    def __init__(self, request: PooledRequest, connection: Connection) -> None:
        self.request = request
        self.connection = connection
        self.began = monotonic()
        self.head: Head | None = None
        # Before there is a head: its beginning.
        self.body = b""

    def receive(self) -> Head | None:
        """
        Read what has arrived, waiting for nothing; return the head if the answer is complete, as `body` is then.

        Raises `HTTPException` if it is not an ordinary success with a short body, and as `Connection.recv` does.
        """
        while True:
            wanted = RECEIVE_BYTES if self.head is None else self.head.length - len(self.body)
            received = self.connection.recv_within(0, wanted)
            if received is None:
                return None
            if not received:
                raise HTTPException("the answer ends early")
            self.body += received
            head = self.head or self._read_head()
            if head is not None and len(self.body) == head.length:
                return head

    def _read_head(self) -> Head | None:
        """Return the head if it has arrived."""
        end = self.body.find(b"\r\n\r\n")
        if end < 0 and may_become_head(self.body):
            return None
        head = read_head(self.connection, self.body, end, bodyless=False) if end >= 0 else None
        if head is None or head.length > MAX_ANSWER_BYTES:
            raise HTTPException("not an ordinary answer with a short body")
        self.head, self.body = head, head.received
        return head


def exchange(requests: Iterator[PooledRequest], most: int) -> Generator[object]:
    """
    Send *requests*, at most *most* at once, and yield what their *then* makes of the answers, in any order.

    *then* is given an ordinary success, whose body is short and complete. A request that it returns takes the place of
    the one before. None stands for a failure and is not yielded, as is nothing for a request that fails: the server may
    have done what was requested then.

    *requests* may wait. Close the generator to close the connections whose answer did not arrive. Raises what
    *requests*, *then* and a checkpoint raise.
    """
    flights = _Flights()
    waiting: deque[PooledRequest] = deque()
    more, failures = True, 0
    try:
        while True:
            while more and failures < MOST_FAILURES and flights.number + len(waiting) < most:
                request = next(requests, None)
                if request is None:
                    more = False
                else:
                    waiting.append(request)
                    failures += flights.send(waiting)
            failures += flights.send(waiting)
            if not flights.number:
                return
            for answer in flights.receive(AHEAD_S if waiting else SLICE_S):
                found = None if answer is None else answer[0](*answer[1:])
                if isinstance(found, PooledRequest):
                    # Not the end of it: writes that all fail are failures in a row, whatever is read between them.
                    waiting.append(found)
                    continue
                failures = failures + 1 if found is None else 0
                if found is not None:
                    yield found
    finally:
        flights.close()


class _Flights:
    """The connections of an exchange: those that wait for an answer, and the free ones."""

    def __init__(self) -> None:
        # By the descriptors of their sockets.
        self._flying: dict[int, _Flight] = {}
        self._free: dict[ConnectionPool, list[Connection]] = {}
        # Of all connections here. A free one that is readable was closed by the server, or cannot be trusted.
        self._poll = select.poll()
        self._look_at = monotonic() + SLICE_S

    @property
    def number(self) -> int:
        """How many requests wait for their answers."""
        return len(self._flying)

    def send(self, waiting: deque[PooledRequest]) -> int:
        """
        Send those of *waiting* for which there are connections; return how many failed.

        Where nothing is in flight, a connection is made. If that fails, nothing will ever be sent, so all have failed.
        """
        failed = 0
        for _ in range(len(waiting)):
            request = waiting.popleft()
            connection = self._connection(request.pool, len(waiting) + 1)
            if connection is None:
                if not self._flying:
                    failed += len(waiting) + 1
                    waiting.clear()
                    break
                waiting.append(request)
                continue
            try:
                connection.begin_request()
                connection.sendall(request.data)
            except BaseException as error:
                self._drop(connection)
                if not _is_failure(error):
                    raise
                failed += 1
            else:
                self._flying[connection.fileno()] = _Flight(request, connection)
        return failed

    def _connection(self, pool: ConnectionPool, wanted: int) -> Connection | None:
        """Return a free connection; None if there is none yet. Lets *wanted* be made if there is none."""
        free = self._free.setdefault(pool, [])
        while free:
            connection = free.pop()
            # As in the pool: what comes before a request is not its answer.
            if not connection.is_readable():
                return connection
            self._drop(connection)
        idle = pool.take_idle()
        if idle is not None:
            connection = idle
        else:
            if self._flying:
                pool.open_ahead(wanted)
                return None
            try:
                connection = pool.acquire()
            except BaseException as error:
                if not _is_failure(error):
                    raise
                return None
        self._poll.register(connection, select.POLLIN)
        return connection

    def receive(self, wait_s: float) -> Iterator[tuple[Callable[[Head, bytes], object], Head, bytes] | None]:
        """
        Wait for answers, at most *wait_s* seconds. Yield those that have arrived whole.

        None stands for a failed request.
        """
        checkpoint()
        flying, poll = self._flying, self._poll
        ready = poll.poll(wait_s * 1000)
        if 0 < len(ready) < len(flying) // 2:
            sleep(GATHER_S * len(flying))
            ready = poll.poll(0)
        ended = []
        for fd, _ in ready:
            flight = flying.pop(fd, None)
            if flight is None:
                ended.append(fd)
            else:
                yield from self._receive(fd, flight)
        if ended:
            self._drop_ended(ended)
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + SLICE_S
            # What has arrived meanwhile had to wait for others, and is not late.
            arrived = {fd for fd, _ in poll.poll(0)}
            for fd, flight in list(flying.items()):
                longest_s = flight.connection.gettimeout()
                if longest_s is not None and fd not in arrived and now - flight.began >= longest_s:
                    del flying[fd]
                    self._drop(flight.connection)
                    yield None

    def _receive(
        self, fd: int, flight: _Flight
    ) -> Iterator[tuple[Callable[[Head, bytes], object], Head, bytes] | None]:
        """Read what has arrived of an answer. Yield it if it is complete, None if it is not an ordinary one."""
        connection = flight.connection
        try:
            head = flight.receive()
        except BaseException as error:
            self._drop(connection)
            if not _is_failure(error):
                raise
            yield None
            return
        if head is None:
            self._flying[fd] = flight
            return
        # TLS may have decrypted more than the answer.
        if not head.reusable or (isinstance(connection, TLSSocket) and connection.pending()):
            self._drop(connection)
        else:
            self._free[flight.request.pool].append(connection)
        yield flight.request.then, head, flight.body

    def _drop_ended(self, ended: list[int]) -> None:
        """Close free connections that the server has ended, or on which it has sent what nobody asked for."""
        for free in self._free.values():
            for connection in [each for each in free if each.fileno() in ended]:
                free.remove(connection)
                self._drop(connection)

    def close(self) -> None:
        """Return the free connections to their pools, and close the others."""
        for pool, free in self._free.items():
            for connection in free:
                pool.release(connection)
        for flight in self._flying.values():
            flight.connection.close()

    def _drop(self, connection: Connection) -> None:
        self._poll.unregister(connection)
        connection.close()


def _is_failure(error: BaseException) -> bool:
    """Return whether *error* is a failure of one request, and not the owner's."""
    if isinstance(error, CarriedError):
        return isinstance(error.error, (AnswerTooLong, StoreError)) and not is_owners(error.error)
    return isinstance(error, FAILURES)
