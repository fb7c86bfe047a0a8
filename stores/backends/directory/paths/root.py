"""
The open directory of a store, and the directories below it.

Everything is opened from a descriptor, as in `beneath`: no name is resolved twice, so what is checked is what is used.
The rules of this process (`rules`) may allow some links.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from snapferry.stores.address import MANIFESTS, OBJECTS
from snapferry.stores.backends.directory.sync import sync_file_system
from snapferry.stores.runtime.liveness import is_dead, is_of_this_machine, is_stopped

from .beneath import FOLDER, LIST, kind, open_beneath, open_if_there, status_beneath
from .links import BY_A_LINK, open_through_links
from .root_path import open_root
from .rules import DirectoryRules

# A temporary file is named .tmp-<identity of its writer>-<number>. It is swept when its writer is known to be dead,
# or when nothing was written to it for this long (processes of other machines cannot be checked).
TEMPORARY: Final = ".tmp-"
STALE_AFTER_S: Final = 24 * 3600.0

# The file of an object that several processes write in parts outlives each of them, and so does the note about it. They
# are swept when nothing was written to them for so long.
PARTS: Final = ".parts-"
NOTE_ENDING: Final = ".note"
STALE_NOTE_AFTER_S: Final = 7 * STALE_AFTER_S

# A writer on another machine that has lost its batch, and has not written for this long, is paused or gone.
PAUSED_AFTER_S: Final = 30.0


class Folder:
    """
    An open directory. It is closed with the last reference, so no thread uses the descriptor of another directory.

    Keep a reference for as long as the descriptor is used.
    """

    __slots__ = ("descriptor",)

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __del__(self) -> None:
        os.close(self.descriptor)


class Root:
    """
    The directory at *path*. Without *links*, no link on the way to it is followed.

    Safe to share between threads. All methods raise OSError. FileNotFoundError means that a name does not exist, never
    that a link cannot be resolved.
    """

    def __init__(self, path: str, rules: DirectoryRules, *, links: bool = True) -> None:
        self.path = path
        self.rules = rules
        self.file_mode = rules.file_mode
        self.folder_mode = rules.folder_mode
        self._folder = Folder(open_root(path, links=links))
        self.descriptor = self._folder.descriptor
        # The last first-level shard, and the directory above it, with a slash: writers come in the order of
        # their keys.
        self._shard = self._space = ("", self._folder)
        # Whether the last shard was new.
        self._made_shard = True
        # A directory in each further file system that was written to, by its device.
        self._devices: dict[int, Folder] = {}

    def open(self, path: str, flags: int) -> int:
        """Open *path* as `open_beneath` does."""
        try:
            return open_beneath(self.descriptor, path, flags)
        except OSError as error:
            if not self.rules.follow_into or error.errno not in BY_A_LINK:
                raise
        return open_through_links(self.descriptor, self.path, path, flags, self.rules.follow_into)

    def folder_if_there(self, path: str, flags: int = FOLDER) -> Folder | None:
        """Return the directory *path*, opened by *flags*; None where it is not there at all."""
        try:
            descriptor = open_if_there(self.descriptor, path, flags)
        except OSError as error:
            if not self.rules.follow_into or error.errno not in BY_A_LINK:
                raise
            with suppress(FileNotFoundError):
                return Folder(self.open(path, flags))
            return None
        return Folder(descriptor) if descriptor >= 0 else None

    def folder(self, path: str) -> Folder:
        """Return the directory *path*, which must be there."""
        return Folder(self.open(path, FOLDER))

    def status(self, key: str) -> os.stat_result | None:
        """Return the status of the file under *key*, whatever it is; None where there is nothing."""
        try:
            return status_beneath(self.descriptor, key)
        except OSError as error:
            return self.status_by_a_link(key, error)

    def status_by_a_link(self, key: str, error: OSError) -> os.stat_result | None:
        """Return `status` through links that are allowed, after it gave *error*. Else raise the error."""
        if self.rules.follow_into and error.errno in BY_A_LINK:
            folder, _, name = key.rpartition("/")
            try:
                above = self.folder(folder)
                return status_beneath(above.descriptor, name)
            except FileNotFoundError:
                return None
            except OSError as linked:
                error = linked
        raise OSError(error.errno, error.strerror, key) from error

    def make(self, path: str) -> tuple[int, bool]:
        """
        Return a descriptor of the directory *path*, and whether it is new.

        It and those above it are made where they are missing. The caller closes the descriptor.
        """
        is_kept = self._shard[0] or self._space[0]
        try:
            shard, folder = self._shard_of(path)
            return self._make_below(folder.descriptor, shard, path[len(shard) :])
        except FileNotFoundError:
            if not is_kept:
                raise
        # A directory that was kept open was removed. Begin at the root.
        self._shard = self._space = ("", self._folder)
        return self.make(path)

    def space_of(self, path: str) -> tuple[str, Folder]:
        """
        Return the first part of *path* with a slash at its end, and its directory, which is made where it is missing.

        A path of one part is below "", the root.
        """
        cut = path.find("/") + 1
        return self._make_space(path[:cut]) if cut else ("", self._folder)

    def _make_space(self, path: str) -> tuple[str, Folder]:
        kept = self._space
        if kept[0] != path:
            kept = self._space = path, Folder(self._make_below(self.descriptor, "", path[:-1])[0])
        return kept

    def _shard_of(self, path: str) -> tuple[str, Folder]:
        """
        Return the first-level shard that *path* is below, with a slash at its end, and its directory, which is made.

        A path without a shard is below "", the root.
        """
        kept = self._shard
        if kept[0] and path.startswith(kept[0]):
            return kept
        cut = path.find("/", path.find("/") + 1) + 1
        return self._make_shard(path[:cut]) if cut else ("", self._folder)

    def _make_shard(self, path: str) -> tuple[str, Folder]:
        space, name, _ = path.split("/")
        above = self._make_space(f"{space}/")
        # Shards that many batches write to, as those of a push, nearly always exist after a while.
        descriptor = -1 if self._made_shard else _opened(above[1].descriptor, name)
        self._made_shard = descriptor < 0
        if descriptor < 0:
            descriptor, self._made_shard = self._make_below(above[1].descriptor, f"{space}/", name)
        made = self._shard = path, Folder(descriptor)
        if not self._made_shard:
            # A new directory is in the same file system as the one above it.
            self._note_device(made[1])
        return made

    def _make_below(self, above: int, path: str, rest: str) -> tuple[int, bool]:
        """
        Make *rest* in the open directory *above*, which is *path*: "", or with a slash at its end.

        Each directory is made first and opened then: most are new.
        """
        at, new = above, False
        try:
            for name in rest.split("/"):
                try:
                    os.mkdir(name, self.folder_mode, dir_fd=at)
                    new = True
                except FileExistsError:
                    new = False
                try:
                    made = os.open(name, FOLDER, dir_fd=at)
                except OSError as error:
                    made = self._open_link(path + name, error)
                if at != above:
                    os.close(at)
                at = made
                path = f"{path}{name}/"
        except BaseException:
            if at != above:
                os.close(at)
            raise
        return at, new

    def _open_link(self, path: str, error: OSError) -> int:
        """Open the directory *path* through links that are allowed, after it gave *error*. Else raise *error*."""
        if not self.rules.follow_into or error.errno not in BY_A_LINK:
            raise error
        linked = self.folder(path)
        self._note_device(linked)
        return os.dup(linked.descriptor)

    def _note_device(self, folder: Folder) -> None:
        device = os.fstat(folder.descriptor).st_dev
        if device not in self._devices:
            self._devices[device] = Folder(os.open(".", LIST, dir_fd=folder.descriptor))

    def flush(self) -> None:
        """Make all writes durable, in the file system of the root and in those that are reached from it."""
        synced = set()
        for folder in [self._folder, *self._spaces(), *self._devices.values(), *self._allowed()]:
            device = os.fstat(folder.descriptor).st_dev
            if device not in synced:
                synced.add(device)
                sync_file_system(folder.descriptor)

    def _spaces(self) -> list[Folder]:
        found = []
        for space in (OBJECTS, MANIFESTS):
            with suppress(OSError):
                folder = self.folder_if_there(space[:-1], LIST)
                if folder is not None:
                    found.append(folder)
        return found

    def _allowed(self) -> list[Folder]:
        found = []
        for path in self.rules.follow_into:
            with suppress(OSError):
                found.append(Folder(open_root(path, links=True)))
        return found

    def in_the_way(self, path: str, *, folder: bool = False) -> str:
        """
        Return a description of the part of *path* that has the wrong type, "" if there is none.

        All parts but the last must be directories, the last a regular file, or with *folder* a directory too.
        """
        at, where = self._folder, self.path.rstrip("/")
        parts = path.strip("/").split("/")
        for number, part in enumerate(parts, 1):
            where = f"{where}/{part}"
            last = number == len(parts)
            is_folder = folder or not last
            must_be = stat.S_ISDIR if is_folder else stat.S_ISREG
            try:
                mode = os.stat(part, dir_fd=at.descriptor, follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode) and self.rules.follow_into and not last:
                    at = self.folder("/".join(parts[:number]))
                    continue
                if must_be(mode) and not last:
                    at = Folder(open_beneath(at.descriptor, part, FOLDER))
            except OSError as error:
                if error.errno in BY_A_LINK:
                    return f"{where} is a symbolic link to a place that SNAPFERRY_FOLLOW_LINKS does not allow"
                return f"{where}: {error.strerror}"
            if not must_be(mode):
                advice = "; links below a store are not followed" if stat.S_ISLNK(mode) else ""
                return (
                    f"{where} is {kind(mode)}, not {'a directory' if is_folder else 'a regular file'}{advice}"
                )
        return ""


def _opened(above: int, name: str) -> int:
    """Return the directory *name* of *above*, opened; -1 where there is none, or something else."""
    try:
        return open_if_there(above, name, FOLDER)
    except OSError:
        return -1


def is_abandoned(writer: str, modified: float) -> bool:
    """Return whether *writer* of a temporary file, last written at *modified*, is gone."""
    return is_dead(writer) or time.time() - modified > STALE_AFTER_S


def is_paused(writer: str, modified: float) -> bool:
    """
    Return whether *writer* of a temporary file, last written at *modified*, is gone or paused.

    For files of a writer whose work another one has taken over. If it goes on all the same, it finds that its file is
    gone, and writes it again if it still has to.
    """
    if is_of_this_machine(writer):
        return is_dead(writer) or is_stopped(writer)
    return time.time() - modified > PAUSED_AFTER_S


def sweep(folder: int, over: Callable[[str, float], bool] = is_abandoned) -> None:
    """
    Remove temporary files in the open directory *folder* for whose writer and time of writing *over* returns true.

    A directory holds few files, because the layout spreads them. A file that cannot be removed stays, and so does
    anything that is not a regular file.
    """
    with suppress(OSError):
        listed = Folder(os.open(".", LIST, dir_fd=folder))
        for name in os.listdir(listed.descriptor):
            if name.startswith((TEMPORARY, PARTS)):
                with suppress(OSError):
                    found = os.stat(name, dir_fd=listed.descriptor, follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and _is_over(name, found.st_mtime, over):
                        os.unlink(name, dir_fd=listed.descriptor)


def _is_over(name: str, modified: float, over: Callable[[str, float], bool]) -> bool:
    if name.startswith(TEMPORARY):
        return over(name.removeprefix(TEMPORARY).rpartition("-")[0], modified)
    return time.time() - modified > (STALE_NOTE_AFTER_S if name.endswith(NOTE_ENDING) else STALE_AFTER_S)
