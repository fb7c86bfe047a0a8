"""
Publish manifests: each after all of its objects, and many with few waits.

*manifest last*: existence is asked from scratch, and the objects are flushed, before the first manifest is written.
*independent*: an error of one manifest stops no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Final

from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import IntegrityError, ManifestMissing, StoreError, StoreNotFound
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
    to_write = []
    for snapshot_id, opened in manifests.items():
        if snapshot_id in done:
            continue
        with _noting(done, snapshot_id):
            missing = _missing_of(opened, absent)
            if missing or _holds_intact(pool, snapshot_id):
                done[snapshot_id] = Published(missing)
            else:
                to_write.append(snapshot_id)
    if to_write:
        objects.flush()
        _write_all(pool, {snapshot_id: manifests[snapshot_id] for snapshot_id in to_write}, done)
    return {snapshot_id: done[snapshot_id] for snapshot_id in manifests}


def _absent(
    objects: ObjectPool, manifests: Mapping[SnapshotId, Open], done: dict[SnapshotId, Published]
) -> AddressSet:
    """Ask once for every object that any of *manifests* names. A manifest that cannot be read is noted in *done*."""
    union = AddressSet()
    for snapshot_id, opened in manifests.items():
        with _noting(done, snapshot_id), opened() as manifest:
            manifest.add_addresses(union)
    return objects.absent(union)


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


def _holds_intact(pool: ManifestPool, snapshot_id: SnapshotId) -> bool:
    try:
        with pool.read(snapshot_id):
            return True
    except (ManifestMissing, IntegrityError, StoreNotFound):
        return False


def _write_all(
    pool: ManifestPool, manifests: Mapping[SnapshotId, Open], done: dict[SnapshotId, Published]
) -> None:
    written = []
    for snapshot_id, opened in manifests.items():
        with _noting(done, snapshot_id), opened() as manifest:
            pool.write(manifest)
            written.append(snapshot_id)
    pool.flush()
    for snapshot_id in written:
        with _noting(done, snapshot_id), pool.read(snapshot_id):
            done[snapshot_id] = Published()


@contextmanager
def _noting(done: dict[SnapshotId, Published], snapshot_id: SnapshotId) -> Iterator[None]:
    """Record a `StoreError` inside the block, and any unexpected exception, as the end of *snapshot_id*."""
    try:
        with contained("", snapshot_id):
            yield
    except StoreError as error:
        done[snapshot_id] = Published(error=error)
