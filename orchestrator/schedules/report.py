"""Mirrors with their last and next runs: rows of a table, and JSON documents for programs (docs/json.md)."""

from __future__ import annotations

import time
from typing import Any, Final

from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.text.format import duration, moment, span
from snapferry.orchestrator.reporting.text.status import state_text
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.describe import short
from snapferry.workers.ledger import Freshness

from .status import MirrorStatus, ScheduleStatus

MIRRORS_HEAD: Final = ("MIRROR", "EVERY", "LAST SUCCESS", "LAST RUN", "NEXT", "FROM → TO")

OVERDUE_S: Final = 60.0
"""Seconds after the due time of a run at which its scheduler does not work."""


def mirror_row(status: MirrorStatus, *, scheduler: bool = True) -> tuple[str, ...]:
    """Return a mirror as a row under `MIRRORS_HEAD`. Without a *scheduler*, cron or systemd starts the runs."""
    mirror = status.mirror
    return (
        mirror.name,
        mirror.every,
        success_text(status.success_at, status.freshness),
        printable(last_text(status)),
        next_text(status.next_at) if scheduler else timer_text(status),
        printable(f"{mirror.from_} → {mirror.to}"),
    )


def mirror_document(status: MirrorStatus) -> dict[str, Any]:
    """Return a mirror as a JSON document."""
    mirror = status.mirror
    return {
        "mirror": mirror.name,
        "from": mirror.from_,
        "to": mirror.to,
        "every": mirror.every,
        "in_file": True,
        "delete": mirror.delete,
        **runs_document(status),
    }


def runs_document(status: ScheduleStatus) -> dict[str, Any]:
    """Return the last and next runs as a part of a JSON document."""
    record = status.record
    return {
        "last_job": record.job_id or None,
        "last_started": moment(record.started_at) if record.started_at else None,
        "last_status": status_document(status.job) if status.job is not None else None,
        "skipped": record.skipped,
        "skipped_last": moment(record.skipped_at) if record.skipped_at else None,
        "skipped_why": record.why,
        "next": moment(status.next_at) if status.next_at is not None else None,
        **freshness_document(status.success_at, status.freshness),
    }


def freshness_document(success_at: float, freshness: Freshness | None) -> dict[str, Any]:
    """Return the last success of a mirror or scrub as a part of a JSON document."""
    return {
        "last_success": moment(success_at),
        "last_success_age_seconds": round(max(0.0, time.time() - success_at), 3) if success_at else None,
        "late": is_late(success_at, freshness),
        "late_at": moment(freshness.late_at) if freshness is not None else None,
    }


def unlisted_document(kind: str, freshness: Freshness) -> dict[str, Any]:
    """Return a mirror or scrub that is expected but not in the file as a JSON document."""
    return {
        kind: freshness.expected.name,
        "every": freshness.expected.every,
        "in_file": False,
        **freshness_document(freshness.success_at, freshness),
    }


def is_late(success_at: float, freshness: Freshness | None) -> bool:
    """Return whether a mirror or scrub is late that last succeeded at *success_at*."""
    # A success that no orchestrator has settled yet ends the lateness.
    return freshness is not None and freshness.late and success_at <= freshness.success_at


def success_text(success_at: float, freshness: Freshness | None) -> str:
    """Return in words when a mirror or scrub last succeeded, and whether it is late."""
    text = f"{duration(time.time() - success_at)} ago" if success_at else "never"
    if freshness is None or not is_late(success_at, freshness):
        return text
    return f"{text}, late for {duration(freshness.now - freshness.late_at)}"


def last_text(status: ScheduleStatus) -> str:
    """Return the last run in words."""
    record, job = status.record, status.job
    if not record.job_id:
        text = "never"
    else:
        state = state_text(job) if job is not None else "record expired"
        text = f"{state}, job {short(record.job_id)}, {duration(time.time() - record.started_at)} ago"
    if record.skipped:
        text += f"; then skipped {record.skipped} time{'s' if record.skipped > 1 else ''}: {record.why}"
    return text


def timer_text(status: ScheduleStatus) -> str:
    """Return what is known of the next run that cron or systemd starts: when it is late."""
    freshness = status.freshness
    if freshness is None or not freshness.late_at:
        return "by cron or systemd"
    left = freshness.late_at - freshness.now
    if is_late(status.success_at, freshness) or left <= 0:
        return "by cron or systemd, late"
    return f"by cron or systemd, late in {span(left)}"


def next_text(at: float | None) -> str:
    """Return in words when the next run is due."""
    if at is None:
        return "not scheduled"
    left = at - time.time()
    if left < -OVERDUE_S:
        return f"overdue for {duration(-left)}"
    return "now" if left <= 0 else f"in {span(left)}"
