"""
From what was asked for to a plan: which snapshots, in which order, and what of them is planned.

What the stores answer is frozen in the ledger, because the plan must come out
the same when another orchestrator computes it again.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from snapferry.stores.address import SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import (
    AccessDenied,
    IntegrityError,
    KeyMissing,
    ManifestSyntaxError,
    ManifestTooLarge,
    SourceEmpty,
    StoreFault,
)
from snapferry.stores.hashing import digest
from snapferry.stores.runtime.bounds import bounds
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.text.printable import shortened
from snapferry.workers.copying.commit import LONGEST_REASON
from snapferry.workers.ledger import Ledger, set_bits
from snapferry.workers.messages import JobSpec, Order, decode_snapshot_ids, encode_addresses

from . import plan_file
from .gather import Objects
from .plan import Plan
from .planner import Planner

if TYPE_CHECKING:
    from snapferry.stores.bulk.tables import ObjectTable

PLANNED, TRUSTED, UNREADABLE = ".", "t", "x"

# What can be wrong with one manifest and say nothing of the others.
OF_ONE = (AccessDenied, IntegrityError, KeyMissing, ManifestSyntaxError, ManifestTooLarge, StoreFault)

# Reasons are kept for so many unreadable manifests of a job.
REASONS_KEPT = 100

# Plans of so many objects in all are remembered by a process, and the last one anyway.
REMEMBERED_OBJECTS = 1_000_000

_remembered: OrderedDict[tuple[str, str], Plan] = OrderedDict()


class SourceChanged(Exception):
    """The source no longer has what the plan was made of; the message says what."""


@dataclass
class Snapshots:
    """
    The snapshots of a job, in its order.

    *kinds* has a letter for each: planned, trusted (its manifest is at the
    destination and that is taken for enough), or unreadable; *reasons* says why, index -> words.
    """

    ids: list[SnapshotId]
    kinds: str = ""
    reasons: dict[int, str] = field(default_factory=dict)

    def of(self, kind: str) -> list[int]:
        """Return the indexes of the snapshots of a kind."""
        return [index for index, found in enumerate(self.kinds) if found == kind]


def read_snapshots(ledger: Ledger, spec: JobSpec) -> Snapshots:
    """Return what `freeze` put into the job's record; before that, the snapshots as they were asked for."""
    job_id = spec.job_id
    ids = decode_snapshot_ids(ledger.field(job_id, "ids")) if spec.everything else spec.snapshot_ids
    if order := ledger.field(job_id, "order"):
        ids = [ids[index] for index in json.loads(order)]
    reasons = json.loads(ledger.field(job_id, "reasons") or "{}")
    return Snapshots(
        ids,
        ledger.field(job_id, "kinds"),
        {int(index): reason for index, reason in reasons.items()},
    )


def prepare(
    ledger: Ledger, spec: JobSpec, source: StreamStore, destination: StreamStore
) -> tuple[Snapshots, Plan]:
    """
    Choose and order the snapshots, read their manifests, and plan.

    Raises `StoreError` where a store gives no answer, and where the only
    snapshot of a job has no manifest that can be used: of several, such a one
    is left out, as unreadable. `SourceEmpty` where everything was asked for, and there is nothing. Nothing was
    recorded then.
    """
    snapshots = Snapshots(_ordered(spec, source))
    if spec.everything and not snapshots.ids and not spec.allow_empty_source:
        raise SourceEmpty(
            source.manifests_label,
            "",
            "lists no manifest at all, so nothing was copied or deleted; see that the URL is right and its disk"
            " mounted. If the source may be empty, give --allow-empty-source (a mirror: allow-empty-source = true)",
        )
    trusted = destination.manifests_present(snapshots.ids) if spec.trust_manifest else set()
    planner = _planner(ledger, spec, source)
    kinds = []
    for index, snapshot_id in enumerate(snapshots.ids):
        checkpoint()
        if snapshot_id in trusted:
            kinds.append(TRUSTED)
            continue
        try:
            objects = _objects(source, snapshot_id)
        except OF_ONE as error:
            if len(snapshots.ids) == 1:
                raise
            kinds.append(UNREADABLE)
            if len(snapshots.reasons) < REASONS_KEPT:
                snapshots.reasons[index] = shortened(f"{type(error).__name__}: {error}", LONGEST_REASON)
            continue
        kinds.append(PLANNED)
        planner.add(index, objects)
        if planner.objects > bounds().objects:
            raise ManifestTooLarge(
                source.label,
                "",
                f"the snapshots of the job name more than {bounds().objects:,} distinct objects; copy fewer of them in"
                " one job, or set SNAPFERRY_MAX_PLAN_OBJECTS to allow more, at 90 bytes of memory each",
            )
    snapshots.kinds = "".join(kinds)
    return snapshots, _remember(spec, snapshots, planner.finish())


def freeze(spec: JobSpec, snapshots: Snapshots) -> dict[str, str | float]:
    """
    Return the fields of a job's record that hold its snapshots.

    The ids are most of a record, so those of the spec are not kept again: only their order, if it is another.
    """
    ids = spec.snapshot_ids
    fields: dict[str, str | float] = {}
    if spec.everything:
        fields["ids"] = encode_addresses(snapshots.ids)
    elif ids != snapshots.ids:
        place = {snapshot_id: index for index, snapshot_id in enumerate(ids)}
        fields["order"] = json.dumps([place[snapshot_id] for snapshot_id in snapshots.ids])
    return fields | {
        "kinds": snapshots.kinds,
        "reasons": json.dumps(snapshots.reasons),
        "snapshots_total": len(snapshots.ids),
        "first_snapshot": snapshots.ids[0] if snapshots.ids else "",
        "trusted": snapshots.kinds.count(TRUSTED),
        "unpublished": snapshots.kinds.count(UNREADABLE),
    }


def recall(ledger: Ledger, spec: JobSpec, source: StreamStore) -> tuple[Snapshots, Plan]:
    """
    Return the snapshots and the plan of a job that was prepared before, maybe elsewhere.

    Raises `StoreError`, and `SourceChanged` where the source lost a manifest since.
    """
    snapshots = read_snapshots(ledger, spec)
    plan = recalled(spec, snapshots)
    if plan is not None:
        return snapshots, plan
    planner = _planner(ledger, spec, source)
    for index in snapshots.of(PLANNED):
        try:
            planner.add(index, _objects(source, snapshots.ids[index]))
        except OF_ONE as error:
            raise SourceChanged(f"the source changed while the job ran: {error}") from error
    return snapshots, _remember(spec, snapshots, planner.finish())


def forget(job_id: str) -> None:
    """Drop what is remembered of a job that has ended; it can be recalled all the same."""
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


def _objects(source: StreamStore, snapshot_id: str) -> Objects | ObjectTable:
    with source.read_manifest(snapshot_id) as manifest:
        return manifest.table() if manifest.large else manifest.objects()


def _planner(ledger: Ledger, spec: JobSpec, source: StreamStore) -> Planner:
    return Planner(
        max_objects=spec.batch_objects, max_bytes=spec.batch_bytes, only=_only(ledger, spec, source)
    )


def _only(ledger: Ledger, spec: JobSpec, source: StreamStore) -> AddressSet | None:
    """
    Return the objects that a job confines itself to: those that failed in the job that it retries.

    *source* is that of both.
    """
    if not spec.retries:
        return None
    retried = ledger.spec(spec.retries)
    _, plan = recall(ledger, retried, source)
    return failed_addresses(ledger, spec.retries, plan)


def _ordered(spec: JobSpec, source: StreamStore) -> list[SnapshotId]:
    """Return the ids of the job's snapshots in its order."""
    if not spec.everything and spec.order is Order.GIVEN:
        return spec.snapshot_ids
    listed = source.list_manifests() if spec.everything or spec.order is Order.NEWEST else {}
    ids = list(listed) if spec.everything else spec.snapshot_ids
    if spec.order is Order.NEWEST:
        # What the source does not list has no time; that it is missing is found when it is read.
        return sorted(ids, key=lambda id_: -listed[id_].modified if id_ in listed else 0.0)
    if spec.order is Order.SMALLEST:
        return sorted(ids, key=lambda id_: _bytes_of(source, id_))
    return ids


def _bytes_of(source: StreamStore, snapshot_id: str) -> int:
    try:
        objects = _objects(source, snapshot_id)
    except OF_ONE:
        return 0
    return sum(objects.values()) if isinstance(objects, Mapping) else objects.size_bytes


def _key(spec: JobSpec, snapshots: Snapshots) -> tuple[str, str]:
    """Name the plan of a job by all that it follows from: a job that is prepared twice may find other snapshots."""
    made_of = json.dumps([spec.model_dump_json(), snapshots.ids, snapshots.kinds])
    return spec.job_id, digest(made_of.encode())


def recalled(spec: JobSpec, snapshots: Snapshots) -> Plan | None:
    """Return the plan of a job if this machine remembers it; asks no store."""
    key = _key(spec, snapshots)
    plan = _remembered.get(key) or plan_file.load(*key)
    return None if plan is None else _keep(key, plan)


def _remember(spec: JobSpec, snapshots: Snapshots, plan: Plan) -> Plan:
    key = _key(spec, snapshots)
    return _keep(key, plan_file.save(*key, plan))


def _keep(key: tuple[str, str], plan: Plan) -> Plan:
    _remembered[key] = plan
    _remembered.move_to_end(key)
    while len(_remembered) > 1 and sum(p.objects for p in _remembered.values()) > REMEMBERED_OBJECTS:
        _remembered.popitem(last=False)
    return plan
