"""
Publish manifests at a store: each after all of its objects, many for the price of few waits.

*manifest last*: presence is asked from scratch, and what was written before is
flushed, before the first manifest is written.
*each for itself*: what goes wrong with one manifest stops no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from .address import manifest_key
from .bulk.address_set import AddressSet
from .errors import IntegrityError, ManifestMissing, StoreError, StoreNotFound
from .hashing import CHUNK_BYTES
from .manifest.parse import Manifest
from .runtime.containment import contained
from .runtime.interruption import checkpoint

if TYPE_CHECKING:
    from .base import Backend
    from .snapshot_store import SnapshotStore

Open = Callable[[], AbstractContextManager[Manifest]]

# Of the objects that one manifest lacks no more are named.
MISSING_KEPT: Final = 100_000


class Published(NamedTuple):
    """
    What became of one manifest: it is published if *missing* is empty and *error* is None.

    *missing* are the addresses of its objects that are absent, the first
    `MISSING_KEPT` of them; the manifest was not written then. *error* is what
    went wrong with this manifest alone; where it came with the write or after
    it, the manifest may be there.
    """

    missing: tuple[str, ...] = ()
    error: StoreError | None = None


def publish_each(store: SnapshotStore, manifests: Mapping[str, Open]) -> dict[str, Published]:
    """
    Publish *manifests*, id -> how to open it, in *store*; say what became of each.

    Each is opened up to three times, and one is open at a time. Raises
    `StoreError` where the question of presence or a flush fails: a manifest
    that is visible then has all of its objects. May be called again.
    """
    done: dict[str, Published] = {}
    absent = _absent(store, manifests, done)
    to_write = []
    for snapshot_id, opened in manifests.items():
        if snapshot_id in done:
            continue
        with _noting(done, snapshot_id):
            missing = _missing_of(opened, absent)
            if missing or _holds_intact(store, snapshot_id):
                done[snapshot_id] = Published(missing)
            else:
                to_write.append(snapshot_id)
    if to_write:
        _write_all(store, {snapshot_id: manifests[snapshot_id] for snapshot_id in to_write}, done)
    return {snapshot_id: done[snapshot_id] for snapshot_id in manifests}


def _absent(store: SnapshotStore, manifests: Mapping[str, Open], done: dict[str, Published]) -> AddressSet:
    """Ask once for every object that any of *manifests* names; what cannot be read is noted in *done*."""
    union = AddressSet()
    for snapshot_id, opened in manifests.items():
        with _noting(done, snapshot_id), opened() as manifest:
            manifest.add_addresses(union)
    return store.absent(union)


def _missing_of(opened: Open, absent: AddressSet) -> tuple[str, ...]:
    found: dict[str, None] = {}
    if not len(absent):
        return ()
    with opened() as manifest:
        for files in manifest.files():
            found.update(dict.fromkeys(absent.among(files.checksums)))
            if len(found) >= MISSING_KEPT:
                break
    return tuple(islice(found, MISSING_KEPT))


def _holds_intact(store: SnapshotStore, snapshot_id: str) -> bool:
    try:
        with store.read_manifest(snapshot_id):
            return True
    except (ManifestMissing, IntegrityError, StoreNotFound):
        return False


def _write_all(store: SnapshotStore, manifests: Mapping[str, Open], done: dict[str, Published]) -> None:
    store.flush()
    written = []
    for snapshot_id, opened in manifests.items():
        with _noting(done, snapshot_id), opened() as manifest:
            _write(store._manifests, manifest)
            written.append(snapshot_id)
    store._manifests.flush()
    for snapshot_id in written:
        with _noting(done, snapshot_id), store.read_manifest(snapshot_id):
            done[snapshot_id] = Published()


def _write(backend: Backend, manifest: Manifest) -> None:
    reader = manifest.open()
    with backend.upload(manifest_key(manifest.id), manifest.length) as upload:
        while chunk := reader.read(CHUNK_BYTES):
            checkpoint()
            upload.write(chunk)
        upload.commit()


@contextmanager
def _noting(done: dict[str, Published], snapshot_id: str) -> Iterator[None]:
    """Take a `StoreError` inside for the answer about *snapshot_id*, and an exception that nobody thought of too."""
    try:
        with contained("", snapshot_id):
            yield
    except StoreError as error:
        done[snapshot_id] = Published(error=error)
