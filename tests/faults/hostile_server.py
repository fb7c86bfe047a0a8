"""A server that does to a connection whatever a test's function does, and knows which connections are still open."""

from __future__ import annotations

import gc
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from snapferry.stores.backends.s3.client import clients
from snapferry.stores.backends.s3.http import sockets
from tests.servers import forget_clients


@dataclass
class Hostile:
    """A running server. *over* is set when the test is; *requests* are the heads that were read."""

    endpoint: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    over: threading.Event = field(default_factory=threading.Event)


def open_connections() -> list[socket.socket]:
    """Return the connections to S3 that this process has open and that nobody keeps for another request."""
    for client in clients._clients.values():
        client.close()
    gc.collect()
    kinds = (sockets.PlainSocket, sockets.TLSSocket)
    return [found for found in gc.get_objects() if isinstance(found, kinds) and found.fileno() >= 0]


@pytest.fixture(scope="module", autouse=True)
def _no_connections_of_other_tests() -> None:
    """Close what tests of other modules have left open in this process, and keep `open_connections` out of the rest."""
    for connection in open_connections():
        connection.close()
    gc.freeze()


def mostly_slow(values: Iterable[Any], quick: Collection[Any]) -> list[Any]:
    """Return *values* as parameters of a test, all but the *quick* ones marked as slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]


Handle = Callable[["Peer"], None]


class Peer:
    """One connection, as the server's function sees it."""

    def __init__(self, server: Hostile, connection: socket.socket) -> None:
        self.server = server
        self.connection = connection
        self._incoming = connection.makefile("rb")

    def request(self, *, body: bool = True) -> bytes:
        """Return the head of the next request, b"" at the end; its *body* is read and dropped."""
        lines = []
        while (line := self._incoming.readline()) not in {b"\r\n", b""}:
            lines.append(line)
        head = b"".join(lines)
        if head:
            self.server.requests.append(head)
        for line in lines:
            name, _, value = line.partition(b":")
            if body and name.lower() == b"content-length":
                self._incoming.read(int(value))
        return head

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def drip(self, data: bytes = b"", *, every_s: float = 0.01, filler: bytes = b"x") -> None:
        """Send *data* byte by byte, and *filler* for ever after it."""
        for at in range(len(data)):
            self.send(data[at : at + 1])
            time.sleep(every_s)
        while not self.server.over.is_set():
            self.send(filler)
            time.sleep(every_s)

    def wait(self) -> None:
        """Say and read nothing more until the client has left or the test is over."""
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP)
        while not self.server.over.is_set() and not poll.poll(50):
            continue


@contextmanager
def hostile(
    handle: Handle, *, tls: ssl.SSLContext | None = None, receive_bytes: int = 0
) -> Iterator[Hostile]:
    """
    Run *handle* for each connection, in a thread of its own; the connection is closed after it.

    *receive_bytes* makes the buffer small in which the system keeps what nobody reads.
    """
    server = Hostile()
    with socket.socket() as listener:
        if receive_bytes:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        server.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"

        def serve(connection: socket.socket) -> None:
            with connection, suppress(OSError, ValueError):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with tls.wrap_socket(connection, server_side=True) if tls else connection as wrapped:
                    handle(Peer(server, wrapped))

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                server.connections += 1
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server
        finally:
            server.over.set()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            forget_clients(server.endpoint)
