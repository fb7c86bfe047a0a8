"""
Publish manifests: each after all of its objects, and many with few waits.

*manifest last*: existence is asked from scratch, and the objects are flushed, before the first manifest is written.
*independent*: an error of one manifest stops no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from enum import Enum, auto
from itertools import islice
from typing import Final

from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import (
    IntegrityError,
    ManifestMissing,
    NotAnObject,
    StoreError,
    StoreNotFound,
)
from snapferry.stores.manifest.known_lines import NamedObjects
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.containment import contained
from snapferry.stores.stream_store import Published

from .manifests import ManifestPool
from .objects import ObjectPool

Open = Callable[[], AbstractContextManager[Manifest]]

# The most absent objects of one manifest that are named.
MISSING_KEPT: Final = 100_000


def publish_each(
    objects: ObjectPool, pool: ManifestPool, manifests: Mapping[SnapshotId, Open]
) -> dict[SnapshotId, Published]:
    """
    Publish *manifests*, id -> how to open it, in *pool* over *objects*; return how each ended, in their order.

    Each is opened up to three times, and one is open at a time. Raises `StoreError` where the question of existence or
    a flush fails: a manifest that is visible then has all of its objects. May be called again.
    """
    done: dict[SnapshotId, Published] = {}
    absent = _absent(objects, manifests, done)
    to_write: dict[SnapshotId, bool] = {}
    for snapshot_id, opened in manifests.items():
        if snapshot_id in done:
            continue
        with _noting(done, snapshot_id):
            missing = _missing_of(opened, absent)
            held = _Held.NOTHING if missing else _held(pool, snapshot_id)
            if missing or held is _Held.INTACT:
                done[snapshot_id] = Published(missing)
            else:
                to_write[snapshot_id] = held is _Held.WRONG
    if to_write:
        objects.flush()
        _write_all(pool, manifests, to_write, done)
    elif any(published == Published() for published in done.values()):
        # A process that wrote them may have died before it flushed, and a foreign one may never do so.
        objects.flush()
        pool.flush()
    return {snapshot_id: done[snapshot_id] for snapshot_id in manifests}


def _absent(
    objects: ObjectPool, manifests: Mapping[SnapshotId, Open], done: dict[SnapshotId, Published]
) -> AddressSet:
    """Ask once for every object that any of *manifests* names. A manifest that cannot be read is noted in *done*."""
    named = NamedObjects()
    for snapshot_id, opened in manifests.items():
        with _noting(done, snapshot_id), opened() as manifest:
            named.add(manifest)
    return objects.absent(named.addresses)


def _missing_of(opened: Open, absent: AddressSet) -> tuple[Address, ...]:
    found: dict[Address, None] = {}
    if not len(absent):
        return ()
    with opened() as manifest:
        for files in manifest.files():
            found.update(dict.fromkeys(absent.among(files.checksums)))
            if len(found) >= MISSING_KEPT:
                break
    return tuple(islice(found, MISSING_KEPT))


class _Held(Enum):
    """What a store holds under the id of a snapshot."""

    INTACT = auto()
    WRONG = auto()
    NOTHING = auto()


def _held(pool: ManifestPool, snapshot_id: SnapshotId) -> _Held:
    try:
        with pool.read(snapshot_id):
            return _Held.INTACT
    except (ManifestMissing, StoreNotFound):
        return _Held.NOTHING
    except (IntegrityError, NotAnObject):
        return _Held.WRONG


def _write_all(
    pool: ManifestPool,
    manifests: Mapping[SnapshotId, Open],
    to_write: Mapping[SnapshotId, bool],
    done: dict[SnapshotId, Published],
) -> None:
    """Write those of *manifests* that are *to_write*: id -> whether there is a wrong one, to be quarantined."""
    written: dict[SnapshotId, str] = {}
    for snapshot_id, wrong in to_write.items():
        with _noting(done, snapshot_id), manifests[snapshot_id]() as manifest:
            written[snapshot_id] = pool.write(manifest, over_wrong=wrong)
    pool.flush()
    for snapshot_id, quarantined in written.items():
        with _noting(done, snapshot_id), pool.read(snapshot_id):
            done[snapshot_id] = Published(quarantined=quarantined, written=True)


@contextmanager
def _noting(done: dict[SnapshotId, Published], snapshot_id: SnapshotId) -> Iterator[None]:
    """Record a `StoreError` inside the block, and any unexpected exception, as the end of *snapshot_id*."""
    try:
        with contained("", snapshot_id):
            yield
    except StoreError as error:
        done[snapshot_id] = Published(error=error)
