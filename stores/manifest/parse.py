"""
The manifest: the text that lists a snapshot.

    TYPE PERMISSIONS CHECKSUM SIZE PATH\\n        one line an entry, sorted by the bytes of PATH

TYPE is F or D. A line is split on its first four spaces only and ends at
``\\n`` only, so a PATH may hold spaces, tabs and ``\\r``. The snapshot id is the
BLAKE3 digest of the whole text: without lines that are empty or start with
``#``, which are no part of a manifest, and with one ``\\n`` at the end.

Objects are named by F lines alone; a D line carries a merkle hash that no
object is filed under. SIZE is advisory: a followed symlink has its target's
checksum beside its own size, so one object can be listed with several sizes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from types import TracebackType
from typing import IO, TYPE_CHECKING, Self, TypeVar

from snapferry.stores.address import DIGEST_BYTES, Address, SnapshotId, digests_of
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.bulk.forked import Forked, worth
from snapferry.stores.errors import IntegrityError, ManifestSyntaxError, ManifestTooLarge, StoreFault
from snapferry.stores.hashing import CHUNK_BYTES, HashingReader, digest
from snapferry.stores.runtime.bounds import bounds
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.streams import Reader

from .canonical import canonical, path_of
from .entry import Entry
from .lines import PIECE_BYTES, Columns, read_digests, read_plainly, read_records
from .spool import Spool
from .syntax import Place, read_fields

if TYPE_CHECKING:
    # As in `Manifest.table`.
    from snapferry.stores.bulk.tables import ObjectTable

# A manifest up to this size is kept in memory while it is used, a larger one in a temporary file.
SPOOL_BYTES = 16 * 1024 * 1024

# A larger manifest names some 50,000 objects or more. For these a table is faster, even with the import of NumPy.
LARGE_BYTES = 6 * 1024 * 1024

# Bytes of a manifest for which a process is worth its fork.
BYTES_FOR_A_PROCESS = 4 * 1024 * 1024

# Single lines that are read between two checkpoints: some milliseconds.
LINES_AT_ONCE = 10_000

# The longest text that is converted to its canonical form if it does not hash to its id.
CANONICALISE_BYTES = 256 * 1024 * 1024

# No store accepts an object of 8 TiB. A larger SIZE is wrong; planning limits it to this, so that sums of sizes fit the
# 64 bits of the ledger's counters.
LARGEST_PLANNED_BYTES = 2**43

# A part of a manifest: the offsets of its first byte and of its end, both at ends of lines, and the PATH before it.
_Part = tuple[int, int, str]

_T = TypeVar("_T")
_Plainly = Callable[[bytes, str], tuple[_T, str] | None]


class Manifest:
    """
    A verified manifest in bounded memory, whatever its size. Use it in a ``with`` block.

    Made by `Manifest.read` or `Manifest.from_bytes`, so its text always
    hashes to ``id``, in canonical form once `entries` has been read to the end.
    """

    def __init__(self, label: str, snapshot: SnapshotId, file: IO[bytes], length: int) -> None:
        self.id = snapshot
        self.length = length
        self._label = label
        self._place = Place(label, snapshot)
        self._file = file

    @classmethod
    def from_bytes(cls, snapshot: SnapshotId, text: bytes) -> Self:
        """Wrap *text*. Raises `IntegrityError` if it does not hash to *snapshot*."""
        return cls.read("", snapshot, io.BytesIO(text))

    @classmethod
    def read(cls, label: str, snapshot: SnapshotId, reader: Reader) -> Self:
        """
        Read the text from *reader*, which the store *label* holds under *snapshot*.

        Raises `IntegrityError` if it does not hash to *snapshot*, neither as it
        is nor in canonical form (the real snapdir accepts both), and
        `ManifestTooLarge`. Memory does not grow with the text.
        """
        spool = Spool(label, snapshot, SPOOL_BYTES)
        try:
            hashing = HashingReader(reader)
            while chunk := hashing.read(CHUNK_BYTES):
                checkpoint()
                spool.write(chunk)
            spool.end()
            found = hashing.hexdigest()
            if found == snapshot:
                return cls(label, snapshot, spool.file, spool.length)
            if spool.length <= CANONICALISE_BYTES and (text := spool.canonical()) is not None:
                if text.digest == snapshot:
                    spool.file.close()
                    return cls(label, snapshot, text.file, text.length)
                text.file.close()
            raise IntegrityError(
                label,
                snapshot,
                "the manifest filed here is corrupt and was not used: it does not hash to its id",
            )
        except BaseException:
            spool.file.close()
            raise

    @property
    def label(self) -> str:
        """The label of the store that holds the manifest, "" for one from elsewhere."""
        return self._label

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def open(self) -> Reader:
        """Return a reader of the text from its start. All readers share one position."""
        self._file.seek(0)
        return self._file

    def entries(self) -> Iterator[Entry]:
        """
        Yield the entries in order.

        Raises `ManifestSyntaxError` with the line's number, `IntegrityError`
        for checksums that are not plain BLAKE3.
        """
        return map(Entry.of, self.fields())

    def fields(self) -> Iterator[Sequence[bytes]]:
        """Yield the five fields of each entry as they are in the text: faster than `entries`. Raises like it."""
        self._check_not_empty()
        self._file.seek(0)
        for number, fields in enumerate(read_fields(self._place, self._file, 1, b"", empty=self.length == 1)):
            if number % LINES_AT_ONCE == 0:
                checkpoint()
            yield fields

    def objects(self) -> dict[Address, int]:
        """
        Return the distinct objects of the snapshot, address to advisory size in bytes, in the manifest's order.

        Where a checksum is listed with several sizes, the largest counts: a
        symlink's own size says nothing of its target. None is larger than
        `LARGEST_PLANNED_BYTES`. Raises like `entries`.
        """
        largest: dict[Address, int] = {}
        for files in self.files():
            add_largest(largest, files.checksums, list(files.sizes(LARGEST_PLANNED_BYTES)))
        return largest

    def files(self) -> Iterator[Columns]:
        """Yield the F lines, checked, some hundreds at a time, in order. Raises like `entries`."""
        for columns in self._columns():
            yield columns.files()

    @property
    def large(self) -> bool:
        """Return whether `table` should be used, because `objects` would take much memory."""
        return self.length > LARGE_BYTES

    def lines(self) -> Iterator[Columns]:
        """
        Yield all lines, checked, some hundreds at a time, in order.

        Raises like `entries`, though not always after all that comes before the fault.
        """
        return self._columns()

    def table(self) -> ObjectTable:
        """Return the same as `objects`, sorted by address, in 40 bytes each. Raises like `entries`."""
        # It imports NumPy, which takes longer than most commands read manifests.
        from snapferry.stores.bulk.tables import RECORD_BYTES, ObjectTableBuilder, TooManyObjects, records_of

        builder = ObjectTableBuilder(bounds().objects)
        try:
            self._gather(
                lambda piece, last: read_records(piece, last, LARGEST_PLANNED_BYTES),
                lambda files: records_of(files.checksums, files.sizes(LARGEST_PLANNED_BYTES)),
                RECORD_BYTES,
                builder.add,
            )
            return builder.finish()
        except TooManyObjects:
            raise ManifestTooLarge(
                self._label,
                self.id,
                f"the manifest names more than {bounds().objects:,} distinct objects; set SNAPFERRY_MAX_PLAN_OBJECTS to"
                " allow more, at 90 bytes of memory each",
            ) from None

    def addresses(self) -> AddressSet:
        """Return the distinct objects of the snapshot. Raises like `entries`."""
        found = AddressSet()
        self.add_addresses(found)
        return found

    def add_addresses(self, found: AddressSet) -> None:
        """Add the distinct objects of the snapshot to *found*. Raises like `entries`; some were added then."""
        if self.large:
            self._gather(
                read_digests, lambda files: digests_of(files.checksums), DIGEST_BYTES, found.add_digests
            )
            return
        for files in self.files():
            found.update(files.checksums)

    def paths_of(self, addresses: Collection[str]) -> Iterator[tuple[Address, str]]:
        """
        Yield address and path of each file whose object is among *addresses*, in the manifest's order.

        Raises like `entries`, though not always after all that comes before the fault.
        """
        wanted = frozenset(addresses)
        for columns in self._columns():
            if wanted.isdisjoint(columns.checksums):
                continue
            for kind, address, path in zip(columns.kinds, columns.checksums, columns.paths, strict=True):
                if kind == "F" and address in wanted:
                    yield address, path

    def _gather(
        self,
        plainly: _Plainly[bytes],
        of: Callable[[Columns], bytes],
        unit: int,
        take: Callable[[bytes | bytearray], None],
    ) -> None:
        """
        Pass what is read of the F lines to *take*: *unit* bytes for each, in any order, some of it maybe twice.

        *plainly* and *of* are as in `_read`, but *of* gets F lines only. Several processes read a large manifest.
        Raises like `entries`.
        """

        def records(part: _Part | None = None) -> Iterator[bytes]:
            return self._read(plainly, lambda columns: of(columns.files()), part)

        first, *others = self._parts()
        with ExitStack() as stack:
            forked = [stack.enter_context(closing(Forked(partial(records, part), unit))) for part in others]
            for some in records(first):
                take(some)
                for other in forked:
                    take(other.some())
            for other in forked:
                while not other.ends():
                    take(other.some())
                rest = other.rest()
                if rest is None:
                    break
                take(rest)
            else:
                return
        # A process found a fault or was killed. This process reads again from the start and finds the line at fault.
        for some in records():
            take(some)

    def _parts(self) -> list[_Part]:
        """Divide the manifest at ends of lines, into a part for each process that reads it."""
        count = worth(self.length, BYTES_FOR_A_PROCESS)
        parts, begin, before = [], 0, ""
        for number in range(1, count):
            at = self.length * number // count
            text = self._read_at(at, PIECE_BYTES)
            start = text.find(b"\n") + 1
            end = text.find(b"\n", start) + 1
            try:
                path = path_of(text[start : end - 1]).decode()
            except UnicodeDecodeError:
                continue
            if start and end:
                parts.append((begin, at + end, before))
                begin, before = at + end, path
        return [*parts, (begin, self.length, before)]

    def _columns(self) -> Iterator[Columns]:
        """Yield the manifest, checked, piece by piece."""
        return self._read(None, lambda columns: columns)

    def _read(
        self, plainly: _Plainly[_T] | None, of: Callable[[Columns], _T], part: _Part | None = None
    ) -> Iterator[_T]:
        """
        Yield a part of the manifest, or all of it, checked, piece by piece. Uses its own reading position.

        *plainly* takes a piece and the PATH before it, and returns what to yield and the last PATH. Without it, and
        where it returns None, *of* makes what to yield from the lines.
        """
        self._check_not_empty()
        position, end, last = part or (0, self.length, "")
        number = 1
        while position < end:
            checkpoint()
            piece = self._piece_at(position, end)
            found = plainly(piece, last) if plainly else None
            if found is None:
                columns = read_plainly(piece, last) or self._read_by_line(piece, number, last)
                found = of(columns), columns.paths[-1] if columns.paths else last
            yield found[0]
            number += piece.count(b"\n")
            position += len(piece)
            last = found[1]

    def _piece_at(self, position: int, end: int) -> bytes:
        """Return whole lines from *position* on, about `PIECE_BYTES` of them, but none from *end* on."""
        size = PIECE_BYTES
        while True:
            piece = self._read_at(position, min(size, end - position))
            if position + len(piece) == end:
                return piece
            if whole := piece.rfind(b"\n") + 1:
                return piece[:whole]
            size *= 2

    def _read_at(self, position: int, size: int) -> bytes:
        if self.length > SPOOL_BYTES:
            # Processes share a file's position.
            found = os.pread(self._file.fileno(), size, position)
        else:
            self._file.seek(position)
            found = self._file.read(size)
        if not found and size:
            raise StoreFault(self._label, self.id, "its temporary file was cut short while it was used")
        return found

    def _read_by_line(self, piece: bytes, number: int, last: str) -> Columns:
        rows = [
            [field.decode() for field in fields]
            for fields in read_fields(
                self._place, io.BytesIO(piece), number, last.encode(), empty=self.length == 1
            )
        ]
        return Columns(*zip(*rows, strict=True))

    def _check_not_empty(self) -> None:
        if not self.length:
            raise ManifestSyntaxError(
                self._label, self.id, "the manifest is empty; a manifest has at least one line end"
            )


def add_largest(largest: dict[Address, int], addresses: Sequence[Address], sizes: Sequence[int]) -> None:
    """Add *addresses* with their *sizes* to *largest*, where each keeps its largest size."""
    found = dict(zip(addresses, sizes, strict=True))
    if len(found) == len(addresses) and largest.keys().isdisjoint(found):
        largest.update(found)
        return
    for address, size in zip(addresses, sizes, strict=True):
        if largest.get(address, -1) < size:
            largest[address] = size


def parse(text: bytes) -> list[Entry]:
    """
    Return the entries of a manifest *text*, comments and empty lines left out, in canonical order.

    Raises `ManifestSyntaxError` with the number of the line in canonical form.
    """
    clean = canonical(text)
    with Manifest.from_bytes(SnapshotId(digest(clean)), clean) as manifest:
        return list(manifest.entries())
