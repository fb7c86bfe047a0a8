"""
Locks of ranges of a file among all processes that have it open, on any machine where its file system is mounted.

They are locks of the open file ("open file description locks", fcntl(2)), not of the process: two threads that open
the file exclude each other, too, and the kernel releases the locks of a process that dies.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from snapferry.stores.runtime.interruption import checkpoint

# The structure flock of 64-bit Linux: type, whence, start, length, process; 0 bytes mean the rest of the file.
_FLOCK: Final = struct.Struct("hhqqi4x")
_SET_LOCK: Final = getattr(fcntl, "F_OFD_SETLK", None)
_PAUSE_S: Final = 0.05
_TURN_PAUSE_S: Final = 0.001

TURN_S: float = 0.25
"""The longest time in seconds that a writer waits for its turn. Except on a slow disk, a part is written in less."""

PATIENCE_S: float = 120.0
"""The longest time in seconds that a process may hold a lock for which others wait: it writes and syncs one part."""

LOCKS: Final = _SET_LOCK is not None and sys.platform.startswith("linux") and sys.maxsize > 2**32
"""Whether this system has such locks."""


class LockHeld(Exception):
    """Another process holds a lock for too long: it was stopped, or its disk hangs."""


@contextmanager
def locked(descriptor: int, start: int = 0, length: int = 0) -> Iterator[None]:
    """
    Hold the lock of *length* bytes from *start* on, 0: of all that follow, inside the block.

    Raises OSError, and `LockHeld` if another process does not release it within `PATIENCE_S`.
    """
    until = time.monotonic() + PATIENCE_S
    while not _try(descriptor, fcntl.F_WRLCK, start, length):
        checkpoint()
        if time.monotonic() > until:
            raise LockHeld
        time.sleep(_PAUSE_S)
    try:
        yield
    finally:
        # A child that was forked meanwhile has the open file too, so closing it here does not end the lock.
        with suppress(OSError):
            _try(descriptor, fcntl.F_UNLCK, start, length)


class Turn:
    """
    Lets one thread at a time work, of all processes that lock the byte *at* of a file: several at once are no faster.

    A thread that waits longer than `TURN_S` goes on, so nothing may depend on it.
    """

    def __init__(self, at: int) -> None:
        self._at = at
        # Threads of one process wake each other up. They need not look again and again.
        self._lock = threading.Lock()

    @contextmanager
    def taken(self, descriptor: int) -> Iterator[None]:
        """Run the block when it is this thread's turn; *descriptor* is of the file. Raises nothing by itself."""
        until = time.monotonic() + TURN_S
        held = False
        mine = self._lock.acquire(timeout=TURN_S)
        try:
            with suppress(OSError):
                while not (held := _try(descriptor, fcntl.F_WRLCK, self._at, 1)) and time.monotonic() < until:
                    time.sleep(_TURN_PAUSE_S)
            yield
        finally:
            if held:
                with suppress(OSError):
                    _try(descriptor, fcntl.F_UNLCK, self._at, 1)
            if mine:
                self._lock.release()


def can_lock(descriptor: int) -> bool:
    """Return whether the file system of an open file has such locks. Raises other OSErrors."""
    if not LOCKS:
        return False
    try:
        _try(descriptor, fcntl.F_WRLCK, 0, 0)
        _try(descriptor, fcntl.F_UNLCK, 0, 0)
    except OSError as error:
        if error.errno in {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}:
            return False
        raise
    return True


def _try(descriptor: int, kind: int, start: int, length: int) -> bool:
    assert _SET_LOCK is not None
    wanted = _FLOCK.pack(kind, os.SEEK_SET, start, length, 0)
    try:
        fcntl.fcntl(descriptor, _SET_LOCK, wanted)
    except (BlockingIOError, PermissionError):
        return False
    return True
