"""
Checks of the source and the destination before a copy.

Probes are deleted (`round_trip`). These checks apply to any store; a backend adds those of its kind (`Diagnosable`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from hashlib import sha256
from itertools import islice
from typing import Final

from snapferry.stores.address import (
    MANIFESTS,
    SnapshotId,
    address_of,
    manifest_key,
    parse_snapshot_id,
)
from snapferry.stores.backend import Backend
from snapferry.stores.errors import AccessDenied, StoreError, StoreNotFound
from snapferry.stores.features import FiniteSpace, feature_of, innermost
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.text.format import counted, size

from .diagnosable import Diagnosable
from .findings import Finding, Level, clock_finding
from .round_trip import FOLDER, refused, round_trip

# One page of a listing is enough.
FEW: Final = 1000

# An object up to this length is read and hashed. Of a longer one only the beginning is read.
READ_BYTES: Final = 1024 * 1024


def probe_source(store: SnapshotStore, snapshot_ids: Sequence[str] = ()) -> Iterator[Finding]:
    """
    Check that a source can be read: list its manifests, and read one of them and one object.

    With *snapshot_ids*, read those manifests and verify them. Writes nothing. Never raises `StoreError`.
    """
    answers = list(_answers(store, for_writing=False))
    yield from answers
    if any(finding.level is Level.ERROR for finding in answers):
        return
    try:
        page = [
            (found.size, found.key, SnapshotId(address))
            for found in islice(store.manifests.keys(MANIFESTS), FEW)
            if (address := address_of(found.key, MANIFESTS))
        ]
    except StoreError as error:
        yield refused("source.list", "its manifests cannot be listed", error)
        return
    seen = sha256("".join(snapshot_id for _, _, snapshot_id in page).encode()).hexdigest()[:16]
    if page:
        count = counted(len(page), "snapshot") + " or more" * (len(page) == FEW)
        yield Finding(Level.OK, "source.list", f"lists {count}", value=seen)
    else:
        yield Finding(
            Level.WARNING,
            "source.list",
            "holds no snapshot",
            "check the path or prefix of the URL",
            value=seen,
        )
    smallest = [min(page)[2]] if page else []
    for snapshot_id in snapshot_ids or smallest:
        yield from _read_snapshot(store, snapshot_id, requested=bool(snapshot_ids))
    for backend, _ in store.pools:
        yield from _probe(backend, (), for_writing=False)


def probe_destination(store: SnapshotStore) -> Iterator[Finding]:
    """
    Check that a copy can write to a destination. Never raises `StoreError`.

    Writes a few bytes in a folder of their own, and deletes them.
    """
    answers = list(_answers(store, for_writing=True))
    yield from answers
    if any(finding.level is Level.ERROR for finding in answers):
        return
    for backend, spaces in store.pools:
        yield from _probe(backend, spaces, for_writing=True)


def probe_pair(
    source: SnapshotStore, destination: SnapshotStore, snapshot_ids: Sequence[str] = ()
) -> Iterator[Finding]:
    """
    Check both stores together: whether objects can be cloned, and whether *snapshot_ids* fit the destination.

    Never raises `StoreError`. Yields nothing where a store does not answer: its own check has reported that.
    """
    try:
        sample = _sample(source, snapshot_ids)
        if sample:
            diagnosable = feature_of(destination.objects, Diagnosable)
            if diagnosable is not None:
                yield from diagnosable.probe_beside(innermost(source.manifests), sample)
        if snapshot_ids:
            yield from _fits(source, destination, snapshot_ids)
    except StoreError as error:
        yield Finding(Level.NOTE, "pair", f"the stores cannot be compared: {error.detail}")


def _answers(store: SnapshotStore, *, for_writing: bool) -> Iterator[Finding]:
    for backend, _ in store.pools:
        try:
            backend.check(for_writing=for_writing)
        except StoreNotFound as error:
            advice = "create it, or correct the URL"
            if error.store.startswith("file:"):
                advice = "create it, mount it, or correct the URL"
            yield Finding(Level.ERROR, "store.answers", f"{error.store}: {error.detail}", advice)
            continue
        except StoreError as error:
            advice = "check its address, that it runs, and that no firewall blocks it"
            if isinstance(error, AccessDenied):
                advice = "check the credentials and their permissions"
                if error.store.startswith("file:"):
                    advice = "check the directory's owner and mode"
            yield Finding(Level.ERROR, "store.answers", f"{error.store}: {error.detail}", advice)
            if not isinstance(error, AccessDenied):
                continue
        else:
            yield Finding(Level.OK, "store.answers", f"{backend.label} answers")
        yield from _clock(backend)


def _probe(backend: Backend, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
    diagnosable = feature_of(backend, Diagnosable)
    if diagnosable is not None:
        yield from diagnosable.probe(spaces, for_writing=for_writing)
    elif for_writing:
        for space in spaces:
            yield from round_trip(backend, space + FOLDER, space.strip("./"))


def _clock(backend: Backend) -> Iterator[Finding]:
    before = time.time()
    diagnosable = feature_of(backend, Diagnosable)
    there = None if diagnosable is None else diagnosable.clock()
    if there is not None:
        yield clock_finding("the store", there, (before, time.time()))


def _read_snapshot(store: SnapshotStore, snapshot_id: str, *, requested: bool) -> Iterator[Finding]:
    """Read a manifest and the smallest object that its first lines name."""
    try:
        with store.read_manifest(snapshot_id) as manifest:
            first = next(manifest.files(), None)
            smallest = (
                min(zip(first.sizes(1 << 62), first.checksums, strict=True))
                if first and first.checksums
                else None
            )
            much = f", with {size(_bytes_of(manifest))} of objects" if requested else ""
    except StoreError as error:
        name = type(error).__name__
        yield Finding(
            Level.ERROR,
            "source.manifest",
            f"the manifest {snapshot_id} cannot be read: {error.detail} ({name})",
            "use another snapshot, or repair the source" if requested else "repair the source",
        )
        return
    yield Finding(
        Level.OK, "source.manifest", f"the manifest {snapshot_id[:12]}… can be read and is intact{much}"
    )
    if smallest is None:
        return
    length, address = smallest
    try:
        if length <= READ_BYTES:
            store.get_object(address)
        else:
            with store.open_object(address, size_hint=length) as reader:
                reader.read(READ_BYTES)
    except StoreError as error:
        yield Finding(
            Level.ERROR,
            "source.object",
            f"the object {address} of that snapshot cannot be read: {error.detail} ({type(error).__name__})",
            "check the permissions of the objects; a snapshot whose objects are missing cannot be copied",
        )
        return
    yield Finding(
        Level.OK,
        "source.object",
        f"one of its objects can be read{' and is intact' * (length <= READ_BYTES)}",
    )


def _sample(source: SnapshotStore, snapshot_ids: Sequence[str]) -> str:
    """Return the key of any manifest, "" where there is none."""
    if snapshot_ids:
        return manifest_key(parse_snapshot_id(snapshot_ids[0]))
    found = next(iter(source.manifests.keys(MANIFESTS)), None)
    return found.key if found else ""


def _bytes_of(manifest: Manifest) -> int:
    return manifest.table().size_bytes if manifest.large else sum(manifest.objects().values())


def _fits(
    source: SnapshotStore, destination: SnapshotStore, snapshot_ids: Sequence[str]
) -> Iterator[Finding]:
    """
    Compare the size of snapshots with the free space of the destination, if it knows that.

    An object that several snapshots share counts for each of them, so the size may be too large. Only if the snapshots
    might not fit is the destination asked which objects it has, and not for huge manifests: that takes a plan.
    """
    space = feature_of(destination.objects, FiniteSpace)
    free = None if space is None else space.free_bytes()
    if free is None:
        return
    needed = 0
    for snapshot_id in snapshot_ids:
        with source.read_manifest(snapshot_id) as manifest:
            needed += _bytes_of(manifest)
    said = f"the snapshots take {size(needed)}, {size(free)} is free"
    if needed <= free:
        yield Finding(Level.OK, "pair.space", said)
        return
    missing = 0
    for snapshot_id in snapshot_ids:
        with source.read_manifest(snapshot_id) as manifest:
            if manifest.large:
                yield Finding(
                    Level.WARNING, "pair.space", said, "to see what is missing, run: snapferry plan"
                )
                return
            objects = manifest.objects()
        missing += sum(objects[address] for address in destination.objects_needed(sorted(objects)))
    said = f"the missing objects of the snapshots take {size(missing)}, {size(free)} is free"
    if missing <= free:
        yield Finding(Level.OK, "pair.space", said)
    else:
        yield Finding(
            Level.ERROR, "pair.space", said, "free some space at the destination, or copy fewer snapshots"
        )
