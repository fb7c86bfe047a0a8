"""Bytes out of a file, and into a temporary one until they get their name."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from ..base import Buffer, Reader, Upload
from ..errors import StoreError, StoreUnavailable
from ..hashing import CHUNK_BYTES
from .file_copy import clone
from .file_sync import begin_writing

if TYPE_CHECKING:
    from .file import FileBackend


# The disk begins with so many bytes of a file while the next ones are read and hashed.
BEGUN_BYTES: Final = 1024 * 1024


class FileReader:
    """Reads by system calls alone: a buffered file object costs more than all of them on a small object."""

    def __init__(self, backend: FileBackend, key: str, descriptor: int) -> None:
        self._backend = backend
        self._key = key
        self._descriptor = descriptor

    def read(self, size: int, /) -> bytes:
        """Return *size* bytes, fewer only at the end: network and user-space file systems may give less at once."""
        try:
            chunk = os.read(self._descriptor, size)
            if not chunk or len(chunk) == size:
                return chunk
            parts = [chunk]
            size -= len(chunk)
            while size and (more := os.read(self._descriptor, size)):
                parts.append(more)
                size -= len(more)
        except OSError as error:
            raise self._backend._translate(error, self._key) from error
        return b"".join(parts) if len(parts) > 1 else chunk

    def read_into(self, buffer: memoryview) -> int:
        """Fill *buffer* with the next bytes, or a part of it; return how many, 0 at the end."""
        try:
            return os.readv(self._descriptor, [buffer])
        except OSError as error:
            raise self._backend._translate(error, self._key) from error

    def clone_to(self, descriptor: int) -> bool:
        """As `file_copy.clone`."""
        return clone(self._descriptor, descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


class FileUpload(Upload):
    """A temporary file. *closed* says that its descriptor is, which need not wait for the commit."""

    def __init__(self, backend: FileBackend, key: str) -> None:
        self._backend = backend
        self._key = key
        try:
            self._descriptor, self._temporary = backend._create(key)
        except OSError as error:
            raise backend._translate(error, key) from error
        self._ended = self._closed = False
        self._written = self._begun = 0

    def write(self, chunk: Buffer) -> None:
        try:
            _write_all(self._descriptor, chunk)
        except OSError as error:
            raise self._backend._translate(error, self._key) from error
        self._written += len(chunk)
        if self._written - self._begun >= BEGUN_BYTES:
            self._begin_writing()

    def _begin_writing(self) -> None:
        begin_writing(self._descriptor, self._begun, self._written - self._begun)
        self._begun = self._written

    def take(self, reader: Reader, show: Callable[[Buffer], None]) -> bool:
        if not isinstance(reader, FileReader):
            return False
        try:
            cloned = reader.clone_to(self._descriptor)
        except OSError as error:
            raise self._backend._translate(error, self._key) from error
        if cloned:
            # What is shown is what will be visible, whatever becomes of the source.
            reader = FileReader(self._backend, self._key, self._descriptor)
        buffers = self._backend._buffers
        try:
            buffer = buffers.pop()
        except IndexError:
            buffer = memoryview(bytearray(CHUNK_BYTES))
        try:
            while length := reader.read_into(buffer):
                piece = buffer[:length]
                show(piece)
                if not cloned:
                    self.write(piece)
            if self._written > self._begun:
                self._begin_writing()
        finally:
            buffers.append(buffer)
        return True

    def close(self) -> None:
        """Let go of the descriptor: nothing more is written."""
        if not self._closed:
            self._closed = True
            try:
                os.close(self._descriptor)
            except OSError as error:
                raise self._backend._translate(error, self._key) from error

    def commit(self) -> None:
        try:
            if self._closed:
                self._backend._sync(self._temporary)
            else:
                os.fsync(self._descriptor)
        except OSError as error:
            raise self._backend._translate(error, self._key) from error
        self.show()

    def show(self) -> None:
        """Give what was written its name. Its bytes must be on disk."""
        try:
            self._backend._rename(self._temporary, self._key)
        except FileNotFoundError as error:
            raise StoreUnavailable(
                self._backend.label, self._key, "its temporary file is gone; something removed it"
            ) from error
        except OSError as error:
            raise self._backend._translate(error, self._key) from error
        self._ended = True
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)

    def abort(self) -> None:
        if not self._ended:
            self._ended = True
            with suppress(StoreError):
                self.close()
            self._backend._discard(self._temporary)


def _write_all(descriptor: int, data: Buffer) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
