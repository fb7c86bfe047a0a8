"""
Files and bytes of snapshots and of a store, by the sizes in manifests, as the real snapdir counts them.

SIZE is advisory: a followed link has its own size beside its target's checksum. Of an object with several sizes, the
first one counts: the first in the manifest, in the manifest with the smallest id.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from snapferry.stores.address import SnapshotId
from snapferry.stores.bulk.union import Counted, ObjectUnion
from snapferry.stores.errors import ManifestTooLarge
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.manifest.syntax import LARGEST_SIZE
from snapferry.stores.runtime.bounds import bounds
from snapferry.stores.stream_store import StreamStore

from .reading import Unreadable, read_each

Progress = Callable[[int], None]
"""Called with the number of manifests that were read."""


@dataclass(frozen=True)
class Sizes:
    """
    The size of a snapshot or of a store.

    *files* are the files of all snapshots, and *logical_bytes* their sizes: what restoring each snapshot would write.
    *objects* are the distinct objects, and *physical_bytes* their sizes: what the store keeps. *shared* are the
    objects that several snapshots name, None where that was not asked.
    """

    snapshots: int
    files: int
    logical_bytes: int
    objects: int
    physical_bytes: int
    shared: Counted | None


@dataclass
class Counts:
    """What one manifest lists: its files, their bytes, and its distinct objects."""

    files: int = 0
    logical_bytes: int = 0
    objects: ObjectUnion = field(default_factory=ObjectUnion)


def count(manifest: Manifest) -> Counts:
    """Return what *manifest* lists. Raises as `Manifest.entries` does, and `ManifestTooLarge`."""
    found = Counts()
    for files in manifest.files():
        if not files.checksums:
            continue
        sizes = list(files.sizes(LARGEST_SIZE))
        found.files += len(sizes)
        found.logical_bytes += sum(sizes)
        found.objects.add(files.checksums, sizes)
        _check_bound(manifest.label, manifest.id, found.objects)
    return found


def snapshot_size(
    store: StreamStore, snapshot_id: SnapshotId, *, shared: bool = False, progress: Progress = lambda _: None
) -> Sizes:
    """
    Return the size of one snapshot. With *shared*, read all other manifests too.

    Raises what the store raises, `ManifestTooLarge` for more objects than `bounds().objects`.
    """
    with store.read_manifest(snapshot_id) as manifest:
        counts = count(manifest)
    counted = _shared(store, snapshot_id, counts.objects, progress) if shared else None
    return _sizes(1, counts.files, counts.logical_bytes, counts.objects, counted)


def store_size(store: StreamStore, progress: Progress = lambda _: None) -> Sizes:
    """Return the size of all snapshots of *store* together. Raises as `snapshot_size` does."""
    union = ObjectUnion()
    snapshots = files = logical_bytes = 0
    for snapshots, (_, counts) in enumerate(read_each(store, store.manifest_ids(), count), 1):
        if isinstance(counts, Unreadable):
            raise counts.error
        files += counts.files
        logical_bytes += counts.logical_bytes
        union.add_all(counts.objects)
        _check_bound(store.manifests_label, "", union)
        progress(snapshots)
    return _sizes(snapshots, files, logical_bytes, union, union.repeated())


def _sizes(
    snapshots: int, files: int, logical_bytes: int, objects: ObjectUnion, shared: Counted | None
) -> Sizes:
    total = objects.total()
    return Sizes(snapshots, files, logical_bytes, total.objects, total.size_bytes, shared)


def _shared(store: StreamStore, snapshot_id: SnapshotId, objects: ObjectUnion, progress: Progress) -> Counted:
    """Return those of *objects* that other snapshots than *snapshot_id* name."""
    named = ObjectUnion()
    ids = (each for each in store.manifest_ids() if each != snapshot_id)
    for number, (_, addresses) in enumerate(read_each(store, ids, Manifest.addresses), 1):
        if isinstance(addresses, Unreadable):
            raise addresses.error
        # Only those that the snapshot names: memory does not grow with the store.
        for chunk, sizes in objects.chunks():
            pairs = dict(zip(chunk, sizes, strict=True))
            found = addresses.among(chunk)
            named.add(found, map(pairs.__getitem__, found))
        progress(number)
    return named.total()


def _check_bound(label: str, subject: str, objects: ObjectUnion) -> None:
    if objects.exceeds(bounds().objects):
        raise ManifestTooLarge(
            label,
            subject,
            f"more than {bounds().objects:,} distinct objects are named here; set SNAPFERRY_MAX_PLAN_OBJECTS to allow"
            " more, at 90 bytes of memory each",
        )
