"""
From one open file to another without moving bytes: a clone, where the file system shares extents.

A clone is the source file as it was at one moment. What a caller verifies must
be read from the copy: the source can change meanwhile.
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
    Let the new file *target* share all extents of *source*; say whether it does.

    Where it does not, for whatever reason, *target* is empty again: copying the
    bytes then meets the same trouble, and says of which side it is. *target* is
    read from its beginning afterwards. Raises OSError if it cannot be emptied.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        whole = False
    else:
        # A file system may share less than was asked for and call it done.
        whole = os.fstat(target).st_size == os.fstat(source).st_size
    if not whole and os.fstat(target).st_size:
        os.ftruncate(target, 0)
    return whole
