"""A file of a tree on its way: a temporary file beside it, which takes its name when it is whole and on disk."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from snapferry.stores.backends.directory.clone import clone
from snapferry.stores.backends.directory.paths.beneath import LOOK, READ
from snapferry.stores.backends.directory.paths.root import Folder
from snapferry.stores.backends.directory.streams import FileReader
from snapferry.stores.backends.directory.sync import begin_writing
from snapferry.stores.errors import StoreFault, StoreUnavailable
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.rate_limiter import RateLimitedReader
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.streams import Buffer, Reader, Upload, lent

from .folders import TreeFolders
from .modes import set_mode, unlock
from .temporary import temporary_name

# The kernel is told to begin writing after this many bytes, while the next ones are read and hashed.
_BEGUN_BYTES: Final = 1024 * 1024

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class TreeUpload(Upload):
    """
    The bytes of *file* on their way into *folders*, to the directory *above*.

    With *linked*, they must share the blocks of a local store.

    After `finish` no descriptor is open.
    """

    _linked = False
    _descriptor: int | None = None
    _ended = False
    _written = _begun = 0
    synced = False

    def __init__(self, folders: TreeFolders, file: TreeEntry, *, linked: bool) -> None:
        self._folders = folders
        self._file = file
        self._linked = linked
        self.above, _, self._name = file.path.rpartition("/")
        self._temporary = temporary_name()
        try:
            self._descriptor = self._create()
        except FileNotFoundError:
            # A directory that was kept open is removed.
            folders.forget(self.above)
            try:
                self._descriptor = self._create()
            except OSError as error:
                folders.fail(error, file.path)
        except OSError as error:
            folders.fail(error, file.path)

    def renaming(self) -> tuple[Folder, str, str] | None:
        """
        Return what `show` has to do: the directory, the temporary file there, and its new name.

        None where only `show` can do it. Call `shown` after it was done.
        """
        folder = self._folders.kept(self.above)
        if folder is None or self._ended or self._descriptor is not None:
            return None
        return folder, self._temporary, self._name

    def shown(self) -> None:
        """Note that another did what `show` does."""
        self._ended = True

    def _create(self) -> int:
        # The descriptor is open for as long as there is a reference to the folder.
        folder = self._folders.folder(self.above)
        try:
            return os.open(self._temporary, _CREATE, 0o600, dir_fd=folder.descriptor)
        except PermissionError:
            if not unlock(folder.descriptor):
                raise
        return os.open(self._temporary, _CREATE, 0o600, dir_fd=folder.descriptor)

    @property
    def path(self) -> str:
        """The path of the file."""
        return self._file.path

    def write(self, chunk: Buffer) -> None:
        assert self._descriptor is not None
        length = len(chunk)
        try:
            written = os.write(self._descriptor, chunk)
            while written < length:
                written += os.write(self._descriptor, memoryview(chunk)[written:])
        except OSError as error:
            self._folders.fail(error, self.path)
        self._written += length
        if self._written - self._begun >= _BEGUN_BYTES:
            begin_writing(self._descriptor, self._begun, self._written - self._begun)
            self._begun = self._written

    def take(self, reader: Reader, show: Callable[[Buffer], None]) -> bool:
        if isinstance(reader, RateLimitedReader) and isinstance(reader.inner, FileReader):
            return reader.let_take(self.take, show, CHUNK_BYTES)
        if isinstance(reader, FileReader):
            if self._clone(reader, show):
                return True
        elif self._linked:
            raise self._not_linked("the store is not a directory of this machine")
        pieces = lent(reader)
        if pieces is None:
            return False
        for piece in pieces:
            show(piece)
            self.write(piece)
        return True

    def _clone(self, reader: FileReader, show: Callable[[Buffer], None]) -> bool:
        assert self._descriptor is not None
        try:
            cloned = reader.clone_to(self._descriptor)
            if self._linked and not cloned:
                raise self._not_linked("its file system cannot clone files, or the tree is on another one")
            if cloned:
                buffer = memoryview(bytearray(CHUNK_BYTES))
                # The bytes to verify are those of the clone, which will be visible, not those of the source.
                while length := os.readv(self._descriptor, [buffer]):
                    show(buffer[:length])
        except OSError as error:
            self._folders.fail(error, self.path)
        return cloned

    def _not_linked(self, why: str) -> StoreFault:
        return StoreFault(
            self._folders.label,
            f"./{self.path}",
            f"cannot share its bytes with the store: {why}; leave out --linked to copy them",
        )

    def fill(self, other: TreeUpload) -> None:
        """Write the bytes of *other*, which was written to by this process and is not committed."""
        assert self._descriptor is not None
        other.finish()
        try:
            folder = self._folders.folder(other.above)
            source = _open_own(folder.descriptor, other._temporary)
            try:
                if not clone(source, self._descriptor):
                    while chunk := os.read(source, CHUNK_BYTES):
                        checkpoint()
                        self.write(chunk)
            finally:
                os.close(source)
        except OSError as error:
            self._folders.fail(error, self.path)

    def finish(self) -> None:
        descriptor = self._descriptor
        if descriptor is None:
            return
        try:
            # After the last write, which clears the bits of setuid and setgid.
            set_mode(descriptor, self._file.mode)
            if self._written >= _BEGUN_BYTES:
                os.fsync(descriptor)
                self.synced = True
        except OSError as error:
            self._folders.fail(error, self.path)
        finally:
            self._descriptor = None
            os.close(descriptor)

    def sync(self) -> None:
        """Bring the bytes to disk, before `finish`. After it, the file system must be synced instead."""
        if self._descriptor is not None:
            try:
                os.fsync(self._descriptor)
            except OSError as error:
                self._folders.fail(error, self.path)
            self.synced = True

    def commit(self) -> None:
        self.sync()
        self.finish()
        self.show()

    def show(self) -> None:
        """Rename the temporary file to its path; a link that is there is replaced. Its bytes must be on disk."""
        folder = self._folders.folder(self.above)
        at = folder.descriptor
        try:
            try:
                os.rename(self._temporary, self._name, src_dir_fd=at, dst_dir_fd=at)
            except OSError as error:
                if error.errno not in (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY):
                    raise
                self._folders.clear_for_file(at, self._name, self.path)
                os.rename(self._temporary, self._name, src_dir_fd=at, dst_dir_fd=at)
        except FileNotFoundError as error:
            raise StoreUnavailable(
                self._folders.label, f"./{self.path}", "its temporary file is gone; something removed it"
            ) from error
        except OSError as error:
            self._folders.fail(error, self.path)
        self._ended = True

    def abort(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
        with suppress(Exception):
            folder = self._folders.find(self.above)
            if folder is not None:
                os.unlink(self._temporary, dir_fd=folder.descriptor)


class WrittenUpload(TreeUpload):
    """An upload whose file *temporary* has all of its bytes and its permissions, and is closed."""

    def __init__(self, folders: TreeFolders, file: TreeEntry, above: str, name: str, temporary: str) -> None:
        self._folders = folders
        self._file = file
        self.above = above
        self._name = name
        self._temporary = temporary


def _open_own(folder: int, name: str) -> int:
    """Open the file *name*, which this process made, to read it, whatever its permissions."""
    try:
        return os.open(name, READ, dir_fd=folder)
    except PermissionError:
        looked = os.open(name, LOOK, dir_fd=folder)
        try:
            mode = stat.S_IMODE(os.fstat(looked).st_mode)
            unlock(looked)
            try:
                return os.open(name, READ, dir_fd=folder)
            finally:
                set_mode(looked, mode)
        finally:
            os.close(looked)
