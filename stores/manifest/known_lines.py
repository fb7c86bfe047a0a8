"""
Manifests that share most of their lines: each line is parsed once.

What a line says depends on nothing but its bytes, except for the order of the paths. So a line that was checked is
found again by its bytes, and of a manifest only new lines are parsed. The order is checked over all of its lines.

*same answers*: a manifest with a line that is not plain or out of order is left to the methods of `Manifest`, which
alone decide what is wrong and where. Its lines are not kept.
*bounded*: lines of up to `MOST_BYTES` are kept, in 35 to 50 MB of memory. When there would be more, all are dropped. A
large manifest is left to `Manifest`.
*only where lines are shared*: the lines of a manifest are kept only if a sample of them was in an earlier one. So
manifests that share nothing cost no more than that sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, Literal

from snapferry.stores.address import Address
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.runtime.interruption import checkpoint

from .lines import PIECE_BYTES, read_plainly
from .parse import LARGEST_PLANNED_BYTES, Manifest, add_largest

# The most bytes of the lines that are kept: more than any manifest has that is not large.
MOST_BYTES = 8 * 1024 * 1024

# The sample of a manifest that is compared with earlier samples: the lines whose checksum begins so, one in 256,
# wherever they are. A path may contain this too, so the sample is bounded.
_SAMPLED: Final = b" 00"
_MOST_SAMPLED: Final = 1000

# Hashes of sampled lines that are kept: about 1 MB of memory.
_MOST_SAMPLES: Final = 1 << 14

# Lines that are looked up to see whether most lines of a manifest are known.
_LOOKED_UP: Final = 64

# What a line says: the address of its object, "" for a D line; the advisory size; the PATH.
_Row = tuple[Address | Literal[""], int, str]


class _LeftToManifest(Exception):
    """
    A manifest is read by the methods of `Manifest`.

    It is large, shares nothing with earlier ones, or a line is not plain or out of order, which may be right.
    """


class KnownLines:
    """The lines of manifests that were read, for those that are read next. Not for several threads."""

    def __init__(self) -> None:
        self._rows: dict[bytes, _Row] = {}
        self._samples: set[int] = set()
        # Bytes of the lines that are kept.
        self.length = 0

    def objects(self, manifest: Manifest) -> dict[Address, int]:
        """Return the same as `Manifest.objects`. Raises like it."""
        addresses: list[Address] = []
        sizes: list[int] = []
        new: dict[bytes, _Row] = {}
        try:
            for rows in self.read(manifest, new):
                addresses += [address for address, _, _ in rows if address]
                sizes += [size for address, size, _ in rows if address]
        except _LeftToManifest:
            return manifest.objects()
        self.keep(new)
        largest: dict[Address, int] = {}
        add_largest(largest, addresses, sizes)
        return largest

    def _text_of(self, manifest: Manifest) -> bytes:
        if manifest.large or not manifest.length:
            raise _LeftToManifest
        text = manifest.open().read(manifest.length)
        if not self._is_known(text):
            if not self._is_repeated(text):
                raise _LeftToManifest
            if self.length + len(text) > MOST_BYTES:
                self._drop()
                raise _LeftToManifest
        return text

    def read(self, manifest: Manifest, new: dict[bytes, _Row]) -> Iterator[list[_Row]]:
        """
        Yield what the lines of *manifest* say, checked, some hundreds at a time. Put the new ones of them in *new*.

        Raises `_LeftToManifest`, maybe after some lines.
        """
        text = self._text_of(manifest)
        start, last = 0, ""
        while start < len(text):
            checkpoint()
            # Pieces, because what is read stays in the processor's cache then.
            end = text.rfind(b"\n", start, start + PIECE_BYTES)
            if end < 0 and (end := text.find(b"\n", start)) < 0:
                raise _LeftToManifest
            lines = text[start:end].split(b"\n")
            found = list(map(self._rows.get, lines))
            missing = [at for at, row in enumerate(found) if row is None]
            if missing:
                for at, row in zip(missing, _rows_of([lines[at] for at in missing]), strict=True):
                    found[at] = new[lines[at]] = row
            rows = [row for row in found if row]
            paths = [path for _, _, path in rows]
            # The order of code points is that of the bytes of UTF-8. What is in order is sorted quickly.
            if paths[0] < last or paths != sorted(paths):
                raise _LeftToManifest
            yield rows
            start, last = end + 1, paths[-1]

    def keep(self, new: dict[bytes, _Row]) -> None:
        """Keep the *new* lines of a manifest that was read to its end."""
        self.length += sum(map(len, new))
        self._rows.update(new)
        if self.length > MOST_BYTES:
            self._drop()

    def _drop(self) -> None:
        self._rows, self._samples, self.length = {}, set(), 0

    def _is_known(self, text: bytes) -> bool:
        """Return whether at least half of some lines all over *text* are known."""
        if not self._rows:
            return False
        starts = [text.rfind(b"\n", 0, at) + 1 for at in range(0, len(text), len(text) // _LOOKED_UP + 1)]
        known = sum(text[start : text.find(b"\n", start)] in self._rows for start in starts)
        return 2 * known >= len(starts)

    def _is_repeated(self, text: bytes) -> bool:
        """Return whether at least half of the sampled lines of *text* were in earlier samples. Note this sample."""
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
        new: dict[bytes, _Row] = {}
        try:
            for _ in self._known.read(manifest, new):
                pass
        except _LeftToManifest:
            manifest.add_addresses(self.addresses)
            return
        self.addresses.update([address for address, _, _ in new.values() if address])
        # Only now: a known line is not added again.
        self._known.keep(new)


def _rows_of(lines: Sequence[bytes]) -> Iterator[_Row]:
    """Yield what *lines* say, which are without their ends. Raises `_LeftToManifest`."""
    columns = read_plainly(b"\n".join([*lines, b""]), "")
    if columns is None:
        raise _LeftToManifest
    sizes = columns.sizes(LARGEST_PLANNED_BYTES)
    for kind, address, size, path in zip(columns.kinds, columns.checksums, sizes, columns.paths, strict=True):
        yield (address if kind == "F" else ""), size, path
