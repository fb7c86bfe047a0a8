"""
Manifests that share most of their lines: each line is parsed once.

What a line says depends on nothing but its bytes, except for the order of the paths. So a line that was checked is
found again by its bytes, and of a manifest only new lines are parsed. The order is checked over all of its lines.

*same answers*: a manifest with a line that is not plain or out of order is left to the methods of `Manifest`, which
alone decide what is wrong and where.
*bounded*: lines of up to `MOST_BYTES` are kept, about 50 MB of memory. When there are more, only those of the last
manifest are kept. A large manifest is left to `Manifest`.
*only where lines are shared*: a sample of its lines tells whether a manifest repeats an earlier one. The lines of one
that does not are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Final, Literal, NamedTuple

from snapferry.stores.address import Address
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.runtime.interruption import checkpoint

from .lines import read_plainly
from .parse import LARGEST_PLANNED_BYTES, Manifest

# Bytes of the lines that are kept, at least the length of any manifest that is not large.
MOST_BYTES = 8 * 1024 * 1024

# Lines that are parsed at once: about `lines.PIECE_BYTES`.
_LINES_AT_ONCE: Final = 600

# The sample of a manifest: the lines whose checksum begins so, one in 256, whatever stands before them. A path may
# contain this too, so the sample is bounded.
_SAMPLED: Final = b" 00"
_MOST_SAMPLED: Final = 1000

# Hashes of sampled lines that are kept: about 1 MB of memory.
_MOST_SAMPLES: Final = 1 << 14

# What a line says: the address of its object, "" for a D line; the advisory size; the PATH.
_Row = tuple[Address | Literal[""], int, str]


class _Read(NamedTuple):
    """A manifest that was read: its lines and what they say, and the new ones among them."""

    lines: list[bytes]
    rows: list[_Row]
    new_lines: list[bytes]
    new_rows: list[_Row]


class KnownLines:
    """The lines of manifests that were read, for those that are read next. Not for several threads."""

    def __init__(self) -> None:
        self._rows: dict[bytes, _Row] = {}
        # Bytes of the lines that are kept.
        self.length = 0
        self._samples: set[int] = set()

    def objects(self, manifest: Manifest) -> dict[Address, int]:
        """Return the same as `Manifest.objects`. Raises like it."""
        read = self.read(manifest)
        if read is None:
            return manifest.objects()
        self.keep(read)
        files = [row for row in read.rows if row[0]]
        largest = {address: size for address, size, _ in files if address}
        if len(largest) < len(files):
            for address, size, _ in files:
                if address and largest[address] < size:
                    largest[address] = size
        return largest

    def read(self, manifest: Manifest) -> _Read | None:
        """Return what *manifest* says, checked. None if it should be read without known lines."""
        if manifest.large:
            return None
        text = manifest.open().read(manifest.length)
        empty = not self._rows
        if empty and not self._is_repeated(text):
            return None
        lines = text.split(b"\n")
        if lines.pop() or not lines:
            return None
        found = list(map(self._rows.get, lines))
        new = [at for at, row in enumerate(found) if row is None]
        if not empty and 2 * len(new) > len(lines) and not self._is_repeated(text):
            return None
        new_lines = [lines[at] for at in new]
        new_rows = _rows_of(new_lines)
        if new_rows is None:
            return None
        for at, row in zip(new, new_rows, strict=True):
            found[at] = row
        rows = [row for row in found if row]
        paths = [path for _, _, path in rows]
        # The order of code points is that of the bytes of UTF-8. A list that is in order is sorted at once.
        return _Read(lines, rows, new_lines, new_rows) if paths == sorted(paths) else None

    def keep(self, read: _Read) -> None:
        """Keep the lines of a manifest that was *read*."""
        self.length += sum(map(len, read.new_lines))
        if self.length <= MOST_BYTES:
            self._rows.update(zip(read.new_lines, read.new_rows, strict=True))
            return
        self._rows = dict(zip(read.lines, read.rows, strict=True))
        self.length = sum(map(len, read.lines))
        # Manifests whose lines were dropped now must be seen twice before they take the place of these.
        self._samples = set()

    def _is_repeated(self, text: bytes) -> bool:
        """Return whether at least half of the sampled lines of *text* were in an earlier manifest. Note the sample."""
        pieces = islice(text.split(_SAMPLED, _MOST_SAMPLED), 1, None)
        sample = {hash(piece[: piece.find(b"\n")]) for piece in pieces}
        repeated = len(sample & self._samples)
        self._samples = self._samples | sample if len(self._samples) < _MOST_SAMPLES else sample
        return 2 * repeated >= len(sample) > 0


class NamedObjects:
    """The distinct objects that manifests name. A line that they share is added once. Not for several threads."""

    def __init__(self) -> None:
        self.addresses = AddressSet()
        self._known = KnownLines()

    def add(self, manifest: Manifest) -> None:
        """Add the objects of *manifest*. Raises like `Manifest.add_addresses`."""
        read = self._known.read(manifest)
        if read is None:
            manifest.add_addresses(self.addresses)
            return
        self.addresses.update([address for address, _, _ in read.new_rows if address])
        # Only now: what is known is not added again.
        self._known.keep(read)


def _rows_of(lines: Sequence[bytes]) -> list[_Row] | None:
    """Return what *lines* say, which are without their ends. None if one is not plain, or out of order."""
    rows: list[_Row] = []
    last = ""
    for at in range(0, len(lines), _LINES_AT_ONCE):
        checkpoint()
        piece = b"\n".join([*lines[at : at + _LINES_AT_ONCE], b""])
        columns = read_plainly(piece, last)
        if columns is None:
            return None
        last = columns.paths[-1]
        addresses: list[Address | Literal[""]] = [
            checksum if kind == "F" else ""
            for kind, checksum in zip(columns.kinds, columns.checksums, strict=True)
        ]
        rows.extend(zip(addresses, columns.sizes(LARGEST_PLANNED_BYTES), columns.paths, strict=True))
    return rows
