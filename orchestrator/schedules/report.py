"""Mirrors with their last and next runs: rows of a table, and JSON documents for programs (docs/json.md)."""

from __future__ import annotations

import time
from typing import Any, Final

from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.text.format import duration, moment
from snapferry.orchestrator.reporting.text.status import state_text
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.describe import short

from .status import MirrorStatus, ScheduleStatus

MIRRORS_HEAD: Final = ("MIRROR", "EVERY", "LAST", "NEXT", "FROM → TO")


def mirror_row(status: MirrorStatus) -> tuple[str, ...]:
    """Return a mirror as a row under `MIRRORS_HEAD`."""
    mirror = status.mirror
    return (
        mirror.name,
        mirror.every,
        printable(last_text(status)),
        next_text(status.next_at),
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
    }


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


def next_text(at: float | None) -> str:
    """Return in words when the next run is due."""
    if at is None:
        return "not scheduled"
    left = at - time.time()
    return "now" if left <= 0 else f"in {duration(left)}"
