"""
Links in the place of shards, for operators who spread a store over several disks.

A link is followed in two steps. Its target is resolved and must be in a directory that the operator allows. Then the
target is opened beneath that directory without following links. So a link that changes meanwhile leads nowhere else.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from .beneath import FOLDER, LIST, open_beneath

# The names that may be links: the directory of all objects or manifests, and a shard.
_may_be_a_link: Final = re.compile(r"\.objects|\.manifests|[0-9a-f]{3}").fullmatch

# The errors of opening a link without following it, as a file or as a directory.
BY_A_LINK: Final = (errno.ELOOP, errno.ENOTDIR)

# Errors of the target of a link. All other errors are reported as an error of the link.
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
    """Open the target directory of *link*; return its descriptor and its real path."""
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
