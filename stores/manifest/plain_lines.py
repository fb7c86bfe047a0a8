"""
The plain lines of a manifest, many in one call: in Python what `_lines.c` does, which is used where it is compiled.

The build compares the two, so nothing of snapferry is imported here.
"""

from __future__ import annotations

import re
from itertools import islice
from operator import le

Fields = tuple[tuple[str, ...], ...]
"""Some lines, one tuple a column: TYPE, PERMISSIONS, CHECKSUM, SIZE in digits, PATH."""

# Digits are checked for many lines together afterwards, which takes half of the time.
_plain_lines = re.compile(r"^([FD]) ([^ \n]++) (.{64}) ([0-9]++) (.++)\n", re.MULTILINE).findall

# A SIZE with up to this many digits fits 64 bits.
_DIGITS_OF_64_BITS = 19


def columns(piece: bytes, last: str, /) -> Fields | None:
    """Return the fields of the lines of *piece*. None if one is not plain, or not in order after the PATH *last*."""
    try:
        text = piece.decode()
    except UnicodeDecodeError:
        return None
    rows = _plain_lines(text)
    # Each match is one whole line. So as many matches as line ends are all lines, if nothing follows the last one.
    if not rows or len(rows) != text.count("\n") or not text.endswith("\n"):
        return None
    fields = tuple(zip(*rows, strict=True))
    _, _, checksums, sizes, paths = fields
    return fields if _are_hex(checksums) and _are_sizes(sizes) and _are_sorted(last, paths) else None


def _are_hex(checksums: tuple[str, ...]) -> bool:
    digits = "".join(checksums)
    return digits.isascii() and not digits.encode().translate(None, b"0123456789abcdef")


def _are_sizes(sizes: tuple[str, ...]) -> bool:
    """Return whether no number is too long or has a leading zero."""
    zeros = f" {' '.join(sizes)}".count(" 0")
    return zeros == sizes.count("0") and max(map(len, sizes)) <= _DIGITS_OF_64_BITS


def _are_sorted(last: str, paths: tuple[str, ...]) -> bool:
    """Return whether *paths* are in order. The order of code points is that of the bytes of UTF-8."""
    return last <= paths[0] and all(map(le, paths, islice(paths, 1, None)))
