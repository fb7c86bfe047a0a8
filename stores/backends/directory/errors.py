"""
Translate errors of the operating system to `snapferry.stores.errors`.

An unknown error becomes a `StoreFault`, never "absent".
"""

from __future__ import annotations

import errno
import os
import stat

from snapferry.stores.errors import (
    AccessDenied,
    NotAnObject,
    StoreError,
    StoreFault,
    StoreFull,
    StoreUnavailable,
)

from .paths.root import Root

# Something else is in the place of a file or directory.
_IN_THE_WAY = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EXDEV, errno.ENXIO, errno.ENODEV}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}
UNREADABLE = {getattr(errno, name, errno.EIO) for name in ("EIO", "ENODATA", "EILSEQ", "EBADMSG", "EUCLEAN")}
"""What Linux reports where a disk cannot read a block, or a file system finds its checksum wrong."""
_UNAVAILABLE = {
    errno.EIO,
    errno.EINTR,
    errno.EAGAIN,
    errno.EBUSY,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.EHOSTDOWN,
    errno.EHOSTUNREACH,
    errno.ENOTCONN,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}


def translated(
    error: OSError, label: str, key: str, root: Root | None = None, *, folder: bool = False
) -> StoreError:
    """
    Return the `StoreError` for *error* of the store *label*, about *key*, a *folder* or a file below *root*.

    Where something is in the way of *key*, and for every folder, the detail names the path.
    """
    said = os.strerror(error.errno) if error.errno is not None else str(error)
    if root is not None and error.errno in _IN_THE_WAY:
        kind = NotAnObject if not folder and _is_no_file(root, key) else StoreFault
        return kind(label, key, root.in_the_way(key, folder=folder) or said)
    if root is not None and folder:
        said = f"{root.path.rstrip('/')}/{key}: {said}"
    if error.errno in _DENIED:
        return AccessDenied(label, key, said)
    if error.errno in _FULL:
        return StoreFull(label, key, said)
    if error.errno in _UNAVAILABLE:
        return StoreUnavailable(label, key, said)
    return StoreFault(label, key, said)


def not_writable(path: str) -> str:
    """Return why nothing can be written to the directory at *path*, which refuses it."""
    try:
        read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        read_only = False
    return (
        f"{path} is on a file system that is mounted read-only"
        if read_only
        else f"no permission to write to {path}"
    )


def _is_no_file(root: Root, key: str) -> bool:
    """Return whether what has the name of *key* itself is no regular file. False where it cannot be reached."""
    try:
        found = root.status(key)
    except OSError:
        return False
    return found is not None and not stat.S_ISREG(found.st_mode)
