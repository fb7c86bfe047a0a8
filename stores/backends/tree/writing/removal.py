"""
Remove a file, or a directory with all that is in it.

*beneath*: links are removed, never followed. *one file system*: a directory in which another one is mounted stays.
*bounded*: however deep directories are nested, few are open at once.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Final, TypeVar

from snapferry.stores.backends.directory.paths.beneath import FOLDER, LIST
from snapferry.stores.runtime.interruption import checkpoint

from .modes import unlock
from .temporary import temporary_name

# Directories below this depth are moved up first.
_DEEPEST: Final = 32

_T = TypeVar("_T")


def remove(folder: int, name: str) -> None:
    """Remove *name* from the open directory *folder*. Raises OSError; some of what is in it may be gone then."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        _retry_unlocked(folder, lambda: os.unlink(name, dir_fd=folder))
        return
    if found.st_dev != os.fstat(folder).st_dev:
        raise OSError(errno.EBUSY, "another file system is mounted here", name)
    _empty(folder, name, found.st_dev, folder, 0)
    _retry_unlocked(folder, lambda: os.rmdir(name, dir_fd=folder))


def _empty(above: int, name: str, device: int, top: int, depth: int) -> None:
    """Remove all that is in the directory *name* of *above*; move directories that are too deep to *top*."""
    at = _retry_unlocked(above, lambda: os.open(name, FOLDER, dir_fd=above))
    try:
        unlock(at)
        top = at if depth == 0 else top
        while names := _listed(at):
            for each in names:
                checkpoint()
                found = os.stat(each, dir_fd=at, follow_symlinks=False)
                if not stat.S_ISDIR(found.st_mode):
                    os.unlink(each, dir_fd=at)
                    continue
                if found.st_dev != device:
                    raise OSError(errno.EBUSY, "another file system is mounted here", each)
                if depth >= _DEEPEST:
                    os.rename(each, temporary_name(), src_dir_fd=at, dst_dir_fd=top)
                    continue
                _empty(at, each, device, top, depth + 1)
                os.rmdir(each, dir_fd=at)
    finally:
        os.close(at)


def _listed(folder: int) -> list[str]:
    listed = os.open(".", LIST, dir_fd=folder)
    try:
        return os.listdir(listed)
    finally:
        os.close(listed)


def _retry_unlocked(folder: int, call: Callable[[], _T]) -> _T:
    """Return what *call* does; where it has no right to, give the owner the rights to *folder* and call it again."""
    try:
        return call()
    except PermissionError:
        if not unlock(folder):
            raise
    return call()
