"""Whether the files of one directory are there, by the compiled extension if there is one. Their bytes are not read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence

from snapferry.stores.backends.directory.native.extension import MOST_NAMES, extension
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.runtime.interruption import checkpoint

from .folders import TreeFolders
from .modes import unlock


def not_as_listed(
    folders: TreeFolders, path: str, names: Sequence[str], modes: Sequence[int]
) -> Iterator[int]:
    """
    Yield positions in *names*, in the directory *path*, of what is not a file or has another mode than in *modes*.

    A directory that is not there has none of them. Raises `StoreError`.
    """
    folder = folders.find(path)
    if folder is None:
        yield from range(len(names))
        return
    compiled = extension()
    for first in range(0, len(names), MOST_NAMES):
        checkpoint()
        some = range(first, min(first + MOST_NAMES, len(names)))
        if compiled is None:
            unknown: Sequence[int] = some
        else:
            found = compiled.check_many(folder.descriptor, names[first : some.stop], modes[first : some.stop])
            if found.count(compiled.AS_LISTED) == len(some):
                continue
            unknown = [at for at, each in zip(some, found, strict=True) if each == compiled.UNKNOWN]
            yield from (at for at, each in zip(some, found, strict=True) if each == compiled.OTHERWISE)
        yield from (at for at in unknown if not _is_as_listed(folders, folder, path, names[at], modes[at]))


def _is_as_listed(folders: TreeFolders, folder: Folder, path: str, name: str, mode: int) -> bool:
    try:
        try:
            found = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        except PermissionError:
            if not unlock(folder.descriptor):
                raise
            found = os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
    except FileNotFoundError:
        return False
    except OSError as error:
        folders.fail(error, f"{path}/{name}" if path else name)
    return stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == mode
