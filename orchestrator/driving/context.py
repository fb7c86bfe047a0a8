"""What the steps of one drive share: the job's request, its stores, its snapshots and its plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from celery import Celery

from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.snapshots import Snapshots
from snapferry.stores.access import AccessPolicy, Right
from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.fallback import WithFallback
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.urls import check_on_server
from snapferry.workers.copying.describe import describe_snapshots
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import JobSpec, StoreRef


@dataclass(frozen=True)
class Drive:
    """One drive of a job, before its plan is known."""

    app: Celery
    ledger: Ledger
    spec: JobSpec
    source: StreamStore
    destination: StreamStore

    @property
    def job_id(self) -> str:
        return self.spec.job_id

    @property
    def catalogue(self) -> StreamStore:
        """The store whose snapshots the job is about."""
        return self.destination if self.spec.action.at_destination else self.source


@dataclass(frozen=True)
class PlannedDrive(Drive):
    """One drive of a job whose plan is known."""

    snapshots: Snapshots
    plan: Plan

    def snapshots_of(self, batch: int) -> str:
        """Return the snapshots of a batch's group in words, for the descriptions of tasks; "" for an unknown batch."""
        for group in self.plan.groups:
            if batch in group.batches:
                return describe_snapshots(self.snapshots.ids[group.snapshots[0]], len(group.snapshots))
        return ""


def planned(drive: Drive, snapshots: Snapshots, plan: Plan) -> PlannedDrive:
    """Return *drive* with the job's plan."""
    return PlannedDrive(drive.app, drive.ledger, drive.spec, drive.source, drive.destination, snapshots, plan)


def open_stores(spec: JobSpec, access: AccessPolicy, *, create: bool) -> tuple[StreamStore, StreamStore]:
    """
    Open source and destination of a job, for what the job does to them.

    *create*: make a directory that does not exist. Raises `InvalidStoreURL`, also where a job would write to its
    source, or has a tree in the place of a store, and `NotAllowed`.
    """
    deletes = spec.prune is not None and not spec.dry_run
    rights = [Right.WRITE if spec.action.writes else Right.READ, *([Right.DELETE] if deletes else [])]
    source, destination = spec.source, spec.destination
    for side, ref in (("source", source), ("destination", destination)):
        if ref.parsed.kind.is_tree != (spec.action.tree_side == side):
            found, wanted = ("a tree", "a store") if ref.parsed.kind.is_tree else ("a store", "a tree")
            raise InvalidStoreURL(ref.url.partition("?")[0], "", f"is {found}, and this job needs {wanted}")
    if spec.action.writes and source.parsed.same_place(destination.parsed):
        raise InvalidStoreURL(source.url, "", "source and destination are the same store")
    if spec.server_side:
        check_on_server(*(side.parsed_objects or side.parsed for side in (source, destination)))
    opened = open_store(destination.parsed, destination.parsed_objects, *rights, access=access, create=create)
    return (
        open_store(source.parsed, source.parsed_objects, Right.READ, access=access, create=create),
        _with_fallback(spec, opened, access),
    )


def open_catalogue(spec: JobSpec, access: AccessPolicy) -> StreamStore:
    """Open the store whose snapshots a job is about, to read manifests. Raises `InvalidStoreURL`, `NotAllowed`."""
    where = spec.catalogue
    opened = open_store(where.parsed, where.parsed_objects, Right.READ, access=access)
    return _with_fallback(spec, opened, access)


def _with_fallback(spec: JobSpec, destination: SnapshotStore, access: AccessPolicy) -> StreamStore:
    """Return *destination*; for a job about its snapshots, one whose missing manifests come from the job's sources."""
    if not spec.action.at_destination:
        return destination

    def opening(ref: StoreRef) -> Callable[[], StreamStore]:
        return lambda: open_store(ref.parsed, ref.parsed_objects, Right.READ, access=access)

    return WithFallback(destination, [opening(ref) for ref in (spec.source, *spec.more_sources)])
