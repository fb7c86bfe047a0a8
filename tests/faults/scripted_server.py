"""A server that says the bytes it is told to, whatever it is asked."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.servers import forget_clients


@dataclass
class Scripted:
    """A running server. *requests* are the heads of what was asked, *connections* how many were made."""

    endpoint: str = ""
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0


Piece = bytes | threading.Event | None


@contextmanager
def scripted(*answers: Sequence[Piece], tls: ssl.SSLContext | None = None) -> Iterator[Scripted]:
    """
    Answer the n-th request with the n-th of *answers*, the last one again and again.

    Each is a sequence of pieces that are sent one by one; an event in it is
    waited for, None closes the connection. Over TLS with *tls*.
    """
    server = Scripted()
    lock = threading.Lock()
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server.endpoint = f"{'https' if tls else 'http'}://127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                server.connections += 1
                threads.append(threading.Thread(target=serve, args=(connection,), daemon=True))
                threads[-1].start()

        def serve(connection: socket.socket) -> None:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                connection = tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as incoming:
                while head := _read_request(incoming):
                    with lock:
                        answer = answers[min(len(server.requests), len(answers) - 1)]
                        server.requests.append(head)
                    for piece in answer:
                        if piece is None:
                            return
                        if isinstance(piece, threading.Event):
                            piece.wait()
                        else:
                            connection.sendall(piece)

        accepting = threading.Thread(target=accept, daemon=True)
        accepting.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            forget_clients(server.endpoint)


def _read_request(incoming) -> bytes:
    lines = []
    try:
        while (line := incoming.readline()) not in {b"\r\n", b""}:
            lines.append(line)
        for line in lines:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                incoming.read(int(value))
    except OSError:
        return b""
    return b"".join(lines)
