"""Wait for the disk: for a whole file system at once, and with writing begun early."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Final

# As in the manual page sync_file_range(2).
_SYNC_FILE_RANGE_WRITE: Final = 2


def sync_file_system(descriptor: int) -> None:
    """Make all writes to one file system durable, by one call for the thousands of directories of a batch."""
    syncfs = _of_linux("syncfs")
    if syncfs is None:
        os.sync()
    elif syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def begin_writing(descriptor: int, offset: int, length: int) -> None:
    """
    Tell the kernel to begin writing *length* bytes of a file from *offset* on, without waiting for it.

    Otherwise it begins with the sync, which then waits for all of them. This is a hint; the sync reports errors.
    """
    sync_file_range = _of_linux("sync_file_range")
    if sync_file_range is not None:
        sync_file_range(descriptor, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)


@cache
def _of_linux(name: str):  # type: ignore[no-untyped-def]
    """Return a system call of Linux that Python's os module does not offer; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)
