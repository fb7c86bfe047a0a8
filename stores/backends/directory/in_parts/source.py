"""
Read ranges of one version of a file.

The version has no device number: other machines have another one for the same network file system.
"""

from __future__ import annotations

import os
import stat

from snapferry.stores.backends.directory.store_directory import StoreDirectory
from snapferry.stores.errors import PartsGone
from snapferry.stores.features import PinnedObject
from snapferry.stores.runtime.interruption import checkpoint


def pin(directory: StoreDirectory, key: str) -> PinnedObject:
    """As `ReadsRanges.pin`."""
    descriptor, length = directory.open_file(key)
    try:
        return _OpenFile(directory, key, descriptor, _version(descriptor), length)
    except BaseException:
        os.close(descriptor)
        raise


def pinned(directory: StoreDirectory, key: str, version: str, length: int) -> PinnedObject:
    """As `ReadsRanges.pinned`."""
    found = pin(directory, key)
    if (found.version, found.length) != (version, length):
        found.close()
        raise _changed(directory, key)
    return found


def _version(descriptor: int) -> str:
    found = os.fstat(descriptor)
    return f"{found.st_ino:x}-{stat.S_IFMT(found.st_mode):o}-{found.st_size}-{found.st_mtime_ns}"


def _changed(directory: StoreDirectory, key: str) -> PartsGone:
    return PartsGone(directory.label, key, "the file was changed while it was read in parts")


class _OpenFile:
    def __init__(
        self, directory: StoreDirectory, key: str, descriptor: int, version: str, length: int
    ) -> None:
        self.version = version
        self.length = length
        self._directory = directory
        self._key = key
        self._descriptor = descriptor

    def read_into(self, start: int, buffer: memoryview) -> None:
        done = 0
        try:
            while done < len(buffer):
                checkpoint()
                got = os.preadv(self._descriptor, [buffer[done:]], start + done)
                if not got:
                    raise _changed(self._directory, self._key)
                done += got
            version = _version(self._descriptor)
        except OSError as error:
            raise self._directory.read_error(error, self._key) from error
        if version != self.version:
            raise _changed(self._directory, self._key)

    def close(self) -> None:
        os.close(self._descriptor)
