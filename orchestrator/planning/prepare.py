"""
From the request to a plan: choose and order the snapshots, read their manifests, plan.

The answers of the stores are frozen in the ledger, so that another orchestrator computes the same plan.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from snapferry.stores.address import SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import (
    AccessDenied,
    IntegrityError,
    KeyMissing,
    ManifestSyntaxError,
    ManifestTooLarge,
    SourceEmpty,
    StoreError,
    StoreFault,
)
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.known_lines import KnownLines
from snapferry.stores.runtime.bounds import bounds
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.copying.words import WORDS
from snapferry.workers.ledger import PLAN, Ledger, set_bits
from snapferry.workers.messages import JobSpec, Order

from . import plan_file
from .gather import Objects
from .plan import Plan, SourceChanged
from .planner import Planner
from .scope import within
from .snapshots import PLANNED, TRUSTED, UNREADABLE, Snapshots, read_snapshots

if TYPE_CHECKING:
    # It imports NumPy, which takes longer than to plan a small job.
    from snapferry.stores.bulk.tables import ObjectTable

# Errors of one manifest that tell nothing about the others.
OF_ONE = (AccessDenied, IntegrityError, KeyMissing, ManifestSyntaxError, ManifestTooLarge, StoreFault)

# A job with a bound of bytes has about so many batches within it, but none smaller than this.
BATCHES_OF_A_BOUND: Final = 100
SMALLEST_BATCH_BYTES: Final = 1024 * 1024

# The most objects, in all, of the plans that a process keeps in memory. The last plan is kept whatever its size.
REMEMBERED_OBJECTS = 1_000_000
# The most plans that a process keeps. Each is a mapped file, and another process may have ended its job.
REMEMBERED_PLANS: Final = 32

_remembered: OrderedDict[tuple[str, str], Plan] = OrderedDict()


class Growing(Protocol):
    """What is told of a plan while later manifests are still read."""

    def due(self) -> bool:
        """Return whether to call `grow` now."""

    def grow(self, snapshots: Snapshots, plan: Plan) -> None:
        """
        Use the groups that are planned so far. Later snapshots change nothing of them.

        *snapshots* has the kinds of those up to the last group.
        """


def prepare(
    ledger: Ledger,
    spec: JobSpec,
    source: StreamStore,
    destination: StreamStore,
    *,
    around: bool = False,
    growing: Growing | None = None,
) -> tuple[Snapshots, Plan]:
    """
    Choose and order the snapshots, read their manifests, and plan to copy their objects.

    A manifest that cannot be used makes its snapshot unreadable, and the others are planned. Raises `StoreError` where
    a store does not answer, and for the unusable manifest of a job's only snapshot; `SourceEmpty` where everything
    was requested and the source lists nothing. Nothing is recorded.

    With *around*, parts of *source* that cannot be listed are noted, and the others are planned. *growing* is told of
    the plan while it grows.
    """
    snapshots = _chosen(spec, source, around=around)
    trusted = destination.manifests_present(snapshots.ids) if spec.trust_manifest else set()
    found = _plan(spec, source, snapshots, _planner(ledger, spec, source), trusted, growing)
    if snapshots.kinds == UNREADABLE and (error := snapshots.errors.get(0)):
        raise error
    return found


def prepare_rest(
    ledger: Ledger, spec: JobSpec, source: StreamStore, destination: StreamStore, growing: Growing
) -> tuple[Snapshots, Plan]:
    """
    Plan the rest of a job whose first groups were recorded by an orchestrator that died while it planned.

    These groups and their batches are the same again. Raises as `prepare` does, and `SourceChanged`.
    """
    snapshots = read_snapshots(ledger, spec)
    rest = snapshots.ids[len(snapshots.kinds) :]
    trusted = destination.manifests_present(rest) if spec.trust_manifest else set()
    return _plan(spec, source, snapshots, _planner(ledger, spec, source), trusted, growing)


def _chosen(spec: JobSpec, source: StreamStore, *, around: bool) -> Snapshots:
    """Return the job's snapshots, in its order. Raises `SourceEmpty`."""
    found = Snapshots([])
    found.ids = ids = _ordered(spec, source, found.note_unlisted if around else None)
    if spec.everything and not ids and not spec.allow_empty_source and not found.unlisted:
        # A scrub has no such option.
        advice = "" if spec.scrub is not None else WORDS[spec.action].if_empty
        said = "lists no manifest at all, so nothing was done"
        raise SourceEmpty(source.manifests_label, "", f"{said}. {advice}" if advice else said)
    return found


def _plan(
    spec: JobSpec,
    source: StreamStore,
    snapshots: Snapshots,
    planner: Planner,
    trusted: Collection[SnapshotId] = (),
    growing: Growing | None = None,
) -> tuple[Snapshots, Plan]:
    """
    Read the manifests of *snapshots*, note what was found in it, and plan. Raises as `prepare` does.

    Those with a kind are planned as before, and raise `SourceChanged` if that is not possible.
    """
    known = KnownLines()
    _add_planned(spec, source, snapshots, planner, known)
    kinds = list(snapshots.kinds)
    for index in range(len(kinds), len(snapshots.ids)):
        checkpoint()
        snapshot_id = snapshots.ids[index]
        if snapshot_id in trusted:
            kinds.append(TRUSTED)
            continue
        try:
            objects = _objects(spec, source, snapshot_id, known)
        except OF_ONE as error:
            kinds.append(UNREADABLE)
            snapshots.note(index, error)
            continue
        kinds.append(PLANNED)
        planner.add(index, objects)
        if planner.objects > bounds().objects:
            raise ManifestTooLarge(
                source.label,
                "",
                f"the snapshots of the job name more than {bounds().objects:,} distinct objects. Choose fewer snapshots"
                " for one job, or set SNAPFERRY_MAX_PLAN_OBJECTS to allow more, at 90 bytes of memory each",
            )
        if growing is not None and planner.closed and growing.due():
            snapshots.kinds = "".join(kinds)
            growing.grow(snapshots, planner.plan)
    snapshots.kinds = "".join(kinds)
    return snapshots, remember(spec, snapshots, planner.finish())


def recall(ledger: Ledger, spec: JobSpec, source: StreamStore) -> tuple[Snapshots, Plan]:
    """
    Return the snapshots and the plan of a job that was prepared before, maybe by another orchestrator.

    Raises `StoreError`, and `SourceChanged` if the source has lost a manifest since.
    """
    snapshots = read_snapshots(ledger, spec)
    plan = recalled(spec, snapshots)
    if plan is not None:
        return snapshots, plan
    return _plan_again(spec, source, snapshots, _planner(ledger, spec, source))


def _plan_again(
    spec: JobSpec, source: StreamStore, snapshots: Snapshots, planner: Planner
) -> tuple[Snapshots, Plan]:
    _add_planned(spec, source, snapshots, planner, KnownLines())
    return snapshots, remember(spec, snapshots, planner.finish())


def _add_planned(
    spec: JobSpec, source: StreamStore, snapshots: Snapshots, planner: Planner, known: KnownLines
) -> None:
    """Add the snapshots that were planned before. Raises `SourceChanged`."""
    for index in snapshots.of(PLANNED):
        try:
            planner.add(index, _objects(spec, source, snapshots.ids[index], known))
        except OF_ONE as error:
            raise SourceChanged(f"the source changed while the job ran: {error}") from error


def prepare_check(
    ledger: Ledger, spec: JobSpec, store: StreamStore, destination: StreamStore
) -> tuple[Snapshots, Plan]:
    """
    As `prepare`, for a job that looks at all objects of snapshots of *store*, in the order of their addresses.

    Every manifest that cannot be used, and every part of the store that cannot be listed, is a finding of the job. A
    snapshot that was withdrawn since it was listed is left out.
    """
    snapshots = _chosen(spec, store, around=True)
    found = _plan(spec, store, snapshots, _check_planner(ledger, spec, store))
    gone = {index for index, error in snapshots.errors.items() if isinstance(error, KeyMissing)}
    if spec.everything and gone:
        listed = store.list_manifests(skip=lambda _: None)
        if withdrawn := {index for index in gone if snapshots.ids[index] not in listed}:
            kept = [id_ for index, id_ in enumerate(snapshots.ids) if index not in withdrawn]
            left = Snapshots(kept, unlisted=snapshots.unlisted)
            return _plan(spec, store, left, _check_planner(ledger, spec, store))
    return found


def recall_check(ledger: Ledger, spec: JobSpec, store: StreamStore) -> tuple[Snapshots, Plan]:
    """As `recall`, for a job that `prepare_check` prepared."""
    snapshots = read_snapshots(ledger, spec)
    plan = recalled(spec, snapshots)
    if plan is not None:
        return snapshots, plan
    return _plan_again(spec, store, snapshots, _check_planner(ledger, spec, store))


def forget(job_id: str) -> None:
    """Forget the plan of a job that has ended. `recall` can still compute it again."""
    for key in [key for key in _remembered if key[0] == job_id]:
        del _remembered[key]
    plan_file.forget(job_id)


def failed_addresses(ledger: Ledger, job_id: str, plan: Plan) -> AddressSet:
    """Return the addresses of all objects that failed in a job."""
    found = AddressSet()
    positions = set_bits(ledger.bitmap(job_id, "failed"))
    while some := list(islice(positions, 10_000)):
        checkpoint()
        found.update([plan.address(position) for position in some])
    return found


def _objects(
    spec: JobSpec, source: StreamStore, snapshot_id: str, known: KnownLines
) -> Objects | ObjectTable:
    with source.read_manifest(snapshot_id) as manifest:
        return within(spec.scope, manifest.table() if manifest.large else known.objects(manifest))


def _planner(ledger: Ledger, spec: JobSpec, source: StreamStore) -> Planner:
    return Planner(
        max_objects=spec.batch_objects,
        max_bytes=spec.batch_bytes,
        batches=spec.group_batches,
        evenly=spec.by_newer_rules,
        only=_only(ledger, spec, source),
    )


def _only(ledger: Ledger, spec: JobSpec, source: StreamStore) -> AddressSet | None:
    """
    Return the only objects that a job copies: those that failed in the job that it retries. None: all objects.

    Both jobs have the same *source*.
    """
    if not spec.retries:
        return None
    retried = ledger.spec(spec.retries)
    _, plan = recall(ledger, retried, source)
    return failed_addresses(ledger, spec.retries, plan)


def _check_planner(ledger: Ledger, spec: JobSpec, store: StreamStore) -> Planner:
    max_bytes = spec.batch_bytes
    if spec.verify.max_bytes is not None:
        # A batch that has begun is read to its end. So the batches of a small job are small.
        max_bytes = min(max_bytes, max(SMALLEST_BATCH_BYTES, spec.verify.max_bytes // BATCHES_OF_A_BOUND))
    return Planner(
        max_objects=spec.batch_objects,
        max_bytes=max_bytes,
        batches=spec.group_batches,
        evenly=spec.by_newer_rules,
        only=_only_left(ledger, spec, store),
        by_address=True,
    )


def _only_left(ledger: Ledger, spec: JobSpec, store: StreamStore) -> AddressSet | None:
    """
    Return the only objects that a job looks at: those that failed in the job that it retries, and those that the job
    that it resumes has not found intact. None: all objects.
    """
    before = spec.retries or spec.resumes
    if not before or not ledger.field(before, "kinds"):
        return None
    _, plan = recall_check(ledger, ledger.spec(before), store)
    found = failed_addresses(ledger, before, plan)
    if spec.resumes:
        for number in ledger.unaccounted(before, PLAN, range(plan.batches)):
            checkpoint()
            found.update(plan.batch(number).objects)
    return found


def _ordered(
    spec: JobSpec, source: StreamStore, skip: Callable[[StoreError], None] | None
) -> list[SnapshotId]:
    """Return the ids of the job's snapshots, in the order of publishing. *skip* as for `StreamStore.list_manifests`."""
    if not spec.everything and spec.order is Order.GIVEN:
        return spec.snapshot_ids
    listed = source.list_manifests(skip=skip) if spec.everything or spec.order is Order.NEWEST else {}
    ids = list(listed) if spec.everything else spec.snapshot_ids
    if spec.order is Order.NEWEST:
        # A snapshot that the source does not list has no time. It is found missing when it is read.
        return sorted(ids, key=lambda id_: -listed[id_].modified if id_ in listed else 0.0)
    if spec.order is Order.SMALLEST:
        known = KnownLines()
        return sorted(ids, key=lambda id_: _bytes_of(spec, source, id_, known))
    return ids


def _bytes_of(spec: JobSpec, source: StreamStore, snapshot_id: str, known: KnownLines) -> int:
    try:
        objects = _objects(spec, source, snapshot_id, known)
    except OF_ONE:
        return 0
    return sum(objects.values()) if isinstance(objects, Mapping) else objects.size_bytes


def _key(spec: JobSpec, snapshots: Snapshots) -> tuple[str, str]:
    """Return the key of a job's plan: all that it follows from. A job that is prepared twice may differ."""
    made_of = json.dumps([spec.model_dump_json(), snapshots.ids, snapshots.kinds])
    return spec.job_id, digest(made_of.encode())


def recalled(spec: JobSpec, snapshots: Snapshots) -> Plan | None:
    """Return the plan of a job if this machine has it, else None. Asks no store."""
    key = _key(spec, snapshots)
    plan = _remembered.get(key) or plan_file.load(*key)
    return None if plan is None else _keep(key, plan)


def remember(spec: JobSpec, snapshots: Snapshots, plan: Plan) -> Plan:
    """Keep the plan of a job on this machine, for `recalled`; return it."""
    key = _key(spec, snapshots)
    return _keep(key, plan_file.save(*key, plan))


def _keep(key: tuple[str, str], plan: Plan) -> Plan:
    _remembered[key] = plan
    _remembered.move_to_end(key)
    while len(_remembered) > REMEMBERED_PLANS or (
        len(_remembered) > 1 and sum(p.objects for p in _remembered.values()) > REMEMBERED_OBJECTS
    ):
        _remembered.popitem(last=False)
    return plan
