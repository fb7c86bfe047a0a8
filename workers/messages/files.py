"""
The line of a file in a plan: its path, and for a file that is pulled its permissions and address.

A message may have the addresses apart from the lines, because addresses hardly compress.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from operator import methodcaller
from typing import Final, cast

from snapferry.stores.address import ADDRESS_LENGTH, Address, are_addresses, parse_address
from snapferry.stores.manifest.tree_entries import TreeEntry
from snapferry.stores.manifest.tree_lines import TreeColumns
from snapferry.stores.treehash import digests

_BETWEEN: Final = b"\0"

# An address, and what is between it and the permissions before it.
_END: Final = ADDRESS_LENGTH + len(_BETWEEN)


def line_of(file: TreeEntry) -> bytes:
    """Return the line of a file that is pulled. No path has a NUL character."""
    return b"./%s\0%o\0%s" % (file.path.encode(), file.mode, file.address.encode())


def lines_of(files: TreeColumns) -> list[str]:
    """Return the lines of files that are pulled, as `line_of` does."""
    between = {mode: f"\0{mode:o}\0" for mode in set(files.modes)}
    return list(
        map("".join, zip(files.paths, map(between.__getitem__, files.modes), files.checksums, strict=True))
    )


def apart(lines: Sequence[bytes]) -> tuple[list[bytes], bytes]:
    """Return *lines* of files that are pulled without their addresses, and the digests of these, concatenated."""
    addresses = b"".join([line[-ADDRESS_LENGTH:] for line in lines])
    return [line[:-_END] for line in lines], bytes.fromhex(addresses.decode())


def together(lines: Sequence[bytes], addresses: Sequence[Address]) -> list[bytes]:
    """Return the lines whose addresses are *apart*. Raises ValueError for different numbers."""
    return [b"%s\0%s" % (line, address.encode()) for line, address in zip(lines, addresses, strict=True)]


def names_of(lines: Sequence[bytes]) -> list[Address]:
    """Return the addresses that the files with these lines have in a plan: the digests of their paths."""
    return cast("list[Address]", digests([line.partition(_BETWEEN)[0] for line in lines]))


def files_of(lines: Sequence[bytes], sizes: Sequence[int]) -> list[TreeEntry]:
    """Return `file_of` of each of *lines* and its size. Raises as it does, and ValueError for different numbers."""
    if len(lines) != len(sizes):
        raise ValueError("each line needs a size")
    fields = b"\0".join(lines).decode().split("\0") if lines else []
    paths, modes, addresses = fields[::3], fields[1::3], fields[2::3]
    if set(map(methodcaller("count", _BETWEEN), lines)) - {2} or not are_addresses(addresses):
        # One of them is wrong, and `file_of` raises.
        return [file_of(line, size) for line, size in zip(lines, sizes, strict=True)]
    octal = {mode: int(mode, 8) for mode in set(modes)}
    rows = zip(
        repeat(False),
        map(octal.__getitem__, modes),
        cast("list[Address]", addresses),
        sizes,
        [path.removeprefix("./") for path in paths],
        strict=False,
    )
    return list(map(TreeEntry._make, rows))


def file_of(line: bytes, size: int) -> TreeEntry:
    """Return the file of *size* bytes that `line_of` wrote into *line*. Raises ValueError and `InvalidAddress`."""
    path, mode, address = line.split(_BETWEEN)
    return TreeEntry(
        False, int(mode, 8), parse_address(address.decode()), size, path.decode().removeprefix("./")
    )


def path_of(line: bytes) -> str:
    """Return the path in the line of any file, which begins with ``./``."""
    return line.partition(_BETWEEN)[0].decode()
