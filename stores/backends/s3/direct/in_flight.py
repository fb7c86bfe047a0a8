"""
Many requests in flight in one thread, each on a connection of its own. Answers come in any order.

*in runs*: answers that have arrived are read one after the other, and as many new requests are sent in one run. So the
code stays in the processor's caches, and no thread waits for another one's turn.
*nothing is decided*: a request without an ordinary answer ends as failed, whatever the reason was. Whoever sends it
again by itself gets the error. After a few failures in a row nothing more is sent.
"""

from __future__ import annotations

import select
from collections.abc import Callable, Generator, Iterator
from http.client import HTTPException
from time import monotonic, sleep
from typing import Final, TypeVar

from snapferry.stores.backends.s3.http.errors import AnswerTooLong, CarriedError
from snapferry.stores.backends.s3.http.sockets import TLSSocket
from snapferry.stores.errors import StoreError
from snapferry.stores.runtime.interruption import SLICE_S, checkpoint, is_owners

from .http1 import ConnectionPool, NotConnected
from .response import RECEIVE_BYTES, Connection, Head

_T = TypeVar("_T")

MOST_FAILURES: Final = 3
"""After so many failures in a row nothing more is sent."""

# Where only a few answers have arrived, others arrive soon if the server is near: the longest wait for them, for each
# request in flight.
GATHER_S: Final = 0.00006


def exchange(
    pool: ConnectionPool,
    requests: Iterator[tuple[int, bytes]],
    receive: Callable[[Head, bytes], _T | None],
    most: int,
) -> Generator[tuple[int, _T | None]]:
    """
    Send *requests*, each a number and its bytes, at most *most* at once. Yield the number of each and what came of it.

    That is what *receive* makes of the head of an ordinary success and of its whole body, which is short; None where
    the request failed. The server may have done what was requested then. A number that is not yielded was not sent.

    *requests* may wait. Close the generator to close the connections whose answer did not arrive. Raises what
    *requests* and a checkpoint raise.
    """
    flights = _Flights(pool, most)
    failures = 0
    try:
        while True:
            if failures < MOST_FAILURES:
                for number in flights.send(requests):
                    failures += 1
                    yield number, None
            if not flights.in_flight:
                return
            for number, answer in flights.receive():
                found = None if answer is None else receive(*answer)
                failures = failures + 1 if found is None else 0
                yield number, found
    finally:
        flights.close()


class _Flights:
    """The connections of an exchange: those that wait for an answer, and the free ones."""

    def __init__(self, pool: ConnectionPool, most: int) -> None:
        # The descriptor of a socket -> the number of its request, the connection, and when the request was sent.
        self._flying: dict[int, tuple[int, Connection, float]] = {}
        self._free: list[Connection] = []
        self._pool = pool
        self._most = most
        # Of all connections here. A free one that is readable was closed by the server, or cannot be trusted.
        self._poll = select.poll()
        self._look_at = monotonic() + SLICE_S

    @property
    def in_flight(self) -> int:
        """How many requests wait for their answers."""
        return len(self._flying)

    def send(self, requests: Iterator[tuple[int, bytes]]) -> list[int]:
        """Send as many of *requests* as there is room for, and return the numbers of those that could not be sent."""
        self._find_connections()
        free, flying, failed = self._free, self._flying, []
        now = monotonic()
        while free and len(flying) < self._most and (request := next(requests, None)) is not None:
            number, data = request
            connection = free.pop()
            try:
                connection.begin_request()
                connection.sendall(data)
            except BaseException as error:
                self._drop(connection)
                if not _is_failure(error):
                    raise
                failed.append(number)
            else:
                flying[connection.fileno()] = number, connection, now
        return failed

    def _find_connections(self) -> None:
        """Take as many connections from the pool as may be in flight. Where it has none, make one."""
        free, lacking = self._free, self._most - len(self._flying)
        if free:
            readable = {fd for fd, _ in self._poll.poll(0)}
            for connection in [each for each in free if each.fileno() in readable]:
                # The server has closed it, or has sent what nobody asked for.
                free.remove(connection)
                self._drop(connection)
        while len(free) < lacking and (idle := self._pool.take_idle()) is not None:
            self._own(idle)
        if len(free) < lacking:
            self._pool.open_ahead(lacking - len(free))
        if not free and not self._flying:
            try:
                self._own(self._pool.acquire())
            except BaseException as error:
                if not _is_failure(error):
                    raise

    def receive(self) -> Iterator[tuple[int, tuple[Head, bytes] | None]]:
        """Wait for answers. Yield those that have begun to arrive, each read to its end; None for a failed request."""
        checkpoint()
        flying, poll = self._flying, self._poll
        ready = poll.poll(SLICE_S * 1000)
        if 0 < len(ready) < len(flying) // 2:
            sleep(GATHER_S * len(flying))
            ready = poll.poll(0)
        for fd, _ in ready:
            flight = flying.pop(fd, None)
            if flight is not None:
                yield flight[0], self._receive(fd, flight[1])
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + SLICE_S
            for fd, (number, connection, began) in list(flying.items()):
                longest_s = connection.gettimeout()
                if longest_s is not None and now - began >= longest_s and not connection.is_readable():
                    del flying[fd]
                    self._drop(connection)
                    yield number, None

    def _receive(self, fd: int, connection: Connection) -> tuple[Head, bytes] | None:
        """Read an answer to its end; None if it is not an ordinary one."""
        try:
            answer = self._pool.answer_from(connection, connection.recv(RECEIVE_BYTES), streamed=True)
            if not isinstance(answer, Head):
                # The pool has the connection, or has closed it.
                self._poll.unregister(fd)
                return None
            body = self._pool.read_short(answer)
        except BaseException as error:
            self._poll.unregister(fd)
            connection.close()
            if _is_failure(error):
                return None
            raise
        # TLS may have decrypted more than the answer.
        if not answer.reusable or (isinstance(connection, TLSSocket) and connection.pending()):
            self._drop(connection)
        else:
            self._free.append(connection)
        return answer, body

    def close(self) -> None:
        """Return the free connections to the pool, and close the others."""
        for connection in self._free:
            self._pool.release(connection)
        for _, connection, _ in self._flying.values():
            connection.close()

    def _own(self, connection: Connection) -> None:
        self._free.append(connection)
        self._poll.register(connection, select.POLLIN)

    def _drop(self, connection: Connection) -> None:
        self._poll.unregister(connection)
        connection.close()


def _is_failure(error: BaseException) -> bool:
    """Return whether *error* is a failure of one request, and not the owner's."""
    if isinstance(error, CarriedError):
        return isinstance(error.error, (AnswerTooLong, StoreError)) and not is_owners(error.error)
    return isinstance(error, (OSError, HTTPException, NotConnected))
