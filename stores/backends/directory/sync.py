"""The wait for the disk: for all of a file system at once, and begun early."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Final

# As in the manual page sync_file_range(2).
_SYNC_FILE_RANGE_WRITE: Final = 2


def sync_file_system(descriptor: int) -> None:
    """Make all writes to one file system durable: one call where the directories of a batch are thousands."""
    syncfs = _of_linux("syncfs")
    if syncfs is None:
        os.sync()
    elif syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def begin_writing(descriptor: int, offset: int, length: int) -> None:
    """
    Have the kernel begin to write *length* bytes of a file from *offset* on, and do not wait for it.

    Else it begins when a sync asks for all of them, and then there is nothing to do but to wait. It is a hint: what
    goes wrong is said by the sync.
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
