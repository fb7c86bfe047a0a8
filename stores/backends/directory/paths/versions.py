"""
Versions of what is under a key of a directory, and a lock for those who replace it.

*version*: tells a file from every other one that takes its place, and from itself with other bytes.
*lock*: processes that repair the same directory wait for each other, from the comparison of a version to the rename
that depends on it. Programs that only add files take no lock. A network file system may have no such lock: then the
comparison is immediately before the rename.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from snapferry.stores.errors import KeyChanged
from snapferry.stores.runtime.interruption import checkpoint

from .beneath import LIST

NOTHING: Final = ""
"""The version where no file is."""

# A repair holds the lock for a few system calls.
WAIT_S: Final = 30.0


def version_of(found: os.stat_result) -> str:
    """Return the version of the file with the status *found*."""
    return f"{found.st_dev:x}-{found.st_ino:x}-{found.st_mode:o}-{found.st_size}-{found.st_mtime_ns}"


def version_at(folder: int, name: str) -> str:
    """Return the version of what has *name* in the open directory *folder*, whatever it is. Raises OSError."""
    try:
        return version_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
    except FileNotFoundError:
        return NOTHING


def changed(label: str, key: str) -> KeyChanged:
    """Return the error for something else under *key* than what was found wrong there."""
    return KeyChanged(label, key, "another program has replaced it meanwhile; nothing was replaced")


@contextmanager
def locked(folder: int) -> Iterator[None]:
    """
    Keep other repairs of the open directory *folder* waiting during the block, if its file system can.

    Raises BlockingIOError where another one holds the lock for more than `WAIT_S`.
    """
    try:
        descriptor = os.open(".", LIST, dir_fd=folder)
    except OSError:
        # No permission to list it.
        yield
        return
    try:
        _lock(descriptor)
        yield
    finally:
        # A child that was forked meanwhile has the descriptor too, so closing it here does not end the lock.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    until = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
        except OSError:
            # The file system has no locks.
            return
        else:
            return
        checkpoint()
        time.sleep(0.01)
