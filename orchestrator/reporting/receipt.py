"""
The account of a job, snapshot by snapshot.

While a job runs, a row for each snapshot that came to its end is in the
ledger; when it has ended, all rows together are kept compressed. The receipt
is made of them: docs/json.md describes it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from snapferry.orchestrator.planning.prepare import TRUSTED, UNREADABLE, read_snapshots
from snapferry.workers.ledger import JobStatus, Ledger, State
from snapferry.workers.messages import JobRequest, unpack

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


@dataclass(frozen=True)
class SnapshotRow:
    """
    How a snapshot of a job stands: *state* is pending, published, trusted or failed. Sizes in bytes.

    *objects* = copied + present + failed + shared, once it is published:
    *shared* ones are counted with an earlier snapshot of the job. *missing* of
    its objects, shared ones included, could not be copied. *ended_at*: seconds since the epoch.
    """

    id: str
    state: str
    objects: int = 0
    size_bytes: int = 0
    copied: int = 0
    present: int = 0
    shared: int = 0
    missing: int = 0
    ended_at: float = 0.0
    reason: str = ""


# Bytes of the rows of a job that are unpacked: more than those of any job have.
LARGEST_ROWS = 256 * 1024 * 1024


def final_fields(ledger: Ledger, job_id: str) -> dict[str, str | float]:
    """Return the fields of a job's record that keep its rows after its end."""
    rows = {index: row for group in ledger.groups(job_id).values() for index, row in group.items()}
    if not rows:
        return {}
    text = json.dumps(rows, separators=(",", ":")).encode()
    return {"rows": base64.b64encode(zlib.compress(text, 9)).decode()}


def snapshot_rows(ledger: Ledger, job_id: str) -> Iterator[SnapshotRow]:
    """Yield a row for each snapshot of a job, in the job's order. Raises `snapferry.workers.ledger.UnknownJob`."""
    snapshots = read_snapshots(ledger, ledger.request(job_id))
    rows = {index: row for group in ledger.groups(job_id).values() for index, row in group.items()}
    if kept := ledger.field(job_id, "rows"):
        unpacked = zlib.decompressobj()
        found = json.loads(unpacked.decompress(base64.b64decode(kept), LARGEST_ROWS))
        rows = {int(index): row for index, row in found.items()}
    kinds = snapshots.kinds.ljust(len(snapshots.ids))
    for index, (snapshot_id, kind) in enumerate(zip(snapshots.ids, kinds, strict=True)):
        if kind == TRUSTED:
            yield SnapshotRow(snapshot_id, "trusted")
        elif kind == UNREADABLE:
            reason = snapshots.reasons.get(index, "its manifest could not be read at the source")
            yield SnapshotRow(snapshot_id, "failed", reason=reason)
        elif index in rows:
            yield SnapshotRow(snapshot_id, *rows[index])
        else:
            yield SnapshotRow(snapshot_id, "pending")


def receipt(ledger: Ledger, job_id: str) -> dict[str, Any]:
    """Return the receipt of a job, as one JSON document; of a job that goes on, as far as it has come."""
    status, request = ledger.status(job_id), ledger.request(job_id)
    deleted = ledger.field(job_id, "deleted_ids")
    return {
        "schema": SCHEMA,
        "tool": f"snapferry {version('snapferry')}",
        "job": job_id,
        "state": str(status.state),
        "final": status.state.final,
        "error": status.error,
        "resumes": request.resumes or request.retries or None,
        "source": _store(request, "source"),
        "destination": _store(request, "destination"),
        "submitted": moment(status.submitted_at),
        "started": moment(status.started_at),
        "ended": moment(status.ended_at),
        "objects": objects_of(status),
        "bytes": {"total": status.bytes_total, "copied": status.bytes_copied},
        "verified": VERIFIED,
        "confirmed": _confirmed(ledger, job_id),
        "snapshots": [_document(row) for row in snapshot_rows(ledger, job_id)],
        "deleted": unpack(deleted),
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


def published_everything(status: JobStatus) -> bool:
    """Say whether a job left nothing to do."""
    return status.state is State.DONE and not status.dry_run


def _store(request: JobRequest, side: str) -> dict[str, str | None]:
    reference = request.source if side == "source" else request.destination
    return {"url": reference.url, "objects_url": reference.objects_url}


def _document(row: SnapshotRow) -> dict[str, Any]:
    found = asdict(row)
    found["bytes"] = found.pop("size_bytes")
    found["ended"] = moment(found.pop("ended_at"))
    return found
