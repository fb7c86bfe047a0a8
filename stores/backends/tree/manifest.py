"""
The manifest of a tree, from what a walk found and the digests of the files.

The checksum of a directory is the digest of the distinct checksums of what is directly in it, as hex digits, sorted and
joined without anything between them. Names and permissions have no part in it. Its size is the sum of the sizes of its
files and directories.

*bounded*: memory holds 40 bytes for each directory, and the checksums of the directories that are open.
"""

from __future__ import annotations

import tempfile
from array import array
from collections.abc import Iterator, Sequence
from typing import Final

from blake3 import blake3

from snapferry.stores.address import DIGEST_BYTES, Address, SnapshotId
from snapferry.stores.errors import StoreFault
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.interruption import checkpoint

from .listing import read_columns
from .walk import DIRECTORY, LINK

_IN_MEMORY_BYTES: Final = 16 * 1024 * 1024
_LARGEST_SIZE: Final = 2**64 - 1


def build_manifest(
    text: memoryview, digests: bytes | bytearray | memoryview, lengths: Sequence[int]
) -> Manifest:
    """
    Return the manifest of the listing with this *text*, to be used in a ``with`` block.

    *digests*, concatenated, and *lengths* in bytes are those of the files, in the order of the listing. Raises
    `StoreFault` where the temporary directory is full, and `ManifestTooLarge`.
    """
    checksums, sizes = _directories(text, digests, lengths)
    hasher = blake3()
    try:
        with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
            for lines in _lines(text, digests, lengths, checksums, sizes):
                hasher.update(lines)
                file.write(lines)
            file.seek(0)
            return Manifest.read("", SnapshotId(Address(hasher.hexdigest())), file)
    except OSError as error:
        raise StoreFault(
            "",
            "",
            f"the manifest cannot be kept in the temporary directory {tempfile.gettempdir()}:"
            f" {error.strerror or error}; free space there, or set TMPDIR to a larger disk",
        ) from error


class _Open:
    """A directory whose entries are being read: its number, its path, and what is known of its entries."""

    __slots__ = ("checksums", "number", "path", "size")

    def __init__(self, number: int, path: str) -> None:
        self.number = number
        self.path = path
        self.checksums: set[bytes] = set()
        self.size = 0

    def checksum(self) -> bytes:
        return blake3(b"".join(sorted(self.checksums)).hex().encode()).digest()


def _directories(
    text: memoryview, digests: bytes | bytearray | memoryview, lengths: Sequence[int]
) -> tuple[bytearray, array[int]]:
    """Return the checksums, concatenated, and the sizes of the directories, in the order of the listing."""
    checksums, sizes = bytearray(), array("Q")
    stack: list[_Open] = []

    def close() -> None:
        ended = stack.pop()
        checksum, size = ended.checksum(), min(ended.size, _LARGEST_SIZE)
        checksums[DIGEST_BYTES * ended.number : DIGEST_BYTES * (ended.number + 1)] = checksum
        sizes[ended.number] = size
        if stack:
            stack[-1].checksums.add(checksum)
            stack[-1].size += size

    file = 0
    for columns in read_columns(text):
        files = len(columns.kinds) - columns.kinds.count(DIRECTORY)
        of_files = zip(*_rows(digests, lengths, file, files), strict=True)
        file += files
        for kind, size, path in zip(columns.kinds, columns.sizes, columns.paths, strict=True):
            while stack and not path.startswith(stack[-1].path):
                close()
            if kind == DIRECTORY:
                stack.append(_Open(len(sizes), path))
                checksums += bytes(DIGEST_BYTES)
                sizes.append(0)
                continue
            checksum, length = next(of_files)
            above = stack[-1]
            above.checksums.add(checksum)
            above.size += int(size) if kind == LINK else length
    while stack:
        close()
    return checksums, sizes


def _lines(
    text: memoryview,
    digests: bytes | bytearray | memoryview,
    lengths: Sequence[int],
    checksums: bytearray,
    sizes: array[int],
) -> Iterator[bytes]:
    """Yield the lines of the manifest, many at a time."""
    file = folder = 0
    for columns in read_columns(text):
        checkpoint()
        kinds = columns.kinds
        folders = kinds.count(DIRECTORY)
        files = len(kinds) - folders
        of_files = zip(*_rows(digests, lengths, file, files), strict=True)
        of_folders = zip(*_rows(checksums, sizes, folder, folders), strict=True)
        file, folder = file + files, folder + folders
        lines: list[str] = []
        for kind, mode, size, path in zip(kinds, columns.modes, columns.sizes, columns.paths, strict=True):
            checksum, length = next(of_folders if kind == DIRECTORY else of_files)
            shown = "D" if kind == DIRECTORY else "F"
            lines.append(f"{shown} {mode} {checksum.hex()} {size if kind == LINK else length} {path}\n")
        yield "".join(lines).encode()


def _rows(
    digests: bytes | bytearray | memoryview, lengths: Sequence[int], first: int, count: int
) -> tuple[list[bytes], Sequence[int]]:
    """Return the checksums and the lengths of *count* files or directories, from number *first* on."""
    some = bytes(digests[DIGEST_BYTES * first : DIGEST_BYTES * (first + count)])
    checksums = [some[at : at + DIGEST_BYTES] for at in range(0, len(some), DIGEST_BYTES)]
    return checksums, lengths[first : first + count]
