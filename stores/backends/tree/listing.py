"""
The result of a walk, in compact form.

    KIND MODE SIZE LENGTH PATH\\n        one line an entry, in the order of the manifest; see `walk.Found`

The text takes some bytes more than the paths: in memory while it is small, else in a temporary file that is mapped.
Besides it there are 16 bytes for each file. So a tree of ten million files takes about a gigabyte of disk.
"""

from __future__ import annotations

import mmap
import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from blake3 import blake3

from snapferry.stores.address import Address
from snapferry.stores.errors import ManifestTooLarge, StoreFault
from snapferry.stores.runtime.bounds import LONGEST_LINE, bounds
from snapferry.stores.runtime.interruption import checkpoint

from .walk import DIRECTORY, Found, LeftOut, Walk

# A longer text goes to a temporary file.
IN_MEMORY_BYTES: Final = 32 * 1024 * 1024

_LINES_AT_ONCE: Final = 1000


@dataclass(frozen=True)
class TreeListing:
    """
    What a walk found.

    *text* has a line for each entry. For each file, *starts* has the offset of its line, and *lengths* its length in
    bytes.
    """

    text: memoryview
    starts: array[int] | memoryview[int]
    lengths: array[int] | memoryview[int]
    left_out: LeftOut = field(default_factory=LeftOut)

    def __iter__(self) -> Iterator[Found]:
        return read_lines(self.text)

    @property
    def files(self) -> int:
        """The number of files, links to files included."""
        return len(self.starts)

    def digest(self) -> Address:
        """Return the digest of the text: two walks that found the same have the same."""
        return Address(blake3(self.text).hexdigest())

    def paths(self) -> Iterator[str]:
        """Yield the paths of the files, in order."""
        for found in self:
            if found.kind != DIRECTORY:
                yield found.path


def read_lines(text: memoryview) -> Iterator[Found]:
    """Yield what the lines of *text* say."""
    at, end = 0, len(text)
    rest = b""
    while at < end:
        checkpoint()
        piece = rest + bytes(text[at : at + 64 * 1024])
        at += 64 * 1024
        whole, _, rest = piece.rpartition(b"\n")
        if whole:
            for line in whole.decode().split("\n"):
                kind, mode, size, length, path = line.split(" ", 4)
                yield Found(kind, int(mode, 8), int(size), int(length), path)


def path_at(text: memoryview, start: int) -> str:
    """Return the path of the line that begins at *start* of *text*."""
    line, end, _ = bytes(text[start : start + 256]).partition(b"\n")
    if not end:
        line = bytes(text[start : start + LONGEST_LINE]).partition(b"\n")[0]
    return line.split(b" ", 4)[4].decode()


def list_tree(walk: Walk, label: str) -> TreeListing:
    """
    Walk through a tree to its end; return what was found. *label* is the tree's.

    Raises as `Walk` does, `ManifestTooLarge` for a tree of more files than a plan may have, and `StoreFault` where the
    temporary directory is full.
    """
    starts, lengths = array("Q"), array("Q")
    most = bounds().objects
    try:
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
            at = 0
            entries = iter(walk)
            while some := list(islice(entries, _LINES_AT_ONCE)):
                checkpoint()
                lines = []
                for found in some:
                    line = f"{found.kind} {found.mode:o} {found.size} {found.length} {found.path}\n".encode()
                    if found.kind != DIRECTORY:
                        starts.append(at)
                        lengths.append(found.length)
                    lines.append(line)
                    at += len(line)
                file.write(b"".join(lines))
                if len(starts) > most:
                    raise ManifestTooLarge(
                        label,
                        "",
                        f"has more than {most:,} files. Push a part of it, or set SNAPFERRY_MAX_PLAN_OBJECTS to allow"
                        " more, at 90 bytes of memory each",
                    )
            file.flush()
            if at > IN_MEMORY_BYTES:
                text = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            else:
                file.seek(0)
                text = memoryview(file.read())
    except OSError as error:
        raise StoreFault(
            label,
            "",
            f"the list of its files cannot be kept in the temporary directory {tempfile.gettempdir()}:"
            f" {error.strerror or error}; free space there, or set TMPDIR to a larger disk",
        ) from error
    return TreeListing(text, starts, lengths, walk.left_out)
