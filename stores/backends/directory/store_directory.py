"""
The directory of a store: making it, opening it, and what its errors mean.

Keys are looked up relative to an open handle of the directory, which the kernel resolves markedly faster than absolute
paths. So a directory that is replaced meanwhile is still written to. Open a store for a piece of work, and open it anew
for the next one.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from snapferry.stores.errors import (
    AccessDenied,
    KeyMissing,
    NotAnObject,
    StoreError,
    StoreFault,
    StoreNotFound,
    Unreadable,
)

from .errors import UNREADABLE, not_writable, translated
from .paths.beneath import READ
from .paths.root import Root
from .paths.root_path import has_link, make_root
from .paths.rules import DirectoryRules, directory_rules


class StoreDirectory:
    """
    The directory at *path*, an absolute path. Safe to share between threads.

    Without *create*, a directory that does not exist is an error for a writer too: where a mount is missing, nothing
    must be made in its place. Without *links*, no symbolic link on the way to it is followed. *rules* are those of this
    process unless others are given.
    """

    def __init__(
        self, path: str, *, create: bool = True, links: bool = True, rules: DirectoryRules | None = None
    ) -> None:
        self.label = f"file://{path}"
        self.path = path
        self.create = create
        self.links = links
        self.rules = rules or directory_rules()
        self.opened: Root | None = None
        """The open root, after `root` was called."""
        self.last_read = ""
        """A key whose file was read without an error; "" if there is none yet."""
        self._lock = threading.Lock()

    def at(self, path: str) -> StoreDirectory:
        """Return the directory at another *path*, with the same rules."""
        return StoreDirectory(path, links=self.links, rules=self.rules)

    def check(self, *, for_writing: bool) -> None:
        """As `Backend.check`."""
        with self.errors(""):
            try:
                mode = os.stat(self.path).st_mode
            except FileNotFoundError:
                if not for_writing or not self.create:
                    raise self._missing(for_writing) from None
                existing = os.path.dirname(self.path)
                while not os.path.lexists(existing):
                    existing = os.path.dirname(existing)
                mode = os.stat(existing).st_mode
            except NotADirectoryError:
                raise StoreNotFound(self.label, "", "a part of the path is not a directory") from None
            else:
                existing = self.path
        if not stat.S_ISDIR(mode):
            raise StoreNotFound(self.label, "", f"{existing} is not a directory")
        if not os.access(existing, os.X_OK | (os.W_OK if for_writing else os.R_OK)):
            why = not_writable(existing) if for_writing else f"no permission to read {existing}"
            raise AccessDenied(self.label, "", why)

    def root(self, *, create: bool = False) -> Root:
        """
        Return the open root. Only the first write creates it: reading must not make a store.

        Raises `StoreNotFound`.
        """
        if self.opened is None:
            with self._lock, self.errors(""):
                if self.opened is None:
                    if create and self.create:
                        self._make()
                    try:
                        self.opened = Root(self.path, self.rules, links=self.links)
                    except OSError as error:
                        self._check_links(error)
                        if isinstance(error, FileNotFoundError | NotADirectoryError):
                            raise self._missing(create) from None
                        raise
        return self.opened

    def make(self) -> None:
        """Make the directory where it does not exist. May be called again. Raises `StoreError`."""
        with self.errors(""):
            self._make()

    def _make(self) -> None:
        try:
            make_root(self.path, self.rules.folder_mode, links=self.links)
        except OSError as error:
            self._check_links(error)
            if isinstance(error, FileNotFoundError | FileExistsError | NotADirectoryError):
                said = f"the directory cannot be made: {error.strerror}"
                raise StoreFault(self.label, "", said) from error
            raise

    def _missing(self, for_writing: bool) -> StoreNotFound:
        with suppress(OSError):
            # The path of a file is a slip, and no mount that is missing.
            if not stat.S_ISDIR(os.stat(self.path).st_mode):
                return StoreNotFound(self.label, "", f"{self.path} is not a directory")
        hint = "; is it mounted here?" if for_writing or not self.create else ""
        return StoreNotFound(self.label, "", f"there is no such directory{hint}")

    def _check_links(self, error: OSError) -> None:
        """Raise `AccessDenied` if a link that may not be followed is why opening the root gave *error*."""
        if not self.links and has_link(self.path):
            said = "a part of its path is a symbolic link, maybe a new one, that the allow-list was not asked about"
            raise AccessDenied(
                self.label, "", f"{said}; give the path without links, see docs/security.md"
            ) from error

    def open_file(self, key: str) -> tuple[int, int]:
        """Return a descriptor of the regular file under *key*, to read, and its length. Raises as `Backend.open`."""
        try:
            descriptor = (self.opened or self.root()).open(key, READ)
        except OSError as error:
            raise self.not_opened(error, key) from error
        try:
            return descriptor, self.length_of(key, descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def length_of(self, key: str, descriptor: int) -> int:
        """Return the length of the file under *key*, open as *descriptor*. Raises `NotAnObject` if it is no file."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise self.not_a_file(key)
        return found.st_size

    @contextmanager
    def errors(self, key: str) -> Iterator[None]:
        """Translate an OSError inside the block, about *key*."""
        try:
            yield
        except OSError as error:
            raise self.error(error, key) from error

    def error(self, error: OSError, key: str) -> StoreError:
        """Return the `StoreError` for *error*, about *key*."""
        return translated(error, self.label, key, self.opened)

    def not_opened(self, error: OSError, key: str) -> StoreError:
        """Return the `StoreError` for *error*, where the file under *key* could not be opened to read."""
        if isinstance(error, FileNotFoundError):
            return KeyMissing(self.label, key, "nothing is filed here")
        return self.read_error(error, key)

    def read_error(self, error: OSError, key: str) -> StoreError:
        """
        Return the `StoreError` for *error*, where the file under *key* could not be read.

        `Unreadable` if the disk could not read it although the store answers: a network file system reports the same
        errors while its server is away.
        """
        if error.errno in UNREADABLE and self._answers(key):
            return Unreadable(self.label, key, f"the disk cannot read its bytes: {error.strerror}")
        return self.error(error, key)

    def _answers(self, but: str) -> bool:
        """Return whether the file system answers, and can read a file that was read before, other than *but*."""
        try:
            root = self.root()
            # A network file system asks its server.
            os.statvfs(root.descriptor)
            if self.last_read in ("", but):
                return True
            descriptor = root.open(self.last_read, READ)
            try:
                if hasattr(os, "posix_fadvise"):
                    # From the disk, not from memory.
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.pread(descriptor, 1, 0)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            return True
        except (OSError, StoreError):
            return False
        return True

    def not_a_file(self, key: str) -> NotAnObject:
        """Return the error for something under *key* that is not a regular file."""
        return NotAnObject(self.label, key, self.root().in_the_way(key) or "is not a regular file")
