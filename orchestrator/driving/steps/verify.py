"""The end of the snapshots and of a job that looks at objects where they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.driving.ending import end_job
from snapferry.orchestrator.driving.outcome import DriveOutcome
from snapferry.orchestrator.driving.scrub import settle_scrub
from snapferry.orchestrator.planning.snapshots import UNREADABLE
from snapferry.stores.address import SnapshotId
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.text.format import counted
from snapferry.workers.copying.commit import SnapshotResult, SnapshotState, without_objects
from snapferry.workers.ledger import PLAN, JobStatus, State

# The field of a job's record with the first address that a bounded job has not looked at.
STOPPED_AT: Final = "stopped_at"


def end_verified(
    drive: PlannedDrive, snapshot_ids: Sequence[SnapshotId], failed: AddressSet
) -> dict[SnapshotId, SnapshotResult]:
    """
    Return the result of each snapshot: failed if it names one of the *failed* addresses. Writes nothing.

    Reads the manifests if an object failed. A snapshot is verified only if this job has read all of its objects.
    """
    results = without_objects(drive.catalogue, snapshot_ids, failed, "is", "missing, wrong or unreadable")
    spec = drive.spec
    in_part = spec.verify.fast or spec.scope.limited or spec.retries or spec.resumes
    in_part = in_part or drive.ledger.field(drive.job_id, "bounded")
    state = SnapshotState.CHECKED if in_part else SnapshotState.VERIFIED
    for snapshot_id in snapshot_ids:
        results.setdefault(snapshot_id, SnapshotResult(state))
    return results


def conclude_verify(drive: PlannedDrive) -> DriveOutcome | None:
    """End the job if every snapshot of it has ended; return the outcome, None for a job that continues."""
    ledger, job_id = drive.ledger, drive.job_id
    status = ledger.status(job_id)
    if status.state.final or status.snapshots_settled < status.snapshots_total:
        return None
    fields = {STOPPED_AT: stopped_at} if (stopped_at := _stopped_at(drive, status)) else {}
    settle_scrub(drive, status, stopped_at)
    if not status.snapshots_failed and not drive.snapshots.unlisted:
        return end_job(ledger, job_id, State.DONE, fields=fields)
    reason = _findings(drive, status.failed, status.snapshots_failed)
    cause = "" if status.snapshots_failed else drive.snapshots.unlisted[0].partition(":")[0]
    return end_job(ledger, job_id, State.FAILED, error=reason, cause=cause, fields=fields)


def _stopped_at(drive: PlannedDrive, status: JobStatus) -> str:
    """Return the first address that a bounded job has not looked at, "" for a job that looked at all."""
    if not status.bounded:
        return ""
    undone = drive.ledger.unaccounted(drive.job_id, PLAN, range(drive.plan.batches))
    return drive.plan.address(drive.plan.positions_of(undone[0]).start) if undone else ""


def _findings(drive: PlannedDrive, failed: int, hurt: int) -> str:
    """Return what is wrong in a store, in words: *failed* objects, and *hurt* snapshots."""
    total = len(drive.snapshots.ids)
    parts = []
    if failed:
        by_class = sorted(drive.ledger.failed_by_class(drive.job_id).items())
        classes = ", ".join(f"{count:,} {name}" for name, count in by_class)
        parts.append(
            f"{counted(failed, 'object', of=drive.plan.objects, verb='is')} missing, wrong or unreadable ({classes})"
        )
    if unread := list(drive.snapshots.reasons.values()):
        count = len(drive.snapshots.of(UNREADABLE))
        parts.append(f"{counted(count, 'manifest')} could not be read ({unread[0]})")
    if drive.snapshots.unlisted:
        parts.append(drive.snapshots.not_listed())
    if not parts:
        groups = drive.ledger.groups(drive.job_id).values()
        parts += [next((row[-1] for rows in groups for row in rows.values() if row[-1]), "")]
    if not hurt:
        return " and ".join(parts)
    return f"{' and '.join(parts)}; {counted(hurt, 'snapshot', of=total, verb='is')} damaged"
