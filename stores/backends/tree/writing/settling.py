"""
The end of a tree: every directory and file is there, what the snapshot does not have is removed, permissions are set.

One pass over the manifest makes directories, checks files, and notes what else is to be done. Only if every file is as
listed, that is done. A directory gets its permissions after those below it: before that, it may have to be written to.
Memory grows with the number of names in one directory, and with what is to be done, up to `MOST_NOTED`. If there is
more, a second pass does it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from snapferry.stores.backends.directory.paths.beneath import LIST
from snapferry.stores.backends.directory.sync import sync_file_system
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.manifest.tree_lines import TreeColumns
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import Settled

from .checking import FileChecks
from .folders import TreeFolders
from .modes import set_mode, unlock
from .removal import remove
from .temporary import is_temporary, sweep, temporary_among

MOST_NOTED: Final = 100_000
"""Directories that are noted to be changed, and names to be removed from them."""

Fold = Callable[[str], str]
Lines = Callable[[], Iterable[TreeColumns]]
"""Returns the lines of the snapshot from its first one."""


def settle(folders: TreeFolders, lines: Lines, fold: Fold | None, most: int) -> Settled:
    """
    Make the missing directories among *lines*, and check the files: each is there, with its permissions.

    If one is not, the result has the first *most* of them, and nothing is removed. Otherwise set the permissions of all
    directories, and remove what the snapshot does not have if the tree deletes; temporary files of writers that are
    gone or paused are removed in any case. *fold*: how the file system compares names. The bytes of files are not read.
    Raises `StoreError`. May be repeated.
    """
    checked = _Check(folders, fold, most)
    if checked.all_of(lines()):
        if checked.noted is None:
            return Settled((), _Change(folders, fold).all_of(lines()))
        return Settled((), _end(folders, checked.noted))
    return Settled(tuple(checked.wrong))


@dataclass
class _Level:
    """
    A directory on the way to the current line.

    *extra*: folded name -> name of what the snapshot does not have. *temporary*: names of temporary files; a
    snapshot may list such a name too. *is_noted*: something is to be done in it or below it.
    """

    path: str
    temporary: set[str] = field(default_factory=set)
    mode: int | None = None
    extra: dict[str, str] = field(default_factory=dict)
    is_noted: bool = False


class _Pass:
    """A pass over all lines, with the directories on the way to the current one."""

    def __init__(self, folders: TreeFolders, fold: Fold | None) -> None:
        self._folders = folders
        self._fold = fold or str
        self._is_folded = fold is not None
        self._parts: list[str] = []
        # The same as a path.
        self._above = ""
        self._levels = [_entered(folders, "", self._fold)]

    def see(self, columns: TreeColumns) -> bool:
        """Take the next lines; return whether to go on."""
        places = [path.rpartition("/") for path in columns.paths]
        first = 0
        # The line of a directory has no name, and those of the files in it follow.
        for above, run in groupby([place[0] for place in places]):
            end = first + len(list(run))
            is_folder = columns.kinds[first] == "D"
            self._enter(above[2:], make=is_folder)
            level = self._levels[-1]
            if is_folder:
                level.mode = columns.modes[first]
                first += 1
            names = [place[2] for place in places[first:end]]
            self._note_files(level, names)
            if not self.files(level, names, columns, range(first, end)):
                return False
            first = end
        return True

    def end(self) -> None:
        """Take the end of the lines."""
        self._leave_to(0)
        self.leave(self._levels.pop())

    def files(self, level: _Level, names: Sequence[str], columns: TreeColumns, at: range) -> bool:
        """Do what the pass does with the files *names* of a directory, which are *at* these lines. Return as `see`."""
        raise NotImplementedError

    def leave(self, level: _Level) -> None:
        """Do what the pass does with a directory after all that is below it."""
        raise NotImplementedError

    def _enter(self, above: str, *, make: bool) -> None:
        if above == self._above:
            return
        self._above = above
        parts = above.split("/") if above else []
        depth = 0
        while depth < min(len(parts), len(self._parts)) and parts[depth] == self._parts[depth]:
            depth += 1
        self._leave_to(depth)
        for part in parts[depth:]:
            self._levels[-1].extra.pop(self._fold(part), None)
            self._parts.append(part)
            path = "/".join(self._parts)
            # Without its line, a directory that is not there has files that are not there.
            is_there = make or self._folders.find(path) is not None
            self._levels.append(_entered(self._folders, path, self._fold) if is_there else _Level(path))

    def _note_files(self, level: _Level, names: Sequence[str]) -> None:
        if level.extra:
            for name in map(self._fold, names) if self._is_folded else names:
                level.extra.pop(name, None)
        if level.temporary:
            level.temporary.difference_update(names)

    def _leave_to(self, depth: int) -> None:
        while len(self._parts) > depth:
            self._parts.pop()
            self.leave(self._levels.pop())


class _Check(_Pass):
    """
    The pass that makes directories and checks files.

    *wrong* are the first files that are not as listed. *noted* are the directories to change, each after those below
    it, None if there are too many.
    """

    def __init__(self, folders: TreeFolders, fold: Fold | None, most: int) -> None:
        super().__init__(folders, fold)
        self.wrong: list[TreeEntry] = []
        self.noted: list[_Level] | None = []
        self._most = most
        self._count = 0
        self._checks: FileChecks[tuple[TreeColumns, range]] = FileChecks(folders)

    def all_of(self, lines: Iterable[TreeColumns]) -> bool:
        """Check all lines, or up to the last file that is wanted; return whether all files are as listed."""
        with self._checks:
            if all(map(self.see, lines)) and self._take(last=True):
                self.end()
        return not self.wrong

    def files(self, level: _Level, names: Sequence[str], columns: TreeColumns, at: range) -> bool:
        if names:
            self._checks.ask((columns, at), level.path, names, columns.modes[at.start : at.stop])
        return self._take()

    def _take(self, *, last: bool = False) -> bool:
        """Note what is wrong by the checks that are done, or by all; return as `see`."""
        for (columns, at), positions in self._checks.answers(last=last):
            for number in positions:
                _, mode, address, size, path = (column[at[number]] for column in columns)
                self.wrong.append(TreeEntry(False, mode, address, size, path[2:]))  # type: ignore[arg-type, index]
                if len(self.wrong) == self._most:
                    return False
        return True

    def leave(self, level: _Level) -> None:
        if self.wrong or self.noted is None:
            return
        if not (level.is_noted or level.extra or level.temporary or self._has_other_mode(level)):
            return
        # To change what is below a directory may change its permissions.
        if self._levels:
            self._levels[-1].is_noted = True
        self._count += 1 + len(level.extra) + len(level.temporary)
        self.noted.append(level)
        if self._count > MOST_NOTED:
            self.noted = None

    def _has_other_mode(self, level: _Level) -> bool:
        if level.mode is None:
            return False
        folder = self._folders.folder(level.path)
        try:
            return stat.S_IMODE(os.fstat(folder.descriptor).st_mode) != level.mode
        except OSError as error:
            self._folders.fail(error, level.path)


class _Change(_Pass):
    """The pass that changes directories, after another has checked all files."""

    def __init__(self, folders: TreeFolders, fold: Fold | None) -> None:
        super().__init__(folders, fold)
        self._removed = 0

    def all_of(self, lines: Iterable[TreeColumns]) -> int:
        """Change all directories among *lines*; return how many files and directories were removed."""
        for columns in lines:
            self.see(columns)
        self.end()
        _sync(self._folders)
        return self._removed

    def files(self, level: _Level, names: Sequence[str], columns: TreeColumns, at: range) -> bool:
        return True

    def leave(self, level: _Level) -> None:
        self._removed += _change(self._folders, level)


def _end(folders: TreeFolders, noted: Iterable[_Level]) -> int:
    """Change the directories that were noted; return how many files and directories were removed."""
    removed = 0
    for level in noted:
        checkpoint()
        removed += _change(folders, level)
    _sync(folders)
    return removed


def _entered(folders: TreeFolders, path: str, fold: Fold) -> _Level:
    checkpoint()
    folder = folders.folder(path)
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
        folders.fail(error, path)
    extra = {fold(name): name for name in names} if folders.delete else {}
    return _Level(path, temporary_among(names), extra=extra)


def _change(folders: TreeFolders, level: _Level) -> int:
    """
    Remove what the snapshot does not have in a directory, and set its permissions.

    Returns how many files and directories were removed, without those in directories that were.
    """
    folder = folders.folder(level.path)
    removed = 0
    sweep(folder.descriptor, level.temporary)
    for name in level.extra.values():
        where = f"{level.path}/{name}" if level.path else name
        if is_temporary(name):
            # Its writer may be alive on another machine.
            continue
        folders.forget(where)
        try:
            remove(folder.descriptor, name)
        except OSError as error:
            folders.fail(error, where)
        removed += 1
    if level.mode is None:
        return removed
    try:
        if stat.S_IMODE(os.fstat(folder.descriptor).st_mode) != level.mode:
            set_mode(folder.descriptor, level.mode)
    except OSError as error:
        folders.fail(error, level.path)
    return removed


def _sync(folders: TreeFolders) -> None:
    try:
        sync_file_system(folders.root().descriptor)
    except OSError as error:
        folders.fail(error, "")
