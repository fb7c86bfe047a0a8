"""
The account of a job, snapshot by snapshot.

While a job runs, a row for each snapshot that came to its end is in the
ledger; when it has ended, all rows together are kept compressed. The receipt
is made of them: docs/json.md describes it.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow, snapshot_rows
from snapferry.workers.ledger import JobStatus, Ledger
from snapferry.workers.messages import JobSpec, decode_addresses

SCHEMA: Final = "snapferry.receipt/1"

# How each kind of outcome was verified.
VERIFIED: Final = {
    "copied": "hashed (BLAKE3) while read; the destination was then asked for it",
    "present": "the destination was asked for it, by name and size",
    "manifest": "hashed (BLAKE3) when read from the source, and again when read back from the destination",
    "trusted": "not verified: its manifest was found at the destination and --trust-manifest was given",
}

# What can confirm that an S3 store has the bytes that were sent; "none" is nothing.
CONFIRMED_BY: Final = ("digest", "etag", "read_back", "none")


def receipt(ledger: Ledger, job_id: str) -> dict[str, Any]:
    """Return the receipt of a job, as one JSON document; of a job that goes on, as far as it has come."""
    status, spec = ledger.status(job_id), ledger.spec(job_id)
    deleted = ledger.field(job_id, "deleted_ids")
    return {
        "schema": SCHEMA,
        "tool": f"snapferry {version('snapferry')}",
        "job": job_id,
        "state": str(status.state),
        "final": status.state.final,
        "error": status.error,
        "resumes": spec.resumes or spec.retries or None,
        "source": _store(spec, "source"),
        "destination": _store(spec, "destination"),
        "submitted": moment(status.submitted_at),
        "started": moment(status.started_at),
        "ended": moment(status.ended_at),
        "objects": objects_of(status),
        "bytes": {"total": status.bytes_total, "copied": status.bytes_copied},
        "verified": VERIFIED,
        "confirmed": _confirmed(ledger, job_id),
        "snapshots": [_document(row) for row in snapshot_rows(ledger, job_id)],
        "deleted": decode_addresses(deleted),
    }


def _confirmed(ledger: Ledger, job_id: str) -> dict[str, int]:
    counts = {name: ledger.field(job_id, f"confirmed:{name}") for name in CONFIRMED_BY}
    return {name: int(count) for name, count in counts.items() if count and count.isdigit()}


def objects_of(status: JobStatus) -> dict[str, int]:
    """Return a job's counts of objects."""
    return {
        "total": status.objects_total,
        "copied": status.copied,
        "present": status.present,
        "failed": status.failed,
        "healed": status.healed,
    }


def moment(seconds: float) -> str | None:
    """Return a time as ISO 8601 in UTC, None for one that has not come."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds") if seconds else None


def _store(spec: JobSpec, side: str) -> dict[str, str | None]:
    reference = spec.source if side == "source" else spec.destination
    return {"url": reference.url, "objects_url": reference.objects_url}


def _document(row: SnapshotRow) -> dict[str, Any]:
    found = asdict(row)
    found["bytes"] = found.pop("size_bytes")
    found["ended"] = moment(found.pop("ended_at"))
    return found
