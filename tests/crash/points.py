"""
The crash points of a process: it is killed before a write that it was told to die at.

A write is what can be seen after the death of a process: a system call that changes a directory or file below the
folder of the test, a request to an S3 server that changes something, a command to Redis that changes something. A
request to S3 is two points: nothing of it was sent, or half of it. To die after a write is to die before the next one.

`install` must be called in a process of its own, which it changes for good.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha1
from pathlib import Path
from typing import Any, Final

from redis.connection import AbstractConnection

from snapferry.stores.backends.directory.native import extension
from snapferry.workers.ledger import scripts

# Commands that change nothing, or nothing that matters after a death. RPOP takes a message from its queue, and the next
# command records that: to die between the two is a point.
_READS: Final = frozenset(
    b"""
    AUTH BITCOUNT BRPOP CLIENT CONFIG EXEC EXISTS GET GETRANGE HELLO HGET HGETALL HLEN HMGET HSCAN INFO KEYS LLEN LRANGE
    MULTI PING PSUBSCRIBE PTTL PUBLISH READONLY RPOP SCAN SCARD SCRIPT SELECT SISMEMBER SMEMBERS SSCAN STRLEN SUBSCRIBE
    TIME TTL TYPE UNSUBSCRIBE UNWATCH WATCH ZCARD ZCOUNT ZMSCORE ZRANGE ZRANGEBYSCORE ZRANK ZREVRANGE ZREVRANGEBYSCORE
    ZSCAN ZSCORE
    """.split()
)
_READING_SCRIPTS: Final = frozenset(
    sha1(script.text.encode()).hexdigest().encode()
    for script in (
        scripts.STANDING, scripts.HAS_TASK, scripts.JOB_IDS, scripts.ENTRIES, scripts.STATUSES, scripts.RUNNING,
    )
)  # fmt: skip

# Audit events that Python raises before a system call that changes a directory. Those of files are in `_Points`.
_EVENTS: Final = frozenset(
    {
        "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate",
        "os.utime", "os.setxattr",
    }
)  # fmt: skip

_is_change: Final = re.compile(rb"(PUT|POST|DELETE) (\S+)").match


class Fuse:
    """
    Kills this process when it is burnt for the *length*-th time, counted from 0; writes the last label to *note*.

    Only labels that contain *only* count. *burnt* has the labels so far.
    """

    def __init__(self, length: int, note: Path, only: str = "") -> None:
        self.burnt: list[str] = []
        self._length = length
        self._note = note
        self._only = only
        self._silent = False

    def burn(self, label: str, last: Callable[[], object] = lambda: None) -> None:
        """Count a point. If it is the one to die at, call *last* first."""
        if self._silent or self._only not in label:
            return
        if len(self.burnt) == self._length:
            self._silent = True
            self._note.write_text(label)
            last()
            os.kill(os.getpid(), signal.SIGKILL)
        self.burnt.append(label)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Count nothing inside the block."""
        self._silent = True
        try:
            yield
        finally:
            self._silent = False


def install(fuse: Fuse, folder: Path, s3_ports: frozenset[int]) -> None:
    """Burn *fuse* before every write of this process: below *folder*, to Redis, and to S3 servers at *s3_ports*."""
    inside = f"{folder}/"

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            changes = flags & (os.O_CREAT | os.O_TRUNC) and isinstance(path, str | os.PathLike)
            # A relative name is relative to an open directory of a store.
            if changes and (not os.path.isabs(path) or os.fspath(path).startswith(inside)):
                fuse.burn(f"create {path}")
        elif event in _EVENTS:
            named = next((str(one) for one in arguments if isinstance(one, str | os.PathLike)), "")
            if not os.path.isabs(named) or named.startswith(inside):
                fuse.burn(f"{event.removeprefix('os.')} {' '.join(map(str, arguments))}")

    # The compiled extension makes the same system calls in the same order, where nobody sees them.
    extension._extension = None
    sys.addaudithook(audit)
    for name in ("write", "fchmod"):
        setattr(os, name, _on_file(name, getattr(os, name), fuse, inside))
    _watch_redis(fuse)
    _watch_s3(fuse, s3_ports)


def _on_file(name: str, call: Callable[..., Any], fuse: Fuse, inside: str) -> Callable[..., Any]:
    def burning(descriptor: int, *arguments: Any) -> Any:
        path = ""
        with suppress(OSError):
            path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.startswith(inside):
            fuse.burn(f"{name} {path}")
        return call(descriptor, *arguments)

    return burning


def _watch_redis(fuse: Fuse) -> None:
    send = AbstractConnection.send_packed_command

    def sending(self: AbstractConnection, command: Any, check_health: bool = True) -> None:
        data = command if isinstance(command, bytes) else b"".join(command)
        changes = [
            words
            for words in commands(data)
            if words[0] not in _READS and not (words[0] == b"EVALSHA" and words[1] in _READING_SCRIPTS)
        ]
        if changes:
            fuse.burn("redis " + "; ".join(_shown(words) for words in changes))
        send(self, command, check_health)

    AbstractConnection.send_packed_command = sending  # type: ignore[method-assign]


def commands(data: bytes) -> Iterator[list[bytes]]:
    """Yield the commands of *data*, in Redis's protocol, each as its words."""
    at = 0
    while at < len(data):
        words, at = _number(data, at)
        found = []
        for _ in range(words):
            length, at = _number(data, at)
            found.append(data[at : at + length])
            at += length + 2
        found[0] = found[0].upper()
        yield found


def _number(data: bytes, at: int) -> tuple[int, int]:
    end = data.index(b"\r\n", at)
    return int(data[at + 1 : end]), end + 2


_NAMES: Final = {
    sha1(script.text.encode()).hexdigest().encode(): name.lower()
    for name, script in vars(scripts).items()
    if name.isupper()
}


def _shown(words: list[bytes]) -> str:
    if words[0] == b"EVALSHA":
        return _NAMES.get(words[1], words[1].decode())
    return b" ".join(words[:2]).decode(errors="replace")[:80]


def _watch_s3(fuse: Fuse, ports: frozenset[int]) -> None:
    from snapferry.stores.backends.s3.http import sockets

    def watch(kind: Any) -> None:
        sendall = kind.sendall

        def sending(self: Any, data: Any, flags: int = 0) -> None:
            found = _is_change(bytes(memoryview(data)[:2000]))
            if found is not None and self.getpeername()[1] in ports:
                label = b" ".join(found.groups()).decode()
                fuse.burn(label)
                half = memoryview(data)[: len(data) // 2]
                fuse.burn(f"half of {label}", lambda: sendall(self, half))
            sendall(self, data, flags)

        kind.sendall = sending

    for kind in {one for one in vars(sockets).values() if isinstance(one, type) and "sendall" in vars(one)}:
        watch(kind)
    watch(socket.socket)
