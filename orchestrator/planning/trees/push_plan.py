"""
Plan the push of a tree: walk through it, and make each file an object of the plan.

The walk is frozen by the digest of what it found. An orchestrator that walks again, because it has neither plan nor
listing, must find the same.
"""

from __future__ import annotations

from typing import Final

from snapferry.orchestrator.planning.plan import Plan, SourceChanged
from snapferry.orchestrator.planning.prepare import recalled, remember
from snapferry.orchestrator.planning.snapshots import PLANNED, Snapshots, freeze
from snapferry.stores.address import Address, SnapshotId, parse_address
from snapferry.stores.backends.tree.backend import TreeBackend
from snapferry.stores.backends.tree.exclude import excluder
from snapferry.stores.backends.tree.listing import TreeListing, list_tree
from snapferry.stores.backends.tree.objects import tree_of
from snapferry.stores.backends.tree.reading import LARGEST_KEPT_BYTES
from snapferry.stores.backends.tree.walk import Walk
from snapferry.stores.errors import ManifestTooLarge
from snapferry.stores.features import feature_of
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import MOST_FILES, Ledger
from snapferry.workers.messages import JobSpec

from . import listing_file
from .apart import check_pushable, stores_in
from .file_planner import FilePlanner

# The field of a job's record with the digest of its walk.
WALK: Final = "walk"


def prepare_push(
    ledger: Ledger, spec: JobSpec, source: StreamStore, destination: StreamStore
) -> tuple[Snapshots, Plan]:
    """
    Walk through the tree *source*, and plan all of its files.

    The job has one snapshot. Its id is not known before its files are read, so until then it is the digest of the walk.
    Raises `StoreError`. Nothing is recorded.
    """
    check_pushable(spec.source, spec.destination)
    listing = _walk(spec, source)
    listing_file.save(spec.job_id, listing)
    return _planned(spec, listing, source.label)


def freeze_push(spec: JobSpec, snapshots: Snapshots) -> dict[str, str | float]:
    """Return the fields of a job's record from which `recall_push` returns the same plan."""
    return freeze(spec, snapshots) | {WALK: snapshots.ids[0], "first_snapshot": ""}


def recall_push(ledger: Ledger, spec: JobSpec, source: StreamStore) -> tuple[Snapshots, Plan]:
    """Return the snapshot and the plan of a push. Raises `StoreError`, and `SourceChanged` if the tree changed."""
    snapshots = Snapshots([SnapshotId(walk_of(ledger, spec))], PLANNED)
    if (plan := recalled(spec, snapshots)) is not None:
        return snapshots, plan
    return _planned(spec, recall_listing(ledger, spec, source), source.label)


def recall_listing(ledger: Ledger, spec: JobSpec, source: StreamStore) -> TreeListing:
    """Return what the job's walk found. Raises as `recall_push`."""
    walk = walk_of(ledger, spec)
    if (found := listing_file.load(spec.job_id, walk)) is not None:
        return found
    listing = _walk(spec, source)
    if listing.digest() != walk:
        raise SourceChanged(
            f"the tree changed while the job ran: another walk through {source.label} found other names, sizes or"
            " permissions. Nothing was published. Push it when nothing writes to it"
        )
    listing_file.save(spec.job_id, listing)
    return listing


def walk_of(ledger: Ledger, spec: JobSpec) -> Address:
    """Return the digest of the job's walk."""
    return parse_address(ledger.field(spec.job_id, WALK))


def max_bytes(spec: JobSpec) -> int:
    """Return the most bytes of a batch of several files: a worker keeps them while it hashes and sends them."""
    return min(spec.batch_bytes, LARGEST_KEPT_BYTES)


def _walk(spec: JobSpec, source: StreamStore) -> TreeListing:
    tree = feature_of(tree_of(source, follow=spec.tree.follow), TreeBackend)
    assert tree is not None
    walk = Walk(
        tree.place,
        follow=spec.tree.follow,
        excluded=excluder(spec.tree.exclude),
        without=stores_in(spec.destination),
        jobs=spec.tree.walk_jobs,
    )
    return list_tree(walk, tree.label)


def _planned(spec: JobSpec, listing: TreeListing, label: str) -> tuple[Snapshots, Plan]:
    snapshots = Snapshots([SnapshotId(listing.digest())], PLANNED)
    planner = FilePlanner(
        max_objects=spec.batch_objects,
        max_bytes=max_bytes(spec),
        batches=spec.group_batches,
        evenly=spec.by_newer_rules,
    )
    for columns in listing.columns():
        files = columns.files()
        planner.add_many(files.paths, files.paths, list(map(int, files.lengths)))
        if planner.files > MOST_FILES:
            raise ManifestTooLarge(
                label, "", f"has more than {MOST_FILES:,} files, the most of one job; push parts of it"
            )
    return snapshots, remember(spec, snapshots, planner.finish())
