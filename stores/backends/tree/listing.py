"""
The result of a walk, in compact form.

    KIND MODE SIZE LENGTH PATH\\n        one line an entry, in the order of the manifest; see `walk.Found`

The text takes some bytes more than the paths: in memory while it is small, else in a temporary file that is mapped.
A tree of ten million files takes about a gigabyte of disk.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import compress, islice
from typing import Final, NamedTuple

from blake3 import blake3

from snapferry.stores.address import Address
from snapferry.stores.errors import ManifestTooLarge, StoreFault
from snapferry.stores.runtime.bounds import bounds
from snapferry.stores.runtime.interruption import checkpoint

from .walk import DIRECTORY, Found, LeftOut, Walk

# A longer text goes to a temporary file.
IN_MEMORY_BYTES: Final = 32 * 1024 * 1024

_LINES_AT_ONCE: Final = 1000

# Bytes of text that are read at once: columns of some hundred lines stay in the processor's cache.
_PIECE_BYTES: Final = 64 * 1024

_lines = re.compile(r"^(.) (\d++) (\d++) (\d++) (.*+)\n", re.MULTILINE).findall


class Columns(NamedTuple):
    """The lines of a piece of a listing, one tuple a column; MODE in octal digits, SIZE and LENGTH in decimal ones."""

    kinds: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    lengths: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def files(self) -> Columns:
        """Return the columns of the files, links to files included."""
        if DIRECTORY not in self.kinds:
            return self
        are_files = [kind != DIRECTORY for kind in self.kinds]
        return Columns(*(tuple(compress(column, are_files)) for column in self))


@dataclass(frozen=True)
class TreeListing:
    """What a walk found: its *text* has a line for each entry."""

    text: memoryview
    left_out: LeftOut = field(default_factory=LeftOut)

    def __iter__(self) -> Iterator[Found]:
        """Yield what was found, in order."""
        return read_lines(self.text)

    def columns(self) -> Iterator[Columns]:
        """Yield what was found, in order, some hundred lines at a time."""
        return read_columns(self.text)

    def digest(self) -> Address:
        """Return the digest of the text: two walks that found the same have the same."""
        return Address(blake3(self.text).hexdigest())

    def files(self) -> Iterator[Found]:
        """Yield the files, links to files included, in order."""
        return (found for found in self if found.kind != DIRECTORY)


def read_columns(text: memoryview) -> Iterator[Columns]:
    """Yield the lines of *text*, some hundred at a time: several times as fast as one by one."""
    at, end = 0, len(text)
    rest = b""
    while at < end:
        checkpoint()
        piece = rest + bytes(text[at : at + _PIECE_BYTES])
        at += _PIECE_BYTES
        whole, newline, rest = piece.rpartition(b"\n")
        if newline:
            yield Columns(*zip(*_lines((whole + newline).decode()), strict=True))


def read_lines(text: memoryview) -> Iterator[Found]:
    """Yield what the lines of *text* say."""
    for columns in read_columns(text):
        for kind, mode, size, length, path in zip(*columns, strict=True):
            yield Found(kind, int(mode, 8), int(size), int(length), path)


def list_tree(walk: Walk, label: str) -> TreeListing:
    """
    Walk through a tree to its end; return what was found. *label* is the tree's.

    Raises as `Walk` does, `ManifestTooLarge` for a tree of more files than a plan may have, and `StoreFault` where the
    temporary directory is full.
    """
    most, files = bounds().objects, 0
    try:
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
            at = 0
            entries = iter(walk)
            while some := list(islice(entries, _LINES_AT_ONCE)):
                checkpoint()
                lines = [
                    f"{kind} {mode:o} {size} {length} {path}\n" for kind, mode, size, length, path in some
                ]
                at += file.write("".join(lines).encode())
                files += sum(found.kind != DIRECTORY for found in some)
                if files > most:
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
    return TreeListing(text, walk.left_out)
