"""The last step of a job: end it once every snapshot of it has ended."""

from __future__ import annotations

import shlex

from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.driving.ending import end_job, fail_job
from snapferry.orchestrator.driving.outcome import DriveOutcome
from snapferry.orchestrator.planning.surplus import surplus
from snapferry.stores.address import SnapshotId, parse_snapshot_id
from snapferry.stores.errors import StoreError
from snapferry.stores.names.name import Name, NameRecord, parse_name
from snapferry.stores.text.format import counted
from snapferry.workers.copying.words import WORDS
from snapferry.workers.job_state import DELETION, TAG
from snapferry.workers.ledger import State
from snapferry.workers.messages import Prune, decode_addresses, encode_addresses

from .names import carry_names, origin_of, remove_names
from .prune import prune


def conclude(drive: PlannedDrive) -> DriveOutcome | None:
    """
    End the job if every snapshot of it has ended; return the outcome, None for a job that continues.

    Before that, carry names along and prune the destination of a mirror. Raises `StoreError` where a store gives no
    answer; then the job can be concluded again.
    """
    ledger, job_id = drive.ledger, drive.job_id
    status = ledger.status(job_id)
    if status.state.final or status.snapshots_settled < status.snapshots_total:
        return None
    # Manifests first, then the names of those that are published, then what is deleted.
    unnamed = _carry_names(drive) if drive.spec.names else ""
    if status.snapshots_failed:
        reason = _why_unpublished(drive, status.failed, status.snapshots_failed)
        return end_job(ledger, job_id, State.FAILED, error=f"{reason} {unnamed}".rstrip())
    problem = unnamed or _delete(drive)
    if problem:
        return fail_job(ledger, job_id, f"all snapshots are published; {problem}", cause=DELETION)
    if drive.spec.tag and (problem := _tag(drive, status.first_snapshot)):
        return fail_job(ledger, job_id, problem, cause=TAG)
    return end_job(ledger, job_id, State.DONE)


def _carry_names(drive: PlannedDrive) -> str:
    """Give the source's names to the snapshots at the destination; return why that was not possible, "" if it was."""
    try:
        carried = carry_names(drive.source, drive.destination, origin_of(drive.spec.source))
    except StoreError as error:
        if error.transient:
            raise
        return f"names could not be carried along: {error}"
    drive.ledger.set_fields(
        drive.job_id,
        names_carried=carried.there,
        names_kept=len(carried.kept),
        kept_names=" ".join(carried.kept),
    )
    if not carried.unreadable:
        return ""
    name, reason = next(iter(carried.unreadable.items()))
    return f"{counted(len(carried.unreadable), 'name')} could not be read at the source, such as {name}: {reason}"


def _tag(drive: PlannedDrive, snapshot: str) -> str:
    """Give the snapshot of a push its name; return why that was not possible, "" if it was."""
    name = parse_name(drive.spec.tag)
    try:
        drive.destination.names.write(name, NameRecord(SnapshotId(parse_snapshot_id(snapshot))))
    except StoreError as error:
        if error.transient:
            raise
        command = shlex.join(["snapferry", "tag", drive.spec.destination.url, snapshot, name])
        said = f"snapshot {snapshot} is published, but could not be tagged as {name}: {error}"
        return f"{said}. To tag it: {command}"
    drive.ledger.set_fields(drive.job_id, names_carried=1)
    return ""


def _delete(drive: PlannedDrive) -> str:
    """Delete the manifests and names that the source does not have; return why that was not possible."""
    if drive.spec.prune is None:
        return ""
    return _prune(drive, drive.spec.prune) or (_remove_names(drive) if drive.spec.names else "")


def _remove_names(drive: PlannedDrive) -> str:
    """Remove the names that the source gave and no longer has; return why that was not possible, "" if it was."""
    ledger, job_id = drive.ledger, drive.job_id

    def record(surplus_names: list[Name]) -> None:
        # After an interruption some are removed already.
        names = sorted({*(ledger.field(job_id, "removed_names") or "").split(), *surplus_names})
        ledger.set_fields(job_id, names_removed=len(names), removed_names=" ".join(names))

    try:
        remove_names(drive.source, drive.destination, origin_of(drive.spec.source), record)
    except StoreError as error:
        if error.transient:
            raise
        return f"names that the source does not have could not be removed: {error}"
    return ""


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
    words = WORDS[drive.spec.action]
    what = (
        f"{counted(failed, words.unit, of=drive.plan.objects)} could not be {words.changed}" if failed else ""
    )
    given_up = drive.ledger.field(drive.job_id, "given_up") if failed else ""
    what += f" ({given_up})" if given_up else ""
    if not what:
        groups = drive.ledger.groups(drive.job_id).values()
        what = next((row[-1] for rows in groups for row in rows.values() if row[-1]), "")
    if total == 1:
        return f"{what}; the manifest was not written."
    unread = list(drive.snapshots.reasons.values())
    also = (
        f"{counted(len(unread), 'manifest')} could not be read at the source ({unread[0]})" if unread else ""
    )
    why = " and ".join(part for part in (what, also) if part)
    published = total - unpublished
    which = f"{counted(unpublished, 'snapshot', of=total, verb='is')} not published"
    which = which if published else f"none of {counted(total, 'snapshot')} is published"
    others = f". The other {'is' if published == 1 else f'{published:,} are'} published" if published else ""
    return f"{which}{f': {why}' if why else ''}{others}."
