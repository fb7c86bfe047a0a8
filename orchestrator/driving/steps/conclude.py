"""The last step of a job: end it once every snapshot of it has ended."""

from __future__ import annotations

from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.driving.ending import end_job, fail_job
from snapferry.orchestrator.driving.outcome import DriveOutcome
from snapferry.orchestrator.planning.surplus import surplus
from snapferry.stores.address import SnapshotId
from snapferry.stores.errors import StoreError
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import State
from snapferry.workers.messages import Prune, decode_addresses, encode_addresses

from .prune import prune


def conclude(drive: PlannedDrive) -> DriveOutcome | None:
    """
    End the job if every snapshot of it has ended; return the outcome, None for a job that continues.

    Before that, prune the destination of a mirror. Raises `StoreError` where a store gives no answer; then the job
    can be concluded again.
    """
    ledger, job_id = drive.ledger, drive.job_id
    status = ledger.status(job_id)
    if status.state.final or status.snapshots_settled < status.snapshots_total:
        return None
    if status.snapshots_failed:
        reason = _why_unpublished(drive, status.failed, status.snapshots_failed)
        return end_job(ledger, job_id, State.FAILED, error=reason)
    if drive.spec.prune is not None and (problem := _prune(drive, drive.spec.prune)):
        return fail_job(ledger, job_id, f"all snapshots are published; {problem}")
    return end_job(ledger, job_id, State.DONE)


def _prune(drive: PlannedDrive, options: Prune) -> str:
    """Delete the manifests that the source does not have; return why that was not possible, "" if it was."""
    ledger, job_id = drive.ledger, drive.job_id

    def record(surplus_ids: list[SnapshotId]) -> None:
        # After an interruption some are deleted already.
        ids = sorted({*decode_addresses(ledger.field(job_id, "deleted_ids")), *surplus_ids})
        ledger.set_fields(job_id, deleted=len(ids), deleted_ids=encode_addresses(ids))

    try:
        refused = prune(options, drive.source, drive.destination, record)
    except StoreError as error:
        if error.transient:
            raise
        left = len(surplus(drive.source, drive.destination)[0])
        return f"{counted(left, 'manifest')} that the source does not have could not be deleted: {error}"
    return f"nothing was deleted: {refused}" if refused else ""


def _why_unpublished(drive: PlannedDrive, failed: int, unpublished: int) -> str:
    """Return why a job failed that has *failed* objects and *unpublished* snapshots, in words for its record."""
    total = len(drive.snapshots.ids)
    what = f"{failed:,} of {drive.plan.objects:,} objects could not be copied" if failed else ""
    given_up = drive.ledger.field(drive.job_id, "given_up") if failed else ""
    what += f" ({given_up})" if given_up else ""
    if not what:
        groups = drive.ledger.groups(drive.job_id).values()
        what = next((row[-1] for rows in groups for row in rows.values() if row[-1]), "")
    if total == 1:
        return f"{what}; the manifest was not written. Run it again to resume."
    unread = list(drive.snapshots.reasons.values())
    also = (
        f"{counted(len(unread), 'manifest')} could not be read at the source ({unread[0]})" if unread else ""
    )
    why = " and ".join(part for part in (what, also) if part)
    published = total - unpublished
    which = f"{unpublished} of {total} snapshots {'is' if unpublished == 1 else 'are'} not published"
    which = which if published else f"none of {total} snapshots is published"
    others = f". The other {'one is' if published == 1 else f'{published} are'}" if published else ""
    return f"{which}{f': {why}' if why else ''}{others}."
