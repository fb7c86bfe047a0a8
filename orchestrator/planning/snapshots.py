"""The snapshots of a job: which they are, in its order, and what was found of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from snapferry.stores.address import SnapshotId
from snapferry.stores.errors import StoreError
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import shortened
from snapferry.workers.copying.commit import MAX_REASON_CHARS
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import JobSpec, decode_snapshot_ids, encode_addresses
from snapferry.workers.redis_json import parse_json

PLANNED, TRUSTED, UNREADABLE = ".", "t", "x"

# Unreadable manifests of a job whose reasons are kept.
REASONS_KEPT = 100


@dataclass
class Snapshots:
    """
    The snapshots of a job, in its order.

    *kinds* has a letter for each: planned, trusted (its manifest is at the destination, and the job trusts that), or
    unreadable. *reasons*: index -> why it is unreadable. *errors*: the same as errors, in the process that met them.
    *unlisted*: why parts of the store could not be listed, so that snapshots may be missing here.
    """

    ids: list[SnapshotId]
    kinds: str = ""
    reasons: dict[int, str] = field(default_factory=dict)
    errors: dict[int, StoreError] = field(default_factory=dict)
    unlisted: list[str] = field(default_factory=list)

    @property
    def partly_planned(self) -> bool:
        """Whether the plan has only the first of them, because later manifests are still to be read."""
        return len(self.kinds) < len(self.ids)

    def note_unlisted(self, error: StoreError) -> None:
        """Note a part of the store that could not be listed, for the first `REASONS_KEPT` of them."""
        if len(self.unlisted) < REASONS_KEPT:
            self.unlisted.append(shortened(f"{type(error).__name__}: {error}", MAX_REASON_CHARS))

    def note(self, index: int, error: StoreError) -> None:
        """Note why a snapshot is unreadable, for the first `REASONS_KEPT` of them."""
        if len(self.reasons) < REASONS_KEPT:
            self.errors[index] = error
            self.reasons[index] = shortened(f"{type(error).__name__}: {error}", MAX_REASON_CHARS)

    def not_listed(self) -> str:
        """Return in words which parts of the store could not be listed."""
        return f"{counted(len(self.unlisted), 'part')} of the store could not be listed ({'; '.join(self.unlisted)})"

    def of(self, kind: str) -> list[int]:
        """Return the indexes of the snapshots of *kind*."""
        return [index for index, found in enumerate(self.kinds) if found == kind]


def read_snapshots(ledger: Ledger, spec: JobSpec) -> Snapshots:
    """Return the snapshots that `freeze` recorded; before that, those of the request."""
    job_id = spec.job_id
    ids = decode_snapshot_ids(ledger.field(job_id, "ids")) if spec.everything else spec.snapshot_ids
    if order := ledger.field(job_id, "order"):
        ids = [ids[index] for index in parse_json(order)]
    reasons = parse_json(ledger.field(job_id, "reasons") or "{}")
    return Snapshots(
        ids,
        ledger.field(job_id, "kinds"),
        {int(index): reason for index, reason in reasons.items()},
        unlisted=parse_json(ledger.field(job_id, "unlisted") or "[]"),
    )


def freeze(spec: JobSpec, snapshots: Snapshots) -> dict[str, str | float]:
    """Return the fields of a job's record that hold its snapshots."""
    return freeze_ids(spec, snapshots) | freeze_kinds(snapshots)


def freeze_ids(spec: JobSpec, snapshots: Snapshots) -> dict[str, str | float]:
    """
    Return the fields that tell which snapshots a job has, in its order.

    Ids take most of a record's memory. So those of the request are not recorded again, only their order if it differs.
    """
    ids = spec.snapshot_ids
    fields: dict[str, str | float] = {}
    if spec.everything:
        fields["ids"] = encode_addresses(snapshots.ids)
    elif ids != snapshots.ids:
        given = {snapshot_id: index for index, snapshot_id in enumerate(ids)}
        fields["order"] = json.dumps([given[snapshot_id] for snapshot_id in snapshots.ids])
    return fields | {
        **({"unlisted": json.dumps(snapshots.unlisted)} if snapshots.unlisted else {}),
        "snapshots_total": len(snapshots.ids),
        "first_snapshot": snapshots.ids[0] if snapshots.ids else "",
    }


def freeze_kinds(snapshots: Snapshots) -> dict[str, str | float]:
    """Return the fields that tell what was found of the snapshots that are planned so far."""
    return {
        "kinds": snapshots.kinds,
        "reasons": json.dumps(snapshots.reasons),
        "trusted": snapshots.kinds.count(TRUSTED),
        "unpublished": snapshots.kinds.count(UNREADABLE),
    }
