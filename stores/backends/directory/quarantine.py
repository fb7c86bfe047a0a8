"""
Quarantine in a directory: the wrong file gets a second name, or another name where it can have no second one.

With a second name (a hard link), the key is never without a file: the new file replaces it by one rename. Whatever is
no regular file is renamed, and so is a file that cannot be linked. Then nothing is under the key for a moment.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Final

from snapferry.stores.address import Key, quarantine_key

from .paths.root import Folder, Root
from .store_directory import StoreDirectory

# The beginning of a name in the directory of the key itself. Used where the shard is on another disk.
BESIDE: Final = ".quarantine-"


def quarantine(directory: StoreDirectory, key: str) -> str:
    """As `Quarantining.quarantine`. Raises `StoreError`."""
    root = directory.root()
    folder, _, name = key.rpartition("/")
    with directory.errors(key):
        try:
            above = root.folder(folder)
            found = os.stat(name, dir_fd=above.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return ""
    if stat.S_ISREG(found.st_mode) and not found.st_size:
        return ""
    # The same file has the same name in quarantine, so a repeated call keeps it once.
    mark = f"{int(found.st_mtime)}-{found.st_ino:x}"
    place = quarantine_key(key, mark)
    with directory.errors(place):
        try:
            _move(root, above, name, place, found)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            place = Key(f"{folder}/{BESIDE}{name}.{mark}")
            _link_or_rename(above.descriptor, name, above.descriptor, place.rpartition("/")[2], found)
        root.flush()
    return place


def _move(root: Root, above: Folder, name: str, place: str, found: os.stat_result) -> None:
    folder, _, new_name = place.rpartition("/")
    descriptor, _ = root.make(folder)
    try:
        _link_or_rename(above.descriptor, name, descriptor, new_name, found)
    finally:
        os.close(descriptor)


def _link_or_rename(above: int, name: str, to: int, new_name: str, found: os.stat_result) -> None:
    if stat.S_ISREG(found.st_mode):
        with suppress(OSError):
            os.link(name, new_name, src_dir_fd=above, dst_dir_fd=to, follow_symlinks=False)
            return
        with suppress(FileNotFoundError):
            kept = os.stat(new_name, dir_fd=to, follow_symlinks=False)
            if (kept.st_dev, kept.st_ino) == (found.st_dev, found.st_ino):
                return
    os.rename(name, new_name, src_dir_fd=above, dst_dir_fd=to)
