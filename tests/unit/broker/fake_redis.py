"""A server that answers every command of the Redis protocol as it was told, for sentinels and servers that lie."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = Callable[[list[bytes]], bytes]


@contextmanager
def serving(answer: Answer) -> Iterator[int]:
    """Serve on a loopback port, which is yielded; *answer* gets each command and returns the bytes to send."""
    listener = socket.create_server(("127.0.0.1", 0))
    sockets = [listener]

    def accept() -> None:
        with suppress(OSError):
            while True:
                one, _ = listener.accept()
                sockets.append(one)
                threading.Thread(target=serve, args=(one,), daemon=True).start()

    def serve(one: socket.socket) -> None:
        with suppress(OSError, ValueError), one.makefile("rb") as lines:
            while count := lines.readline():
                words = []
                for _ in range(int(count[1:])):
                    length = int(lines.readline()[1:])
                    words.append(lines.read(length + 2)[:-2])
                one.sendall(answer(words))

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


def bulk(*words: str) -> bytes:
    """Return an array of strings as the protocol writes it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w.encode()), w.encode()) for w in words)


def sentinel(reply: bytes) -> Answer:
    """Return what a sentinel answers that gives *reply* when it is asked for the primary."""

    def answer(words: list[bytes]) -> bytes:
        if words[0].upper() == b"HELLO":
            return b"%1\r\n$5\r\nproto\r\n:3\r\n"
        return reply if words[0].upper() == b"SENTINEL" else b"+OK\r\n"

    return answer
