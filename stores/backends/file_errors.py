"""
What an operating system's errors mean: the one map from them to `stores.errors`.

What is not known becomes a fault, never "absent".
"""

from __future__ import annotations

import errno
import os

from ..errors import AccessDenied, StoreError, StoreFault, StoreFull, StoreUnavailable

_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT}
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


def translated(error: OSError, label: str, key: str) -> StoreError:
    """Return what *error* is of the store *label*, where it was about *key*."""
    said = os.strerror(error.errno) if error.errno is not None else str(error)
    if error.errno in _DENIED:
        return AccessDenied(label, key, said)
    if error.errno in _FULL:
        return StoreFull(label, key, said)
    if error.errno in _UNAVAILABLE:
        return StoreUnavailable(label, key, said)
    return StoreFault(label, key, said)
