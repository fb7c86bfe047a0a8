"""Bytes out of a file, and into a temporary file until it takes the name of its key."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from snapferry.stores.errors import StoreFault, StoreUnavailable
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.runtime.liveness import identity
from snapferry.stores.streams import Buffer, Reader, Upload, lent
from snapferry.stores.text.format import counted

from .clone import clone
from .paths.beneath import READ
from .paths.root import TEMPORARY, sweep
from .paths.versions import changed, locked, version_at
from .store_directory import StoreDirectory
from .sync import begin_writing

# The kernel is told to begin writing after this many bytes, while the next ones are read and hashed.
BEGUN_BYTES: Final = 1024 * 1024

_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_numbers = itertools.count()


def temporary_name() -> str:
    """Return a name that no other process uses, and that this one has not used."""
    return temporary_names(1)[0]


def temporary_names(count: int) -> list[str]:
    """Return *count* names that no other process uses, and that this one has not used."""
    mine = identity()
    return [f"{TEMPORARY}{mine}-{number}" for number in itertools.islice(_numbers, count)]


class FileReader:
    """Reads with system calls alone: for a small object, a buffered file object costs more than all of them."""

    def __init__(self, directory: StoreDirectory, key: str, descriptor: int, length: int) -> None:
        self._directory = directory
        self._key = key
        self._descriptor = descriptor
        self.length = self._left = length

    def read(self, size: int, /) -> bytes:
        """Return *size* bytes, fewer only at the end: network and user-space file systems may give less at once."""
        checkpoint()
        try:
            chunk = os.read(self._descriptor, size)
            self._came(len(chunk))
            if not chunk or len(chunk) == size:
                return chunk
            parts = [chunk]
            size -= len(chunk)
            while size and (more := os.read(self._descriptor, size)):
                self._came(len(more))
                parts.append(more)
                size -= len(more)
        except OSError as error:
            raise self._directory.read_error(error, self._key) from error
        return b"".join(parts) if len(parts) > 1 else chunk

    def read_into(self, buffer: memoryview) -> int:
        """Fill *buffer*, or a part of it, with the next bytes; return their number, 0 at the end."""
        checkpoint()
        try:
            length = os.readv(self._descriptor, [buffer])
        except OSError as error:
            raise self._directory.read_error(error, self._key) from error
        self._came(length)
        return length

    def _came(self, length: int) -> None:
        """Count *length* bytes more. Raises `StoreFault` for more bytes than the file had when it was opened."""
        self._left -= length
        if self._left < 0:
            raise StoreFault(
                self._directory.label,
                self._key,
                f"is longer than {counted(self.length, 'byte')}, its length when it was opened; a program writes to it,"
                " or it has no end",
            )

    def clone_to(self, descriptor: int) -> bool:
        """As `clone.clone`."""
        return clone(self._descriptor, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.length and not self._left:
            self._directory.last_read = self._key
        os.close(self._descriptor)


class FileUpload(Upload):
    """A temporary file in the open directory of its target."""

    def __init__(self, directory: StoreDirectory, key: str) -> None:
        self._directory = directory
        self._key = key
        folder, _, self._name = key.rpartition("/")
        self._temporary = temporary_name()
        # True once the descriptors of the folder and of the file are closed, or were never open.
        self._ended = self._closed = True
        self._written = self._begun = 0
        self._over: str | None = None
        try:
            root = directory.opened or directory.root(create=True)
            self._folder, new = root.make(folder)
            self._ended = False
            if not new:
                sweep(self._folder)
            self._descriptor = os.open(self._temporary, _CREATE, root.file_mode, dir_fd=self._folder)
            self._closed = False
        except OSError as error:
            self._end()
            raise directory.error(error, key) from error

    def hand_over(self) -> tuple[int, str, str] | None:
        """
        End this upload, so that the caller does what `show` does.

        Returns the directory, the temporary file there, and its new name. The caller renames it and closes the
        directory, or calls `take_back`. None where only `show` can do it.
        """
        if not self._closed or self._ended or self._over is not None:
            return None
        self._ended = True
        return self._folder, self._temporary, self._name

    def take_back(self) -> None:
        """Continue, after `hand_over`: the directory is open, and nothing was renamed."""
        self._ended = False

    def write(self, chunk: Buffer) -> None:
        length = len(chunk)
        try:
            written = os.write(self._descriptor, chunk)
            while written < length:
                written += os.write(self._descriptor, memoryview(chunk)[written:])
        except OSError as error:
            raise self._directory.error(error, self._key) from error
        self._written += length
        if self._written - self._begun >= BEGUN_BYTES:
            self._begin_writing()

    def _begin_writing(self) -> None:
        begin_writing(self._descriptor, self._begun, self._written - self._begun)
        self._begun = self._written

    def take(self, reader: Reader, show: Callable[[Buffer], None]) -> bool:
        cloned = False
        if isinstance(reader, FileReader):
            try:
                cloned = reader.clone_to(self._descriptor)
            except OSError as error:
                raise self._directory.error(error, self._key) from error
            if cloned:
                # The bytes to verify are those of the clone, which will be visible, not those of the source.
                length = os.fstat(self._descriptor).st_size
                reader = FileReader(self._directory, self._key, self._descriptor, length)
        pieces = lent(reader)
        if pieces is None:
            return False
        for piece in pieces:
            show(piece)
            if not cloned:
                self.write(piece)
        if self._written > self._begun:
            self._begin_writing()
        return True

    def finish(self) -> None:
        if not self._closed:
            self._closed = True
            try:
                os.close(self._descriptor)
            except OSError as error:
                raise self._directory.error(error, self._key) from error

    def only_over(self, version: str) -> None:
        self._over = version

    def commit(self) -> None:
        try:
            if self._closed:
                self._sync()
            else:
                os.fsync(self._descriptor)
        except OSError as error:
            raise self._directory.error(error, self._key) from error
        self.show()

    def _sync(self) -> None:
        descriptor = os.open(self._temporary, READ, dir_fd=self._folder)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def show(self) -> None:
        """Rename the temporary file to its key. Its bytes must be on disk."""
        try:
            self._rename()
        except FileNotFoundError as error:
            raise StoreUnavailable(
                self._directory.label, self._key, "its temporary file is gone; something removed it"
            ) from error
        except OSError as error:
            raise self._directory.error(error, self._key) from error
        self._end()

    def _rename(self) -> None:
        if self._over is None:
            os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            return
        with locked(self._folder):
            if version_at(self._folder, self._name) != self._over:
                raise changed(self._directory.label, self._key)
            os.rename(self._temporary, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def abort(self) -> None:
        if not self._ended:
            with suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._folder)
            self._end()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            with suppress(OSError):
                os.close(self._descriptor)
        if not self._ended:
            self._ended = True
            os.close(self._folder)


class WrittenUpload(FileUpload):
    """An upload whose file *temporary* in the open *folder* has all of its bytes, and is closed."""

    def __init__(self, directory: StoreDirectory, key: str, folder: int, temporary: str) -> None:
        self._directory = directory
        self._key = key
        self._name = key[key.rfind("/") + 1 :]
        self._folder = folder
        self._temporary = temporary
        self._descriptor = -1
        self._closed = True
        self._ended = False
        self._over = None
