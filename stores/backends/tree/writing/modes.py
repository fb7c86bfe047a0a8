"""Permissions of what is open, also of directories that are open by their path alone (O_PATH)."""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

_OWNERS: Final = stat.S_IRWXU


def set_mode(descriptor: int, mode: int) -> None:
    """Give what is open the permissions *mode*, with setuid, setgid and sticky, whatever the umask. Raises OSError."""
    try:
        os.fchmod(descriptor, mode)
    except OSError as error:
        if error.errno != errno.EBADF:
            raise
        os.chmod(f"/proc/self/fd/{descriptor}", mode)


def unlock(descriptor: int) -> bool:
    """
    Give the owner of an open directory or file all rights, if that is this process's user and lacks some.

    Returns whether it did. Raises OSError.
    """
    found = os.fstat(descriptor)
    if found.st_uid != os.geteuid() or found.st_mode & _OWNERS == _OWNERS:
        return False
    set_mode(descriptor, stat.S_IMODE(found.st_mode) | _OWNERS)
    return True
