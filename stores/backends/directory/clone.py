"""
Clone one open file into another, where the file system can share extents.

A clone is the source file as it was at one moment. A caller must verify the bytes of the copy, because the source can
change meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import sys

# ioctl_ficlonerange(2); the number is the same on every architecture that Linux runs on today but mips, powerpc,
# sparc and alpha, where it is no request of any file and is refused like on a file system that cannot clone.
_FICLONE = 0x40049409


def clone(source: int, target: int) -> bool:
    """
    Let the new file *target* share all extents of *source*; return whether it does.

    If not, for whatever reason, *target* is empty again: copying the bytes then fails with the same trouble, and tells
    on which side it is. Afterwards *target* is read from its beginning. Raises OSError if it cannot be emptied.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        whole = False
    else:
        # A file system may share less than was asked for and report success.
        whole = os.fstat(target).st_size == os.fstat(source).st_size
    if not whole and os.fstat(target).st_size:
        os.ftruncate(target, 0)
    return whole
