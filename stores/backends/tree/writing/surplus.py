"""
What a tree has and a snapshot does not: what a pull that deletes would remove. Nothing is changed.

Memory grows with the number of names in one directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from snapferry.stores.backends.directory.paths.beneath import LIST
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.errors import AccessDenied, StoreNotFound
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.runtime.interruption import checkpoint

from .folders import TreeFolders
from .temporary import is_temporary

PATHS_KEPT: Final = 20


@dataclass
class Surplus:
    """
    What would be removed, with the first `PATHS_KEPT` *paths*; those of directories end with ``/``.

    A directory counts once, with all that is in it. *in_the_way*: of those, what is in the place of a file or directory
    of the snapshot. *unlisted*: directories that cannot be looked into without changing their permissions; what is in
    them is not counted.
    """

    files: int = 0
    directories: int = 0
    in_the_way: int = 0
    unlisted: int = 0
    paths: list[str] = field(default_factory=list)

    def add(self, path: str, *, is_folder: bool, in_the_way: bool = False) -> None:
        """Count what is at *path*."""
        self.files += not is_folder
        self.directories += is_folder
        self.in_the_way += in_the_way
        if len(self.paths) < PATHS_KEPT:
            self.paths.append(f"./{path}/" if is_folder else f"./{path}")

    def document(self) -> dict[str, Any]:
        """Return it for an estimate, as docs/json.md describes it."""
        return {
            "files": self.files,
            "directories": self.directories,
            "in_the_way": self.in_the_way,
            "unlisted": self.unlisted,
            "paths": self.paths,
        }


def find_surplus(folders: TreeFolders, entries: Iterable[TreeEntry]) -> Surplus:
    """Return what *folders* have that is not among *entries*, which are in the order of a manifest."""
    pass_ = _Looking(folders)
    for entry in entries:
        pass_.see(entry)
    return pass_.end()


@dataclass
class _Level:
    """
    A directory on the way to the current entry, with the names that no entry has had so far.

    *is_there*: the tree has it, and it can be looked into.
    """

    path: str
    is_there: bool = False
    names: set[str] = field(default_factory=set)


class _Looking:
    def __init__(self, folders: TreeFolders) -> None:
        self._folders = folders
        self._found = Surplus()
        self._parts: list[str] = []
        self._levels = [self._entered("")]

    def see(self, entry: TreeEntry) -> None:
        if not entry.path:
            return
        parts = entry.path.split("/")
        name = "" if entry.is_folder else parts.pop()
        depth = 0
        while depth < min(len(parts), len(self._parts)) and parts[depth] == self._parts[depth]:
            depth += 1
        self._leave_to(depth)
        for part in parts[depth:]:
            is_there = self._take(part, is_folder=True)
            self._parts.append(part)
            path = "/".join(self._parts)
            self._levels.append(self._entered(path) if is_there else _Level(path))
        if not entry.is_folder:
            self._take(name, is_folder=False)

    def end(self) -> Surplus:
        self._leave_to(0)
        self._leave(self._levels.pop())
        return self._found

    def _leave_to(self, depth: int) -> None:
        while len(self._parts) > depth:
            self._parts.pop()
            self._leave(self._levels.pop())

    def _entered(self, path: str) -> _Level:
        checkpoint()
        try:
            folder = self._folders.find(path)
            if folder is None:
                return _Level(path)
            return _Level(path, True, set(self._names_in(folder, ".", path)))
        except StoreNotFound:
            return _Level(path)
        except AccessDenied:
            self._found.unlisted += 1
            return _Level(path)

    def _names_in(self, folder: Folder, name: str, path: str) -> list[str]:
        """Return the names in the directory *name* of *folder*. Raises `AccessDenied`, and other `StoreError`s."""
        try:
            listed = Folder(os.open(name, LIST, dir_fd=folder.descriptor))
            return os.listdir(listed.descriptor)
        except OSError as error:
            self._folders.fail(error, path)

    def _take(self, name: str, *, is_folder: bool) -> bool:
        """Take an entry out of the names of the current directory; return whether the tree has a directory there."""
        level = self._levels[-1]
        folder = self._folders.find(level.path) if level.is_there else None
        found = None if folder is None else self._status(folder, level, name)
        if folder is None or found is None:
            return False
        if name in level.names:
            level.names.discard(name)
        else:
            # The file system takes another name for this one.
            level.names -= {each for each in level.names if _same(self._status(folder, level, each), found)}
        there_is_folder = stat.S_ISDIR(found.st_mode)
        if is_folder:
            # A link in the place of a directory is replaced in any case.
            in_the_way = not there_is_folder and not stat.S_ISLNK(found.st_mode)
        else:
            in_the_way = there_is_folder and not self._is_empty(folder, level, name)
        if in_the_way:
            path = _below(level, name)
            self._found.add(path, is_folder=there_is_folder, in_the_way=True)
        return is_folder and there_is_folder

    def _is_empty(self, folder: Folder, level: _Level, name: str) -> bool:
        try:
            return not self._names_in(folder, name, _below(level, name))
        except AccessDenied:
            return False

    def _leave(self, level: _Level) -> None:
        folder = self._folders.find(level.path) if level.is_there else None
        if folder is None:
            return
        for name in sorted(level.names):
            # The writer of a temporary file may be alive on another machine, so it stays.
            found = None if is_temporary(name) else self._status(folder, level, name)
            if found is not None:
                self._found.add(_below(level, name), is_folder=stat.S_ISDIR(found.st_mode))

    def _status(self, folder: Folder, level: _Level, name: str) -> os.stat_result | None:
        """Return the status of *name*, not that of a link's target; None where it is not there."""
        try:
            return os.stat(name, dir_fd=folder.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as error:
            self._folders.fail(error, _below(level, name))


def _below(level: _Level, name: str) -> str:
    return f"{level.path}/{name}" if level.path else name


def _same(one: os.stat_result | None, other: os.stat_result) -> bool:
    return one is not None and (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
