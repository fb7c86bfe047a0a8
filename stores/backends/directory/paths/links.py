"""
Links in the place of shards, for operators who spread a store over several disks and say where it may go.

A link is followed in two steps: its target is resolved, and must lie in a directory that the operator named; then the
target is opened from there, beneath it, without any link. So a link that is changed meanwhile leads nowhere else.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from .beneath import FOLDER, LIST, open_beneath

# What may be a link: the directory of all objects or manifests, and a shard.
_may_be_a_link: Final = re.compile(r"\.objects|\.manifests|[0-9a-f]{3}").fullmatch

# What opening a link without following it gives, alone or as a directory.
BY_A_LINK: Final = (errno.ELOOP, errno.ENOTDIR)

# Trouble of the place that a link leads to; all else that goes wrong with a link is said to be the link's.
_TROUBLE: Final = (errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE)


def open_through_links(root: int, root_path: str, path: str, flags: int, allowed: Sequence[str]) -> int:
    """
    Open *path* below the open directory *root* as `open_beneath` does, following links into *allowed* directories.

    *root_path* is where *root* is. Raises OSError, with ELOOP for a link that leads elsewhere or nowhere:
    FileNotFoundError still means that a name is not there at all.
    """
    folders = path.split("/")
    # A directory may itself be a link; a file may not.
    name = "." if flags in (FOLDER, LIST) else folders.pop()
    at, where = root, root_path
    try:
        for folder in folders:
            where = f"{where}/{folder}"
            try:
                below = open_beneath(at, folder, FOLDER)
            except OSError as error:
                if error.errno not in BY_A_LINK or not _may_be_a_link(folder):
                    raise
                below, where = _open_target(where, allowed)
            if at != root:
                os.close(at)
            at = below
        return open_beneath(at, name, flags)
    finally:
        if at != root:
            os.close(at)


def _open_target(link: str, allowed: Sequence[str]) -> tuple[int, str]:
    """Open the directory that *link* leads to; return it and its real path."""
    try:
        real = os.path.realpath(link, strict=True)
        for place in _real(allowed):
            if real == place:
                return os.open(place, FOLDER), real
            if real.startswith(place.rstrip("/") + "/"):
                root = os.open(place, FOLDER)
                try:
                    return open_beneath(root, real[len(place.rstrip("/")) + 1 :], FOLDER), real
                finally:
                    os.close(root)
    except OSError as error:
        if error.errno in _TROUBLE:
            raise
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), link)


def _real(allowed: Sequence[str]) -> list[str]:
    """Return the real paths of those of *allowed* that are there."""
    found = []
    for one in allowed:
        with suppress(OSError):
            found.append(os.path.realpath(one, strict=True))
    return found
