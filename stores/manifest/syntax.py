"""
The lines of a manifest one by one: what is right and what is wrong in each.

`lines` reads most manifests faster, and leaves here every piece in which a line is unusual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from snapferry.stores.errors import IntegrityError, ManifestSyntaxError

# The real snapdir reads a SIZE into 64 bits, and refuses a manifest with a larger one.
LARGEST_SIZE = 2**64 - 1

_ZERO = ord("0")

_file_line = re.compile(
    rb"(F) ([^ ]+) ([0-9a-f]{64}) (0|[1-9][0-9]{0,18}) ([^\n]+)\n",
).fullmatch
_is_checksum = re.compile(rb"[0-9a-f]{64}").fullmatch
_is_foreign_checksum = re.compile(
    rb"[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{56}|[0-9a-f]{96}|[0-9a-f]{128}"
).fullmatch


class Place(NamedTuple):
    """Where a manifest is filed, for errors."""

    label: str
    snapshot_id: str


def read_fields(
    at: Place, lines: Iterable[bytes], first: int, last: bytes, *, empty: bool
) -> Iterator[Sequence[bytes]]:
    """
    Yield the five fields of each of *lines*, checked. The first one has the number *first* and follows the PATH *last*.

    *empty*: the manifest is a single line end, which lists no entry. Raises `ManifestSyntaxError` with the line's
    number, and `IntegrityError` for checksums that are not plain BLAKE3.
    """
    line = b"\n"
    for number, line in enumerate(lines, first):
        found = _file_line(line)
        if found and line.isascii() and found[5] >= last:
            # Nearly every line: nothing of it needs a closer look.
            last = found[5]
            yield found.groups()
            continue
        fields = line.removesuffix(b"\n").split(b" ", 4)
        if len(fields) != 5:
            if empty and line == b"\n":
                return  # the manifest of a snapshot without entries
            raise _bad(at, number, "is not 'TYPE PERMISSIONS CHECKSUM SIZE PATH'", line)
        fault = _fault_of(fields, last)
        if fault:
            raise _bad(at, number, fault, line)
        if fields[0] == b"F" and not _is_checksum(fields[2]):
            raise _bad_checksum(at, number, fields[2], line)
        last = fields[4]
        if not line.isascii():
            try:
                line.decode()
            except UnicodeDecodeError:
                raise _bad(at, number, "is not UTF-8", line) from None
        yield fields
    if not line.endswith(b"\n"):
        raise _bad(at, number, "has no end; the manifest was cut short", line)


def _bad(at: Place, number: int, what: str, line: bytes) -> ManifestSyntaxError:
    shown = repr(line[:120].rstrip(b"\n").decode(errors="replace"))
    return ManifestSyntaxError(at.label, at.snapshot_id, f"line {number} of the manifest {what}: {shown}")


def _bad_checksum(at: Place, number: int, checksum: bytes, line: bytes) -> Exception:
    if not _is_foreign_checksum(checksum):
        return _bad(at, number, "has a CHECKSUM that is not 64 lowercase hex digits", line)
    return IntegrityError(
        at.label,
        at.snapshot_id,
        f"line {number} of the manifest has a checksum of {len(checksum) * 4} bits; only snapshots made with"
        " plain BLAKE3 can be verified, so only they can be copied",
    )


def _fault_of(fields: list[bytes], last: bytes) -> str:  # noqa: PLR0911 - one return a fault
    """
    Return what is wrong with a line, "" for a right one. *last* is the PATH before it.

    The checksum of a file is not looked at.
    """
    kind, permissions, checksum, size, path = fields
    if kind not in {b"F", b"D"}:
        return "does not begin with F or D"
    if not permissions:
        return "has no PERMISSIONS"
    if kind == b"D" and not checksum:
        return "has no CHECKSUM"
    if not size.isdigit() or (size[0] == _ZERO and size != b"0"):
        return "has a SIZE that is not a number of bytes"
    if len(size) > 19 and (len(size) > 20 or int(size) > LARGEST_SIZE):
        return "has a SIZE of more than 64 bits"
    if not path:
        return "has no PATH"
    if path < last:
        return "is out of order; entries are sorted by the bytes of PATH"
    return ""
