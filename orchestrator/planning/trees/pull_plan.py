"""Plan the pull of a snapshot: each of its files is an object of the plan, and the tree has them or not."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import count, islice
from typing import Final

from snapferry.orchestrator.planning.plan import Plan, SourceChanged
from snapferry.orchestrator.planning.prepare import OF_ONE, recalled, remember
from snapferry.orchestrator.planning.snapshots import PLANNED, Snapshots, read_snapshots
from snapferry.stores.address import Address
from snapferry.stores.backends.tree.writing.opened import target_of
from snapferry.stores.backends.tree.writing.target import TreeTarget
from snapferry.stores.backends.tree.writing.temporary import temporary_name
from snapferry.stores.errors import InvalidStoreURL, ManifestTooLarge, StoreFault
from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES, Manifest
from snapferry.stores.manifest.tree_entries import TreeEntry, tree_entries
from snapferry.stores.manifest.tree_lines import tree_columns
from snapferry.stores.pools.files import stage_file
from snapferry.stores.runtime.bounds import bounds
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import JobSpec
from snapferry.workers.messages.files import line_of, lines_of

from .apart import check_apart
from .file_planner import FilePlanner

_FILES_AT_ONCE: Final = 1000


def prepare_pull(
    ledger: Ledger, spec: JobSpec, source: StreamStore, destination: StreamStore
) -> tuple[Snapshots, Plan]:
    """
    Check the manifest of the job's only snapshot, make the root of the tree, and plan all files.

    Raises `ManifestSyntaxError` for a manifest that no tree can be made of, before anything is written, and what either
    side raises. A dry run writes nothing. Nothing is recorded.
    """
    if spec.everything or len(spec.snapshot_ids) != 1:
        raise InvalidStoreURL("", spec.destination.url, "a tree is made of one snapshot")
    check_apart(spec.source, spec.destination)
    snapshots = Snapshots(spec.snapshot_ids, PLANNED)
    with source.read_manifest(snapshots.ids[0]) as manifest:
        plan = _planned(spec, manifest)
        if not spec.dry_run:
            target_of(destination).prepare(tree_entries(manifest))
            if spec.tree.linked:
                _check_links(manifest, source, target_of(destination, linked=True))
    return snapshots, remember(spec, snapshots, plan)


def recall_pull(ledger: Ledger, spec: JobSpec, source: StreamStore) -> tuple[Snapshots, Plan]:
    """Return the snapshot and the plan of a pull. Raises `StoreError`, and `SourceChanged` if the manifest is gone."""
    snapshots = read_snapshots(ledger, spec)
    if (plan := recalled(spec, snapshots)) is not None:
        return snapshots, plan
    try:
        with source.read_manifest(snapshots.ids[0]) as manifest:
            return snapshots, remember(spec, snapshots, _planned(spec, manifest))
    except OF_ONE as error:
        raise SourceChanged(f"the source changed while the job ran: {error}") from error


def _check_links(manifest: Manifest, source: StreamStore, target: TreeTarget) -> None:
    """Make sure that a file of the tree can share its bytes with the store. Raises `StoreFault`; leaves nothing."""
    smallest = min(_files(manifest), key=lambda file: file.size, default=None)
    if smallest is not None:
        name = temporary_name()
        try:
            stage_file(source, target, smallest._replace(path=name))[0].abort()
        except StoreFault as error:
            if error.subject != f"./{name}":
                raise
            raise StoreFault(error.store, f"./{smallest.path}", error.detail) from error


def _planned(spec: JobSpec, manifest: Manifest) -> Plan:
    planner = _planner(spec)
    objects: set[Address] = set()
    for columns in tree_columns(manifest):
        files = columns.files()
        objects.update(files.checksums)
        sizes = files.sizes
        if max(sizes, default=0) > LARGEST_PLANNED_BYTES:
            sizes = [min(size, LARGEST_PLANNED_BYTES) for size in sizes]
        planner.add_many(files.paths, lines_of(files), sizes)
        _check_count(planner, manifest)
        if len(objects) < planner.files:
            # Some files have one object, so the order is another.
            return _planned_by_object(spec, manifest)
    return planner.finish()


def _planned_by_object(spec: JobSpec, manifest: Manifest) -> Plan:
    planner, last = _planner(spec), None
    files = _by_object(manifest)
    while some := list(islice(files, _FILES_AT_ONCE)):
        checkpoint()
        for file in some:
            size = min(file.size, LARGEST_PLANNED_BYTES)
            planner.add(f"./{file.path}".encode(), line_of(file), size, repeats=file.address == last)
            last = file.address
        _check_count(planner, manifest)
    return planner.finish()


def _planner(spec: JobSpec) -> FilePlanner:
    return FilePlanner(
        max_objects=spec.batch_objects,
        max_bytes=spec.batch_bytes,
        batches=spec.group_batches,
        evenly=spec.by_newer_rules,
    )


def _check_count(planner: FilePlanner, manifest: Manifest) -> None:
    most = bounds().objects
    if planner.files > most:
        raise ManifestTooLarge(
            manifest.label,
            manifest.id,
            f"the manifest names more than {most:,} files; set SNAPFERRY_MAX_PLAN_OBJECTS to"
            " allow more, at 400 bytes of memory each",
        )


def _by_object(manifest: Manifest) -> Iterator[TreeEntry]:
    """
    Yield the files of *manifest* in its order, but all files of one object at the place of the first of them.

    Then they are in one batch, and the object is read once. The longest comes first: a followed link is listed with its
    own length.
    """
    first: dict[Address, int] = {}
    order = array("Q")
    for columns in manifest.files():
        order.extend(map(first.setdefault, columns.checksums, count(len(order))))
    first.clear()
    files = list(_files(manifest))
    for number in sorted(range(len(order)), key=lambda number: (order[number], -files[number].size)):
        yield files[number]


def _files(manifest: Manifest) -> Iterator[TreeEntry]:
    return (entry for entry in tree_entries(manifest) if not entry.is_folder)
