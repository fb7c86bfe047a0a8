"""
Read a file of a tree once, for its digest and for its bytes.

*bounded*: all reads of a process together keep at most `MOST_KEPT_BYTES`. A file that does not fit is hashed alone, and
read a second time when it is sent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from blake3 import blake3

from snapferry.stores.address import Address
from snapferry.stores.backend import Backend
from snapferry.stores.errors import FileChanged
from snapferry.stores.features import FetchesMany
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.treehash import digests

LARGEST_KEPT_BYTES: Final = 32 * 1024 * 1024
"""A longer file is never kept."""

MOST_KEPT_BYTES: Final = 64 * 1024 * 1024

PAUSES_S: Final = (0.05, 0.5, 2.0)
"""Pauses in seconds before a file that changed while it was read is read again."""

# The longest sleep between two checkpoints.
_SLEEP_S: Final = 0.5

_lock = threading.Lock()
_kept_bytes = 0


def _ignore(_: int) -> None:
    pass


class FileRead(NamedTuple):
    """A file that was read: its address, its length in bytes, and its bytes, None where they were not kept."""

    address: Address
    length: int
    data: bytes | None = None

    def forget(self) -> None:
        """Make room for the bytes of other files. To be called once."""
        if self.data is not None:
            _release(self.length)


def read_file(
    tree: Backend, path: str, *, keep: bool = True, on_bytes: Callable[[int], object] = _ignore
) -> FileRead:
    """
    Read the file *path* of *tree*. With *keep*, its bytes are kept if there is room; then call `FileRead.forget`.

    *on_bytes* is called with the length of each piece that was read. A file that changes while it is read is read again
    a few times. Raises `FileChanged` if it does not hold still, and what *tree* raises.
    """
    for pause in PAUSES_S:
        try:
            return _read_once(tree, path, keep, on_bytes)
        except FileChanged:
            wait(pause)
    return _read_once(tree, path, keep, on_bytes)


def read_files(tree: Backend, paths: Sequence[str], sizes: Sequence[int]) -> list[FileRead | None]:
    """
    Read the short files *paths* of *tree*, as `read_file` does, in less time; *sizes* are about their lengths in bytes.

    None for each that must be read by itself, which also gives its error.
    """
    # The outermost backend alone: a limit wants to see each file.
    if not isinstance(tree, FetchesMany):
        return [None] * len(paths)
    fetched = tree.fetch_many(paths, sizes)
    if not _take(sum(len(data) for data in fetched if data is not None)):
        return [None] * len(paths)
    return [
        None if data is None or digest is None else FileRead(digest, len(data), data)
        for digest, data in zip(digests(fetched), fetched, strict=True)
    ]


def forget_all(reads: Iterable[FileRead]) -> None:
    """Make room for the bytes of other files, as `FileRead.forget` of each of *reads* does. To be called once."""
    _release(sum(read.length for read in reads if read.data is not None))


def wait(seconds: float) -> None:
    """Sleep, and stop when the owner of this work stops it."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        checkpoint()
        time.sleep(min(left, _SLEEP_S))


def _read_once(tree: Backend, path: str, keep: bool, on_bytes: Callable[[int], object]) -> FileRead:
    with tree.open(path) as reader:
        announced = getattr(reader, "length", LARGEST_KEPT_BYTES + 1)
        kept = keep and announced <= LARGEST_KEPT_BYTES and _take(announced)
        hasher, length, parts = blake3(), 0, []
        try:
            while True:
                # One byte more than the file has: a shorter answer is the end.
                want = max(1, min(announced - length + 1, CHUNK_BYTES))
                chunk = reader.read(want)
                hasher.update(chunk)
                length += len(chunk)
                on_bytes(len(chunk))
                if kept:
                    parts.append(chunk)
                if len(chunk) < want:
                    break
        except BaseException:
            if kept:
                _release(announced)
            raise
    data = (parts[0] if len(parts) == 1 else b"".join(parts)) if kept else None
    return FileRead(Address(hasher.hexdigest()), length, data)


def _take(length: int) -> bool:
    global _kept_bytes
    with _lock:
        if _kept_bytes + length > MOST_KEPT_BYTES:
            return False
        _kept_bytes += length
        return True


def _release(length: int) -> None:
    global _kept_bytes
    with _lock:
        _kept_bytes -= length
