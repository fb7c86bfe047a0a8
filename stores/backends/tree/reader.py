"""
The bytes of a file of a tree.

*still*: the file must not change while it is read. Its status is compared before and after: identity, length, and the
times of the last change of its bytes and of its status.
"""

from __future__ import annotations

import os
import stat
from types import TracebackType
from typing import Self

from snapferry.stores.backends.directory.paths.beneath import READ, open_if_there
from snapferry.stores.errors import FileChanged
from snapferry.stores.runtime.interruption import checkpoint

from .place import TreePlace


class TreeReader:
    """Reads the file *path*, opened as *descriptor* with the status *begun*. Closes it at the end of the block."""

    def __init__(self, place: TreePlace, path: str, descriptor: int, begun: os.stat_result) -> None:
        self.length = begun.st_size
        self._place = place
        self._path = path
        self._descriptor = descriptor
        self._begun = begun
        self._came = 0

    def read(self, size: int, /) -> bytes:
        """
        Return *size* bytes, fewer only at the end: network and user-space file systems may give less at once.

        Raises `FileChanged` at the end of a file that changed since it was opened.
        """
        checkpoint()
        parts = []
        try:
            while size and (chunk := os.read(self._descriptor, size)):
                parts.append(chunk)
                size -= len(chunk)
        except OSError as error:
            raise self._place.error(error, self._path) from error
        self._came += sum(map(len, parts))
        if size or self._came > self.length:
            self._check_still()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_still(self) -> None:
        now = os.fstat(self._descriptor)
        if _identity(now) != _identity(self._begun) or self._came != self.length:
            raise FileChanged(self._place.label, self._path, "changed while it was read")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)


def read_still(root: int, path: str, most_bytes: int) -> bytes | None:
    """
    Return the bytes of the regular file *path* below the open directory *root*.

    None where a `TreeReader` must decide: the file cannot be opened without following a link, has more than
    *most_bytes*, or did not hold still.
    """
    try:
        descriptor = open_if_there(root, path, READ)
    except OSError:
        return None
    if descriptor < 0:
        return None
    try:
        begun = os.fstat(descriptor)
        if not stat.S_ISREG(begun.st_mode) or begun.st_size > most_bytes:
            return None
        data = os.pread(descriptor, begun.st_size + 1, 0)
        is_still = len(data) == begun.st_size and _identity(os.fstat(descriptor)) == _identity(begun)
        return data if is_still else None
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
