"""
Orphans: objects that no manifest names. They are found and never deleted.

Manifests are read before the objects are listed, and those that were published meanwhile are read afterwards. So an
orphan is an object that no manifest named at the end. It may still belong to a push or a copy in progress, which writes
objects first.

Addresses of named objects take 32 bytes of memory each, orphans wait in a temporary file.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from threading import Lock
from types import TracebackType
from typing import IO, Final, Self, cast

from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.bulk.union import Counted
from snapferry.stores.errors import ManifestTooLarge, StoreFault
from snapferry.stores.manifest.known_lines import NamedObjects
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.bounds import bounds
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import ListedObject, StreamStore

from .reading import Unreadable, read_each

# Objects that are looked up at once.
_AT_ONCE: Final = 10_000

# Orphans up to this many bytes of records wait in memory.
_MEMORY_BYTES: Final = 4 * 1024 * 1024

_RECORD: Final = struct.Struct(">32sQd")

Progress = Callable[[str, int], None]
"""Called with what is counted, ``manifests`` or ``objects``, and how many of them were read so far."""


class Orphans:
    """The orphans of a store, sorted by address. Use it in a ``with`` block; iterate as often as needed."""

    def __init__(self) -> None:
        self._file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(_MEMORY_BYTES))
        self.snapshots = 0
        self.stored = Counted()
        self.found = Counted()
        self.youngest = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[ListedObject]:
        self._file.seek(0)
        while record := self._file.read(_RECORD.size):
            digest, length, modified = _RECORD.unpack(record)
            yield ListedObject(Address(digest.hex()), length, modified)

    def write(self, found: Iterable[ListedObject]) -> None:
        """Replace the orphans by *found*, which may be read from this."""
        file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(_MEMORY_BYTES))
        objects = size_bytes = 0
        youngest = 0.0
        try:
            for address, length, modified in found:
                file.write(_RECORD.pack(bytes.fromhex(address), length, modified))
                objects, size_bytes, youngest = objects + 1, size_bytes + length, max(youngest, modified)
        except OSError as error:
            file.close()
            raise StoreFault(
                "",
                "",
                f"orphans cannot be kept in the temporary directory {tempfile.gettempdir()}: {error.strerror or error};"
                " free space there, or set TMPDIR to a larger disk",
            ) from error
        except BaseException:
            file.close()
            raise
        self._file.close()
        self._file, self.found, self.youngest = file, Counted(objects, size_bytes), youngest


def find_orphans(
    pool: StreamStore,
    stores: Sequence[StreamStore],
    *,
    before: float | None = None,
    progress: Progress = lambda *_: None,
) -> Orphans:
    """
    Return the objects of *pool* that no manifest of *stores* names, to be used in a ``with`` block.

    With *before*, in seconds since the epoch, only those that were written earlier, by the store's clock. Temporary
    files and whatever else is no object are not looked at.

    Raises what a store raises. An unreadable manifest is an error too: its objects would be reported as orphans.
    """
    named = _Named(progress)
    for store in stores:
        named.read(store)
    orphans = Orphans()
    try:
        listed = _Listed(pool, progress)
        orphans.write(
            found for found in _without(listed, named.addresses) if before is None or found.modified < before
        )
        published = [store for store in stores if named.read(store)]
        if published and orphans.found.objects:
            orphans.write(_without(orphans, named.addresses))
        orphans.snapshots, orphans.stored = named.snapshots, listed.counted
    except BaseException:
        orphans.__exit__(None, None, None)
        raise
    return orphans


class _Named:
    """The addresses that the manifests of stores name."""

    def __init__(self, progress: Progress) -> None:
        self._named = NamedObjects()
        self.addresses = self._named.addresses
        self._progress = progress
        # An id is that of one text, in whichever store it is.
        self._known: set[SnapshotId] = set()
        self._lock = Lock()
        self._most = 0

    @property
    def snapshots(self) -> int:
        return len(self._known)

    def read(self, store: StreamStore) -> bool:
        """Read the manifests of *store* that were not read yet; return whether there was one."""
        new = [snapshot_id for snapshot_id in store.list_manifest_ids() if snapshot_id not in self._known]
        for snapshot_id, found in read_each(store, new, self._add):
            if isinstance(found, Unreadable):
                raise found.error
            self._known.add(snapshot_id)
            self._progress("manifests", self.snapshots)
        return bool(new)

    def _add(self, manifest: Manifest) -> None:
        with self._lock:
            self._named.add(manifest)
            # Each line has at least 72 bytes. Counting the distinct addresses takes longer.
            self._most += manifest.length // 72
            if self._most > bounds().objects:
                self._most = len(self.addresses)
            if self._most > bounds().objects:
                raise ManifestTooLarge(
                    manifest.label,
                    manifest.id,
                    f"the snapshots name more than {bounds().objects:,} distinct objects; set"
                    " SNAPFERRY_MAX_PLAN_OBJECTS to allow more, at 90 bytes of memory each",
                )


class _Listed:
    """The objects of a store, counted as they are listed."""

    def __init__(self, store: StreamStore, progress: Progress) -> None:
        self._store, self._progress = store, progress
        self.counted = Counted()

    def __iter__(self) -> Iterator[ListedObject]:
        objects = size_bytes = 0
        for found in self._store.list_objects():
            objects, size_bytes = objects + 1, size_bytes + found.length
            if objects % _AT_ONCE == 0:
                checkpoint()
                self._progress("objects", objects)
            yield found
        self.counted = Counted(objects, size_bytes)


def _without(listed: Iterable[ListedObject], named: AddressSet) -> Iterator[ListedObject]:
    """Yield the objects of *listed* that are not *named*."""
    objects = iter(listed)
    while chunk := list(islice(objects, _AT_ONCE)):
        here = set(named.among([found.address for found in chunk]))
        yield from (found for found in chunk if found.address not in here)
