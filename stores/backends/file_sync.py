"""The wait for the disk, for all of a file system at once."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache


def sync_file_system(descriptor: int) -> None:
    """Make all writes to one file system durable: one call where the directories of a batch are thousands."""
    syncfs = _syncfs()
    if syncfs is None:
        os.sync()
    elif syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _syncfs():  # type: ignore[no-untyped-def]
    """Return Linux's syncfs(2), which Python's os module does not offer; None elsewhere."""
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
