"""
Open files and directories of a tree.

*beneath*: without links, everything is opened below the root by one system call that follows none.
*links*: where links are followed, the name of a file is resolved as every program does, and the tree may lead anywhere.
A process that may read only some places asks for each link whether its target is one of them, and opens what it asked
for: the resolved path, without following links.
*no wait*: a FIFO or a device is opened without waiting for its other end, and is not read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from typing import Final

from snapferry.stores.backends.directory.errors import translated
from snapferry.stores.backends.directory.paths.beneath import FOLDER, LIST, READ, kind, open_beneath
from snapferry.stores.backends.directory.paths.links import BY_A_LINK
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.backends.directory.paths.root_path import open_root
from snapferry.stores.errors import (
    FileChanged,
    KeyMissing,
    NotAllowed,
    NotAnObject,
    StoreError,
    StoreFault,
    StoreNotFound,
)

# A link that leads nowhere: its target does not exist, or it leads back to itself.
_NOWHERE: Final = (errno.ENOENT, errno.ELOOP)

Identity = tuple[int, int]
"""The device and the inode of a directory."""


def identity_of(path: str) -> Identity | None:
    """Return the identity of the directory *path*, links followed; None where there is none, or it cannot be seen."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


class TreePlace:
    """
    The directory at the absolute *path*, and what is below it.

    Without *links*, no link on the way to it is followed. *allows* tells whether a path may be read; None: every path.
    Paths are relative; "" is the directory itself. Safe to share between threads. Methods raise `StoreError`.
    """

    def __init__(self, path: str, *, links: bool = True, allows: Callable[[str], bool] | None = None) -> None:
        self.path = path
        self.label = f"tree://{path}"
        self.links = links
        self._allows = allows
        self._root: Folder | None = None

    def absolute(self, path: str) -> str:
        """Return the absolute path of *path*."""
        return f"{self.path.rstrip('/')}/{path}" if path else self.path

    def mode(self) -> int:
        """Return the permissions of the root; those of the link, if it is one."""
        try:
            return stat.S_IMODE(os.lstat(self.path).st_mode)
        except OSError as error:
            raise self._root_error(error) from error

    def open_folder(self, path: str, *, follow: bool) -> int:
        """Return a descriptor of the directory *path*, to list it."""
        try:
            return self._open(path, LIST, follow=follow)
        except OSError as error:
            raise self.error(error, path) from error

    def open_file(self, path: str, *, follow: bool) -> tuple[int, os.stat_result]:
        """
        Return a descriptor of the regular file *path*, and its status.

        Raises `KeyMissing`, and `NotAnObject` for anything else, which was not read.
        """
        try:
            descriptor = self._open(path, READ, follow=follow)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENODEV):
                raise NotAnObject(self.label, path, "is not a regular file") from error
            raise self.error(error, path) from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise NotAnObject(self.label, path, f"is {kind(found.st_mode)}, not a regular file")
        return descriptor, found

    def target_of(self, path: str) -> os.stat_result | None:
        """Return the status of what the link *path* leads to, None where it leads nowhere."""
        absolute = self.absolute(path)
        if self._allows is not None:
            self._check_allowed(os.path.realpath(absolute), path)
        try:
            return os.stat(absolute)
        except OSError as error:
            if error.errno in _NOWHERE:
                return None
            if error.errno == errno.ENOTDIR and os.path.islink(absolute):
                said = "is a link through a file, as if that were a directory; exclude it, or use --no-follow"
                raise StoreFault(self.label, path, said) from error
            raise self.error(error, path) from error

    def leads_into(self, path: str, folders: Collection[Identity]) -> bool:
        """Return whether the link *path* leads to one of *folders*, or to something below one."""
        at = os.path.realpath(self.absolute(path))
        while at != os.path.dirname(at):
            if identity_of(at) in folders:
                return True
            at = os.path.dirname(at)
        return False

    def error(self, error: OSError, path: str) -> StoreError:
        """Return *error*, which is about *path*, as a `StoreError`."""
        if error.errno == errno.ENOENT:
            return KeyMissing(self.label, path, "no such file or directory; it was removed meanwhile")
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            # The walk found something else here.
            said = "it, or a directory above it, was replaced by a link or a file meanwhile"
            return FileChanged(self.label, path, said)
        return translated(error, self.label, path)

    def root(self) -> int:
        """Return a descriptor of the root. Raises `StoreNotFound`."""
        if self._root is None:
            try:
                self._root = Folder(open_root(self.path, links=self.links))
            except OSError as error:
                raise self._root_error(error) from error
        return self._root.descriptor

    def _root_error(self, error: OSError) -> StoreError:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return StoreNotFound(self.label, "", os.strerror(error.errno).lower())
        return translated(error, self.label, "")

    def _open(self, path: str, flags: int, *, follow: bool) -> int:
        try:
            return open_beneath(self.root(), path or ".", flags)
        except OSError as error:
            if not follow or error.errno not in BY_A_LINK:
                raise
        absolute = self.absolute(path)
        if self._allows is None:
            return os.open(absolute, flags & ~os.O_NOFOLLOW)
        real = os.path.realpath(absolute)
        self._check_allowed(real, path)
        top = os.open("/", FOLDER)
        try:
            return open_beneath(top, real.strip("/") or ".", flags)
        finally:
            os.close(top)

    def _check_allowed(self, real: str, path: str) -> None:
        if self._allows is not None and not self._allows(real):
            raise NotAllowed(
                self.label,
                path,
                "is a link, or is below one, that leads to a place which this process may not read; exclude it, use"
                " --no-follow, or add the place as tree://PATH to `read` under [access] of snapferry.toml there",
            )
