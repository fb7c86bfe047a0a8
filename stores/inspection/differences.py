"""
What differs between two snapshots, or between two stores. Both sides are sorted, so memory does not grow with them.

Snapshots are compared as the real snapdir compares them: by the paths of files. A file is modified if its permissions,
checksum or size differ. A directory counts only where the other side has a file of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple, TypeVar

from snapferry.stores.address import EMPTY_ADDRESS, Address, SnapshotId
from snapferry.stores.errors import ManifestSyntaxError
from snapferry.stores.manifest.entry import Entry
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.stream_store import ListedObject, StreamStore

_T = TypeVar("_T")

Fields = Sequence[bytes]
"""The fields of a line of a manifest."""


class Change(StrEnum):
    """How the second side differs from the first."""

    ADDED = "A"
    DELETED = "D"
    MODIFIED = "M"


class PathChange(NamedTuple):
    """A path that differs, with its entry on each side."""

    change: Change
    path: str
    before: Entry | None
    after: Entry | None


class SnapshotChange(NamedTuple):
    """A snapshot that one store has: *change* is ADDED if that is the second one."""

    change: Change
    id: SnapshotId


class ObjectChange(NamedTuple):
    """An object that one store has, or that has another length in the second one, which is MODIFIED."""

    change: Change
    address: Address
    before: ListedObject | None
    after: ListedObject | None


def changed_paths(before: Manifest, after: Manifest, *, directories: bool = False) -> Iterator[PathChange]:
    """
    Yield the paths that differ, in the order of their bytes. The manifests must have been opened separately.

    With *directories*, also directories that one side lacks, or whose permissions differ. Raises as
    `Manifest.entries` does, and `ManifestSyntaxError` where a manifest lists one path twice, with different content.
    """
    for old, new in _aligned(_distinct(before), _distinct(after), itemgetter(4)):
        # Nearly every line of two snapshots of one tree.
        if old == new:
            continue
        if not directories and all(fields is None or fields[0] == b"D" for fields in (old, new)):
            continue
        if old is None and new is not None:
            yield PathChange(Change.ADDED, new[4].decode(), None, Entry.of(new))
        elif old is not None and new is None:
            yield PathChange(Change.DELETED, old[4].decode(), Entry.of(old), None)
        elif old is not None and new is not None and _compared(old) != _compared(new):
            yield PathChange(Change.MODIFIED, new[4].decode(), Entry.of(old), Entry.of(new))


def changed_snapshots(before: StreamStore, after: StreamStore) -> Iterator[SnapshotChange]:
    """Yield the snapshots that only one of two stores has, sorted by id."""
    for old, new in _aligned(before.manifest_ids(), after.manifest_ids(), str):
        if old is None and new is not None:
            yield SnapshotChange(Change.ADDED, new)
        elif old is not None and new is None:
            yield SnapshotChange(Change.DELETED, old)


def changed_objects(before: StreamStore, after: StreamStore) -> Iterator[ObjectChange]:
    """Yield the objects that only one of two stores has, or whose lengths differ, sorted by address."""
    olds, news = (filter(_is_whole, store.list_objects()) for store in (before, after))
    for old, new in _aligned(olds, news, attrgetter("address")):
        if old is None and new is not None:
            yield ObjectChange(Change.ADDED, new.address, None, new)
        elif old is not None and new is None:
            yield ObjectChange(Change.DELETED, old.address, old, None)
        elif old is not None and new is not None and old.length != new.length:
            yield ObjectChange(Change.MODIFIED, new.address, old, new)


def _aligned(
    before: Iterable[_T], after: Iterable[_T], key: Callable[[_T], Any]
) -> Iterator[tuple[_T | None, _T | None]]:
    """Yield the elements of two sides in the order of *key*; those with equal keys together. Keys rise on each side."""
    olds, news = iter(before), iter(after)
    old, new = next(olds, None), next(news, None)
    while old is not None and new is not None:
        at_old, at_new = key(old), key(new)
        if at_old == at_new:
            yield old, new
            old, new = next(olds, None), next(news, None)
        elif at_old < at_new:
            yield old, None
            old = next(olds, None)
        else:
            yield None, new
            new = next(news, None)
    while old is not None:
        yield old, None
        old = next(olds, None)
    while new is not None:
        yield None, new
        new = next(news, None)


def _distinct(manifest: Manifest) -> Iterator[Fields]:
    """Yield the fields of the entries of *manifest*, one entry for each path."""
    last: Fields = ()
    path = b""
    for fields in manifest.fields():
        if fields[4] != path:
            path = fields[4]
            yield fields
        elif _compared(fields) != _compared(last):
            raise ManifestSyntaxError(
                manifest.label,
                manifest.id,
                f"the manifest lists {path.decode()!r} twice, with different content",
            )
        last = fields


def _compared(fields: Fields) -> Fields:
    """Return what is compared of *fields*: the checksum and the size of a directory change with what is in it."""
    return tuple(fields[:2] if fields[0] == b"D" else fields[:4])


def _is_whole(found: ListedObject) -> bool:
    # An object that was cut to nothing counts as absent, as everywhere.
    return found.length > 0 or found.address == EMPTY_ADDRESS
