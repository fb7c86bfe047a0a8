"""
A lock among all processes that change something in one directory of a store.

The file `LOCK_FILE` in that directory is locked (flock), not what is in it. The kernel releases the lock of a process
that dies. A network file system passes the lock on to its server, where it supports that.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from snapferry.stores.errors import StoreUnavailable
from snapferry.stores.runtime.interruption import checkpoint

from .store_directory import StoreDirectory

LOCK_FILE: Final = ".lock"

# Seconds to wait for a process that has the lock: it holds it for a few system calls.
PATIENCE_S: Final = 60.0
_PAUSE_S: Final = 0.005

_FLAGS: Final = os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
# File systems without locks, or whose lock server is missing.
_UNSUPPORTED: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF})


@contextmanager
def locked(directory: StoreDirectory, folder: str) -> Iterator[bool]:
    """
    Hold the lock of *folder*, which is made where it is missing, inside the block.

    Yields False where the file system cannot lock: then nothing is held. Raises `StoreUnavailable` if another process
    does not release the lock for `PATIENCE_S` seconds, and other `StoreError`s.
    """
    key = f"{folder}/{LOCK_FILE}"
    with directory.errors(key):
        root = directory.root(create=True)
        above, _ = root.make(folder)
        try:
            descriptor = _opened(above, root.file_mode)
        finally:
            os.close(above)
    try:
        with directory.errors(key):
            has_it = _taken(descriptor)
        if has_it is None:
            raise StoreUnavailable(
                directory.label, key, f"another process has had this lock for {PATIENCE_S:.0f} s; try again"
            )
        yield has_it
    finally:
        os.close(descriptor)


def _opened(folder: int, mode: int) -> int:
    try:
        return os.open(LOCK_FILE, os.O_RDWR | _FLAGS, mode, dir_fd=folder)
    except PermissionError:
        # Another user made it. A local file system locks what is open to read, too.
        return os.open(LOCK_FILE, os.O_RDONLY | _FLAGS & ~os.O_CREAT, dir_fd=folder)


def _taken(descriptor: int) -> bool | None:
    """Wait for the lock; return whether the file system gave it, None if another process keeps it."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EINTR):
                raise
        if time.monotonic() > give_up:
            return None
        checkpoint()
        time.sleep(_PAUSE_S)
