"""
The directories of a tree that is written.

*beneath*: a directory is opened below the root, and no link is followed. What is in the place of a directory that the
snapshot has is replaced if it is a link, and otherwise only where the caller deletes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import OrderedDict
from contextlib import suppress
from threading import Lock
from typing import Final, NoReturn

from snapferry.stores.backends.directory.errors import not_writable, translated
from snapferry.stores.backends.directory.paths.beneath import FOLDER, kind, open_if_there
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.backends.directory.paths.root_path import make_root, open_root, reach_root
from snapferry.stores.errors import AccessDenied, NotAnObject, StoreError, StoreFault, StoreNotFound

from .modes import unlock
from .removal import remove

# Directories that are kept open.
_KEPT: Final = 64

# Other processes may make and replace the same names at the same time.
_ATTEMPTS: Final = 20

# Until the permissions of the snapshot are set, at the end, nobody else can look into a new directory.
_NEW_MODE: Final = 0o700


class TreeFolders:
    """
    The directory *path*, an absolute path, and those below it. Safe to share between threads.

    Without *links*, no link on the way to it is followed. With *delete*, whatever is in the place of a directory or
    file of the snapshot is removed. With *look_only*, `find` changes no permissions. Methods raise `StoreError`.
    """

    def __init__(
        self, path: str, *, links: bool = True, delete: bool = False, look_only: bool = False
    ) -> None:
        self.path = path
        self.label = f"tree://{path}"
        self.delete = delete
        self._links = links
        self._look_only = look_only
        self._lock = Lock()
        self._root: Folder | None = None
        self._kept: OrderedDict[str, Folder] = OrderedDict()

    def make_root(self) -> None:
        """Make the root where it does not exist. May be called again."""
        try:
            if not os.path.isdir(self.path):
                make_root(self.path, _NEW_MODE, links=self._links)
        except (FileExistsError, NotADirectoryError) as error:
            raise StoreFault(self.label, "", "it, or a part of its path, is not a directory") from error
        except OSError as error:
            raise translated(error, self.label, "") from error
        self.root()

    def check(self) -> None:
        """Make sure that the root is a directory that can be written to, or can be made. Changes nothing."""
        at = self.path
        try:
            while not os.path.lexists(at):
                at = os.path.dirname(at)
            found = os.stat(at)
        except OSError as error:
            raise translated(error, self.label, "") from error
        if not stat.S_ISDIR(found.st_mode):
            raise StoreNotFound(self.label, "", f"{at} is not a directory")
        # The owner of a directory can give itself the right.
        if not os.access(at, os.W_OK | os.X_OK) and not (at == self.path and found.st_uid == os.geteuid()):
            raise AccessDenied(self.label, "", not_writable(at))

    def root(self) -> Folder:
        """Return the open root. Raises `StoreNotFound`."""
        with self._lock:
            if self._root is None:
                try:
                    self._root = self._open_root()
                except OSError as error:
                    if error.errno == errno.ENOENT:
                        raise StoreNotFound(self.label, "", "there is no such directory") from error
                    if error.errno == errno.ENOTDIR:
                        raise StoreNotFound(self.label, "", "is not a directory") from error
                    raise translated(error, self.label, "") from error
            return self._root

    def _open_root(self) -> Folder:
        try:
            return Folder(open_root(self.path, links=self._links))
        except PermissionError:
            # A snapshot may list it without the rights of its owner.
            if self._look_only:
                raise
            reached = Folder(reach_root(self.path, links=self._links))
            if not unlock(reached.descriptor):
                raise
        return Folder(open_root(self.path, links=self._links))

    def find(self, path: str) -> Folder | None:
        """Return the directory *path*, None where there is none; something else in its place is none."""
        kept = self._kept.get(path)
        if kept is not None:
            return kept
        try:
            descriptor = open_if_there(self.root().descriptor, path or ".", FOLDER)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                return None
            if error.errno == errno.EACCES and not self._look_only and self._unlock(path):
                return self.find(path)
            self.fail(error, path)
        return self._keep(path, descriptor) if descriptor >= 0 else None

    def kept(self, path: str) -> Folder | None:
        """Return the directory *path* if it is open already."""
        return self._kept.get(path)

    def folder(self, path: str) -> Folder:
        """Return the directory *path*. It and those above it are made where they are missing."""
        found = self.find(path)
        if found is not None:
            return found
        at = self.root()
        parts = path.split("/")
        for number, name in enumerate(parts, 1):
            where = "/".join(parts[:number])
            try:
                at = Folder(self._enter(at.descriptor, name, where))
            except OSError as error:
                self.fail(error, where)
        return self._keep(path, os.dup(at.descriptor))

    def clear_for_file(self, folder: int, name: str, path: str) -> None:
        """Remove a directory *name*, which is in the place of the file *path*: an empty one, or if the tree deletes."""
        try:
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                if not self.delete:
                    raise NotAnObject(
                        self.label,
                        f"./{path}",
                        "is a directory with files, and the snapshot has a file here; remove it, or use --delete",
                    ) from error
                self.forget(path)
                remove(folder, name)
        except OSError as error:
            self.fail(error, path)

    def forget(self, path: str) -> None:
        """Close the directory *path* and those below it, because they are removed."""
        with self._lock:
            for kept in [each for each in self._kept if each == path or each.startswith(f"{path}/")]:
                del self._kept[kept]

    def fail(self, error: OSError, path: str) -> NoReturn:
        """Raise *error*, which is about *path*, as a `StoreError`."""
        raise self.error(error, path) from error

    def error(self, error: OSError, path: str) -> StoreError:
        """Return *error*, which is about *path*, as a `StoreError`."""
        if error.errno == errno.EBUSY:
            # Waiting does not help.
            said = "a file system is mounted here, or below; unmount it, or give another PATH"
            return StoreFault(self.label, f"./{path}", said)
        found = translated(error, self.label, path)
        return type(found)(self.label, f"./{path}", found.detail)

    def _enter(self, at: int, name: str, where: str) -> int:
        """Make the directory *name* in *at* where it is missing; return it open."""
        for _ in range(_ATTEMPTS):
            try:
                with suppress(FileExistsError):
                    os.mkdir(name, _NEW_MODE, dir_fd=at)
                return os.open(name, FOLDER, dir_fd=at)
            except PermissionError:
                if not unlock(at):
                    raise
            except OSError as error:
                # ENOENT: another process replaces it.
                if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT):
                    raise
                self._clear_for_folder(at, name, where)
        raise OSError(errno.EAGAIN, "another process replaces this directory again and again", where)

    def _clear_for_folder(self, at: int, name: str, where: str) -> None:
        with suppress(FileNotFoundError, IsADirectoryError):
            mode = os.stat(name, dir_fd=at, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                return
            if not stat.S_ISLNK(mode) and not self.delete:
                raise NotAnObject(
                    self.label,
                    f"./{where}",
                    f"is {kind(mode)}, and the snapshot has a directory here; remove it, or use --delete",
                )
            os.unlink(name, dir_fd=at)

    def _unlock(self, path: str) -> bool:
        """Make the directories on the way to *path* accessible to their owner; return whether any was not."""
        at, changed = self.root().descriptor, unlock(self.root().descriptor)
        opened: list[Folder] = []
        with suppress(OSError):
            for name in path.split("/"):
                opened.append(Folder(os.open(name, FOLDER, dir_fd=at)))
                at = opened[-1].descriptor
                changed |= unlock(at)
        return changed

    def _keep(self, path: str, descriptor: int) -> Folder:
        folder = Folder(descriptor)
        with self._lock:
            self._kept[path] = folder
            if len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return folder
