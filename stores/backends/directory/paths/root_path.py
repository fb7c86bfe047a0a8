"""
The path from ``/`` to the root of a store.

Links on it are followed where no allow-list applies. Where one does, the path was resolved before it was compared with
the list, and has no links. A link on it was then created later or could not be resolved, and its target was not
compared with the list. So it is not followed.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Final

from .beneath import FOLDER, LIST, open_beneath

_ROOT: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_root(path: str, *, links: bool) -> int:
    """Return a descriptor of the directory at the absolute *path*; without *links* none is followed. Raises OSError."""
    return os.open(path, _ROOT) if links else _open_without_links(path, LIST)


def reach_root(path: str, *, links: bool) -> int:
    """As `open_root`, without the right to list the directory, which may not be needed for it."""
    return os.open(path, FOLDER & ~os.O_NOFOLLOW) if links else _open_without_links(path, FOLDER)


def _open_without_links(path: str, flags: int) -> int:
    top = os.open("/", FOLDER)
    try:
        return open_beneath(top, path.strip("/") or ".", flags)
    finally:
        os.close(top)


def make_root(path: str, mode: int, *, links: bool) -> None:
    """Make the directory *path* and what is missing above it, all with *mode*; *links* as above. Raises OSError."""
    if links:
        _make_directories(path, mode)
        return
    at = os.open("/", FOLDER)
    try:
        for part in path.strip("/").split("/"):
            try:
                below = open_beneath(at, part, FOLDER)
            except FileNotFoundError:
                # Another process may have just made it.
                with suppress(FileExistsError):
                    os.mkdir(part, mode, dir_fd=at)
                below = open_beneath(at, part, FOLDER)
            os.close(at)
            at = below
    finally:
        os.close(at)


def has_link(path: str) -> bool:
    """Return whether the absolute *path* or a part of it is a link now."""
    parts = path.strip("/").split("/")
    return any(os.path.islink("/" + "/".join(parts[:number])) for number in range(1, len(parts) + 1))


def _make_directories(path: str, mode: int) -> None:
    if not os.path.isdir(path):
        above = os.path.dirname(path)
        if above != path:
            _make_directories(above, mode)
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
