"""The line of a file in a plan and in a batch: its path, and for a file that is pulled its permissions and address."""

from __future__ import annotations

from snapferry.stores.address import parse_address
from snapferry.stores.manifest.tree_entries import TreeEntry

_BETWEEN = b"\0"


def line_of(file: TreeEntry) -> bytes:
    """Return the line of a file that is pulled. No path has a NUL character."""
    return b"./%s\0%o\0%s" % (file.path.encode(), file.mode, file.address.encode())


def file_of(line: bytes, size: int) -> TreeEntry:
    """Return the file of *size* bytes that `line_of` wrote into *line*. Raises ValueError and `InvalidAddress`."""
    path, mode, address = line.split(_BETWEEN)
    return TreeEntry(
        False, int(mode, 8), parse_address(address.decode()), size, path.decode().removeprefix("./")
    )


def path_of(line: bytes) -> str:
    """Return the path in the line of any file, which begins with ``./``."""
    return line.partition(_BETWEEN)[0].decode()
