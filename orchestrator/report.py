"""How a job ended: in words for people, as one JSON document for programs (docs/json.md)."""

from __future__ import annotations

from typing import Any, Final

from workers.describe import size
from workers.ledger import JobStatus
from workers.transfer import Failure

# Kinds of failures that are put into words, and failed objects that the JSON document holds.
FAILURES_SHOWN: Final = 10
FAILURES_IN_JSON: Final = 1000


def failure_lines(failures: list[Failure], total: int) -> list[str]:
    """Return failures in words, alike ones in one line."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for failure in failures:
        alike.setdefault((failure.error, failure.store, failure.detail), []).append(failure.address)
    lines = [
        f"  {len(addresses):,} x {error} at {store}: {detail} ({addresses[0]}{', ...' if len(addresses) > 1 else ''})"
        for (error, store, detail), addresses in list(alike.items())[:FAILURES_SHOWN]
    ]
    shown = sum(len(addresses) for addresses in list(alike.values())[:FAILURES_SHOWN])
    if total > shown:
        lines.append(f"  and {total - shown:,} more (--json lists the first {FAILURES_IN_JSON:,})")
    return lines


def done_words(status: JobStatus) -> str:
    """Return the account of a job that is done, in one line."""
    healed = f", {status.healed} healed" if status.healed else ""
    return (
        f"snapshot {status.snapshot_id} is published: {status.objects_total:,} objects,"
        f" {status.copied:,} copied ({size(status.bytes_copied)}), {status.present:,} were present{healed},"
        f" in {status.ended_at - status.submitted_at:.1f} s"
    )


def dry_run_words(status: JobStatus) -> str:
    """Return what a dry run found, in one line."""
    return (
        f"would copy {status.to_copy:,} of {status.objects_total:,} objects, {size(status.bytes_to_copy)} of"
        f" {size(status.bytes_total)}; {status.present:,} are present. Nothing was written."
    )


def document(status: JobStatus, failures: list[Failure]) -> dict[str, Any]:
    """Return the JSON document of a job that has ended."""
    return {
        "job": status.job_id,
        "state": str(status.state),
        "snapshot": status.snapshot_id,
        "objects": {
            "total": status.objects_total,
            "copied": status.copied,
            "present": status.present,
            "failed": status.failed,
            "healed": status.healed,
            "to_copy": status.to_copy,
        },
        "bytes": {
            "total": status.bytes_total,
            "copied": status.bytes_copied,
            "to_copy": status.bytes_to_copy,
        },
        "seconds": round(max(0.0, status.ended_at - status.submitted_at), 3),
        "error": status.error,
        "errors": [
            {
                "address": failure.address,
                "error": failure.error,
                "store": failure.store,
                "detail": failure.detail,
            }
            for failure in failures[:FAILURES_IN_JSON]
        ],
    }
