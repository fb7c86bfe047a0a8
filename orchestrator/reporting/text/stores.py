"""What is in stores, in words."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from snapferry.stores.address import SnapshotId
from snapferry.stores.errors import StoreError
from snapferry.stores.inspection.differences import ObjectChange, PathChange, SnapshotChange
from snapferry.stores.inspection.orphans import Orphans
from snapferry.stores.inspection.sizes import Sizes
from snapferry.stores.manifest.entry import Entry
from snapferry.stores.names.name import MARK
from snapferry.stores.stream_store import ListedObject
from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import printable

from .format import duration

# The fewest digits of an id that are shown.
SHORTEST_ID: Final = 8

ROWS_HEAD: Final = ("DATE", "FILES", "BYTES", "ID", "NAMES")

# Deeper entries are not indented further.
_DEEPEST: Final = 100


class RowCounts(NamedTuple):
    """What a manifest lists: files, their bytes, and distinct objects."""

    files: int = 0
    size_bytes: int = 0
    objects: int = 0


@dataclass(frozen=True)
class SnapshotRow:
    """
    A snapshot in a list.

    *counted* is None if its manifest was not read, or could not be read for the reason *error*.
    """

    id: SnapshotId
    modified: float
    manifest_bytes: int
    names: tuple[str, ...] = ()
    counted: RowCounts | None = None
    error: StoreError | None = None


def bytes_text(size_bytes: int, *, exact: bool) -> str:
    """Return a size, with a unit unless it is to be *exact*."""
    return str(size_bytes) if exact else size(size_bytes)


def date_text(seconds: float) -> str:
    """Return a time in seconds since the epoch as a date in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def row_texts(row: SnapshotRow, short: str, *, exact: bool) -> tuple[str, ...]:
    """Return a snapshot as a row of `ROWS_HEAD`."""
    names = " ".join(f"{name}{MARK}" for name in row.names)
    if row.counted is None:
        return (date_text(row.modified), "?", "?", short, names)
    files = str(row.counted.files) if exact else f"{row.counted.files:,}"
    return (date_text(row.modified), files, bytes_text(row.counted.size_bytes, exact=exact), short, names)


def sizes_lines(sizes: Sizes, *, exact: bool) -> Iterator[str]:
    """Yield the size of a store or of a snapshot, one line for each aspect."""

    def number(count: int) -> str:
        return str(count) if exact else f"{count:,}"

    yield f"snapshots  {number(sizes.snapshots)}"
    yield f"files      {number(sizes.files)}"
    yield f"logical    {bytes_text(sizes.logical_bytes, exact=exact)}"
    yield f"objects    {number(sizes.objects)}"
    yield f"physical   {bytes_text(sizes.physical_bytes, exact=exact)}"
    if sizes.shared is not None:
        shared = bytes_text(sizes.shared.size_bytes, exact=exact)
        objects = number(sizes.shared.objects)
        yield f"shared     {shared} in {objects} {'object' if sizes.shared.objects == 1 else 'objects'}"


def path_change_line(change: PathChange) -> str:
    """Return a path that differs, as the real snapdir prints it."""
    return f"{change.change}\t{printable(change.path)}"


def snapshot_change_line(change: SnapshotChange) -> str:
    """Return a snapshot that only one store has."""
    return f"{change.change}\t{change.id}"


def object_change_line(change: ObjectChange) -> str:
    """Return an object that only one store has, or that has another length there."""
    return f"{change.change}\t{change.address}"


def entry_line(entry: Entry, name: str, *, exact: bool) -> str:
    """Return a file or directory under *name*."""
    size_text = bytes_text(entry.size, exact=exact)
    return f"{printable(entry.permissions):>4} {size_text:>10}  {printable(name)}"


def tree_lines(entries: Iterable[Entry], *, exact: bool) -> Iterator[str]:
    """Yield *entries*, which are sorted, as a tree: each below its directory, with the last part of its path."""
    top: int | None = None
    for entry in entries:
        path = entry.path.removesuffix("/")
        depth, name = path.count("/"), entry.path[path.rfind("/") + 1 :]
        if top is None:
            # The first entry is the directory that all others are below, and is shown with its path.
            top, name = depth, entry.path
        yield entry_line(entry, "  " * min(max(0, depth - top), _DEEPEST) + _quoted(name), exact=exact)


def _quoted(name: str) -> str:
    """Return *name*, in quotes if spaces at its ends would look like an indentation."""
    return name if name == name.strip() else f'"{name}"'


def orphan_line(orphan: ListedObject, *, exact: bool) -> str:
    """Return one orphan: address, size and date."""
    size_text = bytes_text(orphan.length, exact=exact)
    return f"{orphan.address}  {size_text:>10}  {date_text(orphan.modified)}"


def orphans_text(orphans: Orphans) -> str:
    """Return how many orphans there are, in a sentence or two."""
    found, stored = orphans.found, orphans.stored
    named = f"in {counted(orphans.snapshots, 'snapshot')}"
    if not found.objects:
        return f"no orphans among {counted(stored.objects, 'object')}, {named}"
    text = (
        f"{counted(found.objects, 'orphan')} of {size(found.size_bytes)}, among"
        f" {counted(stored.objects, 'object')} of {size(stored.size_bytes)}; nothing was deleted. The youngest was"
        f" written {duration(time.time() - orphans.youngest)} ago: it may belong to a push or sync in progress"
    )
    if not orphans.snapshots:
        text += ". No manifest was found at all. Check that the URL is right and the file system mounted"
    return text
