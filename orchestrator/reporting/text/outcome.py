"""How a job ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from snapferry.stores.text.format import counted, size
from snapferry.workers.ledger import JobStatus
from snapferry.workers.messages import Action

from .dry_run import dry_run_lines
from .format import names_text


def done_lines(status: JobStatus, estimate: Mapping[str, Any]) -> list[str]:
    """Return the result of a job that is done; *estimate* is what a dry run found."""
    return dry_run_lines(status, estimate) if estimate and status.dry_run else [done_text(status)]


def done_text(status: JobStatus) -> str:
    """Return the result of a job that is done, in one line."""
    return _DONE.get(status.action, _copied_text)(status)


def _copied_text(status: JobStatus) -> str:
    seconds = f" in {status.ended_at - status.submitted_at:.1f} s"
    also = f", {status.healed:,} healed" if status.healed else ""
    also += f"; {deleted_text(status)}" if status.deleted else ""
    if named := names_text(status):
        also += f"; names: {named}"
    published = _published_text(status)
    if not status.snapshots_total:
        return f"nothing to copy: the source has no snapshots{also},{seconds}"
    if status.snapshots_trusted == status.snapshots_total:
        return f"nothing to copy: {published}{also},{seconds}"
    if not status.objects_total:
        return f"{published}: {_written_text(status, 'object')}{also},{seconds}"
    if not status.copied:
        found = _already(status.objects_total, "object", "present")
        return f"nothing to copy: {found}; {published}{also},{seconds}"
    by = "" if status.copied_by_server is None else f", {status.copied_by_server:,} by the server"
    return (
        f"{published}: {counted(status.objects_total, 'object')}, {status.copied:,} copied"
        f" ({size(status.bytes_copied)}{by}), {status.present:,} already present{also},{seconds}"
    )


def _verified_text(status: JobStatus) -> str:
    seconds = f" in {status.ended_at - status.submitted_at:.1f} s"
    if not status.snapshots_total:
        return f"nothing to do: the store has no snapshots,{seconds}"
    named = counted(status.snapshots_total, "snapshot")
    read = f"{counted(status.present, 'object')} of {named} intact, {size(status.bytes_copied)} read{seconds}"
    return f"{read}; {bound_text(status)}" if status.bounded else read


def _healed_text(status: JobStatus) -> str:
    seconds = f" in {status.ended_at - status.submitted_at:.1f} s"
    if not status.snapshots_total:
        return f"nothing to do: the store has no snapshots,{seconds}"
    named = f"{counted(status.objects_total, 'object')} of {counted(status.snapshots_total, 'snapshot')}"
    written = status.manifests_healed
    manifests = f"; {counted(written, 'manifest')} healed" if written else ""
    if not status.copied:
        return f"no object to heal: {named} intact{manifests},{seconds}"
    healed = f"{status.copied:,} healed ({size(status.bytes_copied)}), {status.present:,} intact"
    return f"{named}: {healed}{manifests},{seconds}"


def _pushed_text(status: JobStatus) -> str:
    seconds = f" in {status.ended_at - status.submitted_at:.1f} s"
    published = _published_text(status) + (" and tagged" if status.names_carried else "")
    if not status.objects_total:
        return f"{published}: {_written_text(status, 'file')},{seconds}"
    if not status.copied:
        return f"{published}: {_already(status.objects_total, 'file', 'present')},{seconds}"
    return (
        f"{published}: {counted(status.objects_total, 'file')}, {status.copied:,} pushed"
        f" ({size(status.bytes_copied)}), {status.present:,} already present,{seconds}"
    )


def _pulled_text(status: JobStatus) -> str:
    seconds = f" in {status.ended_at - status.submitted_at:.1f} s"
    removed = f"; {deleted_text(status)}" if status.deleted else ""
    if not status.objects_total:
        return f"snapshot {status.first_snapshot} is fetched: it has no files{removed},{seconds}"
    if not status.copied:
        found = _already(status.objects_total, "file", "right")
        return f"nothing to fetch of snapshot {status.first_snapshot}: {found}{removed},{seconds}"
    return (
        f"snapshot {status.first_snapshot} is fetched: {counted(status.objects_total, 'file')},"
        f" {status.copied:,} written ({size(status.bytes_copied)} read), {status.present:,} already right"
        f"{removed},{seconds}"
    )


_DONE: Final = {
    Action.VERIFY: _verified_text,
    Action.HEAL: _healed_text,
    Action.PUSH: _pushed_text,
    Action.PULL: _pulled_text,
}


def _already(total: int, unit: str, right: str) -> str:
    """Return that all of *total* objects were *right* before the job."""
    every = "all " if total > 1 else ""
    return f"{every}{counted(total, unit)} already {right}"


def _written_text(status: JobStatus, unit: str) -> str:
    """Return what a job has done that had nothing to copy, because its snapshots have no *unit*."""
    written = "its manifest is" if status.snapshots_total == 1 else "their manifests are"
    return f"{written} written, and there are no {unit}s to copy"


def deleted_text(status: JobStatus) -> str:
    """Return what a job deleted, "" for nothing."""
    if not status.deleted:
        return ""
    if status.action is Action.PULL:
        return f"{counted(status.deleted, 'file or directory', 'files and directories')} removed"
    return f"{counted(status.deleted, 'manifest')} deleted"


def bound_text(status: JobStatus) -> str:
    """Return at which bound a job stopped, and how much of it was not done, "" for a job without a bound."""
    if not status.bounded:
        return ""
    left = max(0, status.objects_total - status.objects_settled)
    option = {"max_bytes": "--max-bytes", "max_seconds": "--max-time"}[status.bounded]
    return f"stopped at {option}: {counted(left, 'object', of=status.objects_total)} not looked at"


def _published_text(status: JobStatus) -> str:
    there = status.snapshots_there
    trusted = ""
    if status.snapshots_trusted:
        which = f"{status.snapshots_trusted:,} of them " if there > 1 else ""
        trusted = f" ({which}not checked: --trust-manifest)"
    if status.snapshots_total == 1:
        return f"snapshot {status.first_snapshot} is published{trusted}"
    return f"{counted(there, 'snapshot', of=status.snapshots_total, verb='is')} published{trusted}"
