"""The end of a pull: check that every file is there, remove what the snapshot does not have, set permissions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.driving.ending import end_job
from snapferry.orchestrator.driving.outcome import DriveOutcome
from snapferry.stores.address import SnapshotId
from snapferry.stores.backends.tree.writing.opened import target_of
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import StoreError
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.tree_lines import tree_columns
from snapferry.stores.text.format import counted
from snapferry.workers.copying.commit import SnapshotResult, SnapshotState, failed_by
from snapferry.workers.ledger import State

# The most files that are pulled again at once because they are not as listed.
MOST_AGAIN: Final = 100_000


def settle_tree(
    drive: PlannedDrive, snapshot_ids: Sequence[SnapshotId], failed: AddressSet
) -> dict[SnapshotId, SnapshotResult]:
    """
    End the tree of a pull, whose files are all accounted for; *failed* are the digests of paths of files.

    Nothing is removed unless every file is there. May be repeated.
    """
    return {snapshot_id: _settle(drive, snapshot_id, failed) for snapshot_id in snapshot_ids}


def _settle(drive: PlannedDrive, snapshot_id: SnapshotId, failed: AddressSet) -> SnapshotResult:
    if len(failed):
        reason = f"{counted(len(failed), 'file')} could not be fetched"
        return SnapshotResult(SnapshotState.FAILED, failed=len(failed), reason=reason)
    try:
        target = target_of(drive.destination, delete=drive.spec.tree.delete)
        with drive.source.read_manifest(snapshot_id) as manifest:
            settled = target.settle(partial(tree_columns, manifest), MOST_AGAIN)
    except StoreError as error:
        return failed_by(error)
    if settled.wrong:
        return SnapshotResult(missing=tuple(digest(f"./{file.path}".encode()) for file in settled.wrong))
    if settled.removed:
        drive.ledger.set_fields(drive.job_id, deleted=settled.removed)
    return SnapshotResult(SnapshotState.FETCHED)


def conclude_pull(drive: PlannedDrive) -> DriveOutcome | None:
    """End the job if its snapshot has ended; return the outcome, None for a job that continues."""
    ledger, job_id = drive.ledger, drive.job_id
    status = ledger.status(job_id)
    if status.state.final or status.snapshots_settled < status.snapshots_total:
        return None
    if not status.snapshots_failed:
        return end_job(ledger, job_id, State.DONE)
    if status.failed:
        given_up = ledger.field(job_id, "given_up")
        reason = f"{counted(status.failed, 'file', of=drive.plan.objects)} could not be fetched"
        reason += f" ({given_up})" if given_up else ""
    else:
        groups = ledger.groups(job_id).values()
        reason = next((row[-1] for rows in groups for row in rows.values() if row[-1]), "")
    return end_job(
        ledger,
        job_id,
        State.FAILED,
        error=f"{reason}; the tree is not complete, and nothing was removed from it.",
    )
