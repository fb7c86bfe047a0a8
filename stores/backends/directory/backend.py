"""
A store in a directory.

*whole or not at all*: bytes go to a temporary file in the target's own directory, are synced, and take the target's
name by one rename. The name of a temporary file does not have the shape of a key, so what a dead writer leaves behind
is never taken for an object; the next writer in that directory removes it, as does a run that takes over its work.
*durable*: bytes are on disk before their name is visible; `flush` does the same for the names. So after a power cut a
visible object is a whole one. Uploads that are committed together share one wait for the disk.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from time import monotonic
from typing import Self

from snapferry.stores.backend import Backend, Capabilities, Listed
from snapferry.stores.diagnosis.diagnosable import Diagnosable
from snapferry.stores.diagnosis.findings import Finding
from snapferry.stores.errors import StoreError, StoreNotFound
from snapferry.stores.features import (
    FetchesMany,
    FiniteSpace,
    IsRight,
    KeepsUnfinished,
    ListsAround,
    Locking,
    Mounted,
    PartsShape,
    PartsUpload,
    PinnedObject,
    Quarantining,
    ReadsRanges,
    Seen,
    TakesParts,
    UploadsMany,
    innermost,
)
from snapferry.stores.streams import OpenReader, Upload

from . import diagnosis, in_parts
from .listing import Skip, list_around, list_keys
from .locking import locked
from .native.reading import read_many
from .native.slices import show_all, upload_all
from .native.writing import begin_many, show_many
from .paths.beneath import READ
from .paths.mounts import on_network
from .paths.root import is_abandoned, is_paused, sweep
from .paths.rules import DirectoryRules
from .quarantine import quarantine
from .sizes import ABSENT, lengths
from .store_directory import StoreDirectory
from .streams import FileReader, FileUpload

# Uploads that share one syncfs; each holds a descriptor until then. From `FEW` on it is cheaper than an fsync for each.
# Where it takes longer than `SLOW_FLUSH_S` seconds, as on a disk, more uploads share it. In memory they gain nothing.
COMMITS_TOGETHER = 64
MOST_COMMITS_TOGETHER = 256
SLOW_FLUSH_S = 0.002
FEW = 4

# Up to this many bytes are read at once into memory of their own; more go through a buffer that is used again.
FETCHED_BYTES = 64 * 1024


class DirectoryBackend(
    Backend,
    Diagnosable,
    FetchesMany,
    FiniteSpace,
    KeepsUnfinished,
    ListsAround,
    Locking,
    Mounted,
    Quarantining,
    ReadsRanges,
    TakesParts,
    UploadsMany,
):
    """
    Bytes in files below the directory *root*, an absolute path.

    *concurrency* is 1 by default: a local file system answers at the speed of the CPU, and Python threads would only
    contend. Raise it for network mounts. *create*, *links* and *rules* as for `StoreDirectory`.
    """

    def __init__(
        self,
        root: str,
        *,
        concurrency: int = 1,
        create: bool = True,
        links: bool = True,
        rules: DirectoryRules | None = None,
    ) -> None:
        self.directory = StoreDirectory(root, create=create, links=links, rules=rules)
        self.label = self.directory.label
        self.capabilities = Capabilities(
            concurrency=concurrency, pages_listings=False, commits_together=COMMITS_TOGETHER
        )

    @classmethod
    def on(cls, directory: StoreDirectory) -> Self:
        """Return a backend of *directory*, which may be open."""
        found = cls(directory.path)
        found.directory = directory
        return found

    @property
    def may_wait(self) -> bool:
        """As `Backend.may_wait`: not on a local file system."""
        return on_network(self.directory.path)

    def check(self, *, for_writing: bool) -> None:
        self.directory.check(for_writing=for_writing)

    def prepare(self) -> None:
        self.directory.make()

    def size(self, key: str) -> int | None:
        directory = self.directory
        try:
            found = directory.root().status(key)
        except StoreNotFound:
            if not directory.create:
                raise
            return None
        except OSError as error:
            raise directory.error(error, key) from error
        if found is None:
            return None
        if not stat.S_ISREG(found.st_mode):
            raise directory.not_a_file(key)
        return found.st_size

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """As for every backend. Many keys at once are asked for on all cores."""
        if self.capabilities.concurrency > 1:
            return super().sizes(keys)
        directory = self.directory
        try:
            found = lengths(directory.root(), keys)
        except StoreNotFound:
            if not directory.create:
                raise
            return [None] * len(keys)
        except OSError as error:
            raise directory.error(error, str(error.filename or "")) from error
        # For a key that is not a file, `size` raises the error.
        return [
            length if length >= 0 else None if length == ABSENT else self.size(key)
            for key, length in zip(keys, found, strict=True)
        ]

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        return FileReader(self.directory, key, *self.directory.open_file(key))

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        if size_hint > FETCHED_BYTES:
            return None
        directory = self.directory
        try:
            descriptor = (directory.opened or directory.root()).open(key, READ)
        except OSError as error:
            raise directory.not_opened(error, key) from error
        try:
            data = os.pread(descriptor, max(size_hint, 0) + 1, 0)
            if data:
                directory.last_read = key
            else:
                directory.length_of(key, descriptor)
            # Most of what is no regular file cannot be read at a position. From what can, a caller takes only bytes
            # that hash to the address; for others it calls `open`, which checks.
            return data
        except OSError as error:
            directory.length_of(key, descriptor)
            raise directory.read_error(error, key) from error
        finally:
            os.close(descriptor)

    def fetch_many(self, keys: Sequence[str], size_hints: Sequence[int]) -> list[bytes | None]:
        directory = self.directory
        root = (directory.opened or directory.root()).descriptor
        # As in `fetch`, what cannot be read at a position is no regular file; what gives no bytes may be one.
        found = [data or None for data in read_many(root, keys, size_hints)]
        if found and found[-1]:
            directory.last_read = keys[-1]
        return found

    def write(self, key: str, data: bytes) -> None:
        with self.upload(key, len(data)) as upload:
            upload.write(data)
            upload.commit()

    def upload(self, key: str, size_hint: int) -> Upload:
        return FileUpload(self.directory, key)

    def upload_many(self, keys: Sequence[str], data: Sequence[bytes]) -> list[Upload]:
        directory = self.directory
        return upload_all(
            keys,
            data,
            lambda some, of: begin_many(directory, some, of),
            lambda key, each: FileUpload(directory, key).filled(each),
        )

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        if len(uploads) < FEW:
            super().commit_all(uploads)
            return
        begun = monotonic()
        self.flush()
        if monotonic() - begun > SLOW_FLUSH_S:
            self.capabilities = replace(self.capabilities, commits_together=MOST_COMMITS_TOGETHER)
        show_all(map(_own, uploads), show_many)

    def abort_unfinished(self, key: str, size_hint: int, *, dead_only: bool = False) -> None:
        """As `KeepsUnfinished`. Temporary files do not tell their key: those of all keys in its directory count."""
        with suppress(OSError, StoreError):
            folder = self.directory.root().folder_if_there(key.rpartition("/")[0])
            if folder is not None:
                sweep(folder.descriptor, is_abandoned if dead_only else is_paused)

    def pin(self, key: str) -> PinnedObject | None:
        return in_parts.pin(self.directory, key)

    def pinned(self, key: str, version: str, length: int) -> PinnedObject:
        return in_parts.pinned(self.directory, key, version, length)

    def copies_whole(self, source: Backend, /) -> bool:
        return isinstance(innermost(source), DirectoryBackend)

    def begin_parts(self, key: str, owner: str, shape: PartsShape, /) -> PartsUpload | None:
        return in_parts.begin_parts(self.directory, key, owner, shape)

    def join_parts(self, key: str, owner: str, /) -> PartsUpload | None:
        return in_parts.join_parts(self.directory, key, owner)

    def drop_parts(self, key: str, owner: str, /) -> bool:
        return in_parts.drop_parts(self.directory, key, owner)

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        yield from list_keys(self.directory.root(), self.label, prefix, start_after)

    def keys_around(self, prefix: str, skip: Skip) -> Iterator[Listed]:
        return list_around(self.directory.root(), self.label, prefix, skip)

    def delete(self, key: str) -> None:
        folder, _, name = key.rpartition("/")
        with self.directory.errors(key), suppress(FileNotFoundError, StoreNotFound):
            above = self.directory.root().folder(folder)
            os.unlink(name, dir_fd=above.descriptor)

    def flush(self) -> None:
        if self.directory.opened is not None:
            with self.directory.errors(""):
                self.directory.opened.flush()

    def probe(self, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
        return diagnosis.probe_directory(self.directory, type(self).on, for_writing=for_writing)

    def probe_beside(self, source: Backend, key: str) -> Iterator[Finding]:
        if isinstance(source, DirectoryBackend):
            yield from diagnosis.probe_clone(self.directory, source.directory, key)

    def clock(self) -> tuple[float, float] | None:
        return None

    def quarantine(self, key: str, is_right: IsRight) -> Seen:
        return quarantine(self.directory, key, is_right)

    def lock(self, folder: str) -> AbstractContextManager[bool]:
        return locked(self.directory, folder)

    def holds(self, space: str) -> bool:
        try:
            found = os.stat(space, dir_fd=self.directory.root().descriptor)
        except (OSError, StoreError):
            return False
        return stat.S_ISDIR(found.st_mode)

    def free_bytes(self) -> int | None:
        with self.directory.errors(""):
            return diagnosis.free_bytes(self.directory.path)


def _own(upload: Upload) -> FileUpload:
    if not isinstance(upload, FileUpload):
        raise TypeError("uploads of another backend")
    return upload
