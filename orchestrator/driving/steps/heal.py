"""The end of the snapshots, and of a job, that heals a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.driving.ending import end_job
from snapferry.orchestrator.driving.outcome import DriveOutcome
from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.prepare import prepare
from snapferry.orchestrator.planning.snapshots import UNREADABLE, Snapshots
from snapferry.stores.address import SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.text.format import counted
from snapferry.workers.copying.commit import SnapshotResult, SnapshotState, publish_snapshots
from snapferry.workers.ledger import JobStatus, Ledger, State
from snapferry.workers.messages import JobSpec


def prepare_heal(
    ledger: Ledger, spec: JobSpec, source: StreamStore, destination: StreamStore
) -> tuple[Snapshots, Plan]:
    """As `prepare`, for the snapshots of the store that is healed. Manifests that it lacks come from the sources."""
    return prepare(ledger, spec, destination, destination, around=True)


def end_healed(
    drive: PlannedDrive, snapshot_ids: Sequence[SnapshotId], failed: AddressSet
) -> dict[SnapshotId, SnapshotResult]:
    """
    End snapshots: those without a failed object get their manifest, if it is missing or wrong.

    The presence of all of their objects is asked again before. Raises `StoreError` if the store gives no answer.
    """
    results = publish_snapshots(
        drive.catalogue, drive.destination, snapshot_ids, failed, unable="could not be healed"
    )
    if written := sum(result.written for result in results.values()):
        before = drive.ledger.status(drive.job_id).manifests_healed
        drive.ledger.set_fields(drive.job_id, manifests_healed=before + written)
    return {
        snapshot_id: replace(result, state=SnapshotState.VERIFIED)
        if result.state is SnapshotState.PUBLISHED
        else result
        for snapshot_id, result in results.items()
    }


def conclude_heal(drive: PlannedDrive) -> DriveOutcome | None:
    """End the job if every snapshot of it has ended; return the outcome, None for a job that continues."""
    ledger, job_id = drive.ledger, drive.job_id
    status = ledger.status(job_id)
    if status.state.final or status.snapshots_settled < status.snapshots_total:
        return None
    if status.snapshots_failed or drive.snapshots.unlisted:
        return end_job(
            ledger,
            job_id,
            State.FAILED,
            error=_what_is_left(drive, status),
            cause="" if status.snapshots_failed else drive.snapshots.unlisted[0].partition(":")[0],
        )
    return end_job(ledger, job_id, State.DONE)


def _what_is_left(drive: PlannedDrive, status: JobStatus) -> str:
    """Return what a job left wrong, in words."""
    total, failed, damaged = len(drive.snapshots.ids), status.failed, status.snapshots_failed
    parts = []
    if failed:
        parts.append(f"{counted(failed, 'object', of=drive.plan.objects)} could not be healed")
    if status.copied:
        parts.append(f"{counted(status.copied, 'object', verb='was')} healed")
    if status.manifests_healed:
        parts.append(f"{counted(status.manifests_healed, 'manifest', verb='was')} healed")
    if unread := list(drive.snapshots.reasons.values()):
        count = len(drive.snapshots.of(UNREADABLE))
        parts.append(f"{counted(count, 'manifest')} could not be read anywhere ({unread[0]})")
    if drive.snapshots.unlisted:
        parts.append(drive.snapshots.not_listed())
    if not (failed or unread or drive.snapshots.unlisted):
        groups: dict[int, dict[int, list[Any]]] = drive.ledger.groups(drive.job_id)
        reason = next((row[-1] for rows in groups.values() for row in rows.values() if row[-1]), "")
        parts += [reason] if reason or not parts else []
    if not damaged:
        return f"{', '.join(parts)}. Remove what is there, and heal again."
    which = f"{counted(damaged, 'snapshot', of=total, verb='is')} still damaged"
    return f"{', '.join(parts)}; {which}. What is wrong was left as it is."
