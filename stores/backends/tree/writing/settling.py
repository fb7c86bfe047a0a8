"""
The end of a tree: every directory and file is there, what the snapshot does not have is removed, permissions are set.

A directory gets its permissions when the pass over the manifest leaves it: before that, it may have to be written to.
Memory grows with the number of names in one directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from snapferry.stores.backends.directory.paths.beneath import LIST
from snapferry.stores.backends.directory.sync import sync_file_system
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.runtime.interruption import checkpoint

from .folders import TreeFolders
from .modes import set_mode, unlock
from .removal import remove
from .temporary import is_temporary, sweep

Fold = Callable[[str], str]


def wrong_files(folders: TreeFolders, entries: Iterable[TreeEntry]) -> Iterator[TreeEntry]:
    """
    Make the directories among *entries* that are missing; yield the files that are missing or have other permissions.

    The bytes of files are not read. May be repeated.
    """
    for number, entry in enumerate(entries):
        if number % 1000 == 0:
            checkpoint()
        if entry.is_folder:
            if entry.path:
                folders.folder(entry.path)
            continue
        above, _, name = entry.path.rpartition("/")
        folder = folders.find(above)
        try:
            found = None if folder is None else os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        except PermissionError as error:
            if folder is None or not unlock(folder.descriptor):
                folders.fail(error, entry.path)
            yield entry
            continue
        except OSError as error:
            folders.fail(error, entry.path)
        if found is None or not stat.S_ISREG(found.st_mode) or stat.S_IMODE(found.st_mode) != entry.mode:
            yield entry


@dataclass
class _Level:
    """
    A directory on the way to the current entry.

    *extra*: folded name -> name of what the snapshot does not have. *temporary*: names of temporary files; a
    snapshot may list such a name too.
    """

    path: str
    temporary: set[str]
    mode: int | None = None
    extra: dict[str, str] = field(default_factory=dict)


def settle(folders: TreeFolders, entries: Iterable[TreeEntry], fold: Fold | None) -> int:
    """
    Set the permissions of all directories among *entries*; return how many files and directories were removed.

    All entries must be there. What the snapshot does not have is removed if the tree deletes; temporary files of
    writers that are gone or paused are removed in any case. *fold*: how the file system compares names. Raises
    `StoreError`. May be repeated.
    """
    pass_ = _Settling(folders, fold or str)
    for entry in entries:
        pass_.see(entry)
    return pass_.end()


class _Settling:
    def __init__(self, folders: TreeFolders, fold: Fold) -> None:
        self._folders = folders
        self._fold = fold
        self._removed = 0
        self._parts: list[str] = []
        # The same as a path.
        self._above = ""
        self._levels = [self._entered("")]

    def see(self, entry: TreeEntry) -> None:
        if not entry.path:
            self._levels[0].mode = entry.mode
            return
        above, _, name = entry.path.rpartition("/")
        if not entry.is_folder and above == self._above:
            # Most entries: a further file of one directory.
            self._note_file(name)
            return
        parts = entry.path.split("/")
        if not entry.is_folder:
            parts.pop()
        self._above = "/".join(parts)
        depth = 0
        while depth < min(len(parts), len(self._parts)) and parts[depth] == self._parts[depth]:
            depth += 1
        self._leave_to(depth)
        for part in parts[depth:]:
            self._levels[-1].extra.pop(self._fold(part), None)
            self._parts.append(part)
            self._levels.append(self._entered("/".join(self._parts)))
        if entry.is_folder:
            self._levels[-1].mode = entry.mode
        else:
            self._note_file(name)

    def _note_file(self, name: str) -> None:
        level = self._levels[-1]
        if level.extra:
            level.extra.pop(self._fold(name), None)
        if level.temporary:
            level.temporary.discard(name)

    def end(self) -> int:
        self._leave_to(0)
        self._leave(self._levels.pop())
        try:
            sync_file_system(self._folders.root().descriptor)
        except OSError as error:
            self._folders.fail(error, "")
        return self._removed

    def _leave_to(self, depth: int) -> None:
        while len(self._parts) > depth:
            self._parts.pop()
            self._leave(self._levels.pop())

    def _entered(self, path: str) -> _Level:
        checkpoint()
        folder = self._folders.folder(path)
        try:
            try:
                listed = os.open(".", LIST, dir_fd=folder.descriptor)
            except PermissionError:
                if not unlock(folder.descriptor):
                    raise
                listed = os.open(".", LIST, dir_fd=folder.descriptor)
            try:
                names = os.listdir(listed)
            finally:
                os.close(listed)
        except OSError as error:
            self._folders.fail(error, path)
        temporary = set(filter(is_temporary, names))
        if not self._folders.delete:
            return _Level(path, temporary)
        return _Level(path, temporary, extra={self._fold(name): name for name in names})

    def _leave(self, level: _Level) -> None:
        folder = self._folders.folder(level.path)
        sweep(folder.descriptor, level.temporary)
        for name in level.extra.values():
            where = f"{level.path}/{name}" if level.path else name
            if is_temporary(name):
                # Its writer may be alive on another machine.
                continue
            self._folders.forget(where)
            try:
                remove(folder.descriptor, name)
            except OSError as error:
                self._folders.fail(error, where)
            self._removed += 1
        if level.mode is None:
            return
        try:
            if stat.S_IMODE(os.fstat(folder.descriptor).st_mode) != level.mode:
                set_mode(folder.descriptor, level.mode)
        except OSError as error:
            self._folders.fail(error, level.path)
