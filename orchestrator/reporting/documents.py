"""JSON documents about jobs, for programs; docs/json.md describes them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.workers.copying.words import WORDS
from snapferry.workers.ledger import JobStatus, Waiting
from snapferry.workers.limits import StoreLimits
from snapferry.workers.messages import Limits
from snapferry.workers.reachability.store_problems import StoreProblem

from .advice import Advice, advise
from .failures import DeadLetter
from .measures import object_counts, percent, rate, seconds_left, share
from .text.format import moment

# Failed objects in the document of a job.
FAILURES_IN_JSON: Final = 1000


def status_document(
    status: JobStatus, estimate: Mapping[str, Any] | None = None, *, advice: Advice | None = None
) -> dict[str, Any]:
    """
    Return the state of a job; *estimate* is what a dry run or the check of a budget found.

    *advice* is what to do next, by default that for a job of a fleet.
    """
    advice = advise(status) if advice is None else advice
    to_copy = (
        estimate if estimate and status.dry_run else {"objects": {"to_copy": 0}, "bytes": {"to_copy": 0}}
    )
    end = status.ended_at or time.time()
    left = seconds_left(status)
    return {
        "job": status.job_id,
        "action": str(status.action),
        "state": str(status.state),
        "superseded": status.superseded,
        "dismissed": None
        if status.dismissed is None
        else {
            "at": moment(status.dismissed.at),
            "by": status.dismissed.by,
            "why": status.dismissed.why,
        },
        "continues": status.continues or None,
        "continued_by": status.continued_by or None,
        "bounded": status.bounded or None,
        "partly_planned": status.partly_planned,
        "paused": status.paused,
        "cancelling": status.cancelling and not status.state.final,
        "dry_run": status.dry_run,
        "priority": status.priority,
        "queue": status.queue,
        "source": status.source,
        "destination": status.destination,
        "snapshot": status.first_snapshot,
        "snapshots": {
            "total": status.snapshots_total,
            "published": 0,
            "verified": 0,
            "fetched": 0,
            WORDS[status.action].snapshot: status.snapshots_published,
            "trusted": status.snapshots_trusted,
            "failed": status.snapshots_failed,
        },
        "objects": {
            "total": status.objects_total,
            "copied": status.copied,
            "present": status.present,
            "failed": status.failed,
            "healed": status.healed,
            "to_copy": to_copy["objects"]["to_copy"],
        },
        "bytes": {
            "total": status.bytes_total,
            "copied": status.bytes_copied,
            "to_copy": to_copy["bytes"]["to_copy"],
        },
        "progress": {
            "objects": status.objects_settled,
            "bytes": status.bytes_settled,
            "share": round(share(status), 6),
            "percent": percent(status),
            "states": {str(state): count for state, count in object_counts(status).items()},
            "bytes_per_second": round(rate(status)),
            "seconds_left": None if left is None else round(left, 3),
        },
        "batches": {
            "total": status.batches_total,
            "handed_out": status.batches_handed,
            "done": status.batches_done,
        },
        "manifests_healed": status.manifests_healed,
        "deleted": status.deleted,
        "names": {
            "carried": status.names_carried,
            "kept": status.names_kept,
            "removed": status.names_removed,
        },
        "limits": limit_document(status.limits),
        "waiting": waiting_document(status.waiting),
        "workers": list(status.workers),
        "in_flight": [
            {
                "worker": run.worker,
                "batch": run.name,
                "objects": run.in_flight,
                "moved": moment(run.moved_at),
            }
            for run in status.running
        ],
        "in_parts": [
            {
                "object": one.address,
                "bytes": one.size_bytes,
                "parts": one.parts,
                "done": one.done,
                "workers": list(one.workers),
            }
            for one in status.in_parts
        ],
        "submitted": moment(status.submitted_at),
        "started": moment(status.started_at),
        "moved": moment(status.moved_at),
        "ended": moment(status.ended_at),
        "seconds": round(max(0.0, end - status.submitted_at), 3),
        "error": status.error,
        "cause": status.cause or None,
        "advice": advice_document(advice),
    } | ({"estimate": dict(estimate)} if estimate else {})


def advice_document(advice: Advice) -> dict[str, str | None] | None:
    """Return what to do next, None for nothing."""
    return {"sentence": advice.sentence, "command": advice.command or None} if advice else None


def waiting_document(waiting: Waiting | None) -> dict[str, Any] | None:
    """Return the store that a job waits for, None if it does not wait."""
    if waiting is None:
        return None
    return {"store": waiting.store, "reason": waiting.reason, "since": moment(waiting.since)}


def trouble_document(trouble: StoreProblem) -> dict[str, Any]:
    """Return which worker cannot reach which store, and why."""
    return {
        "worker": trouble.worker,
        "store": trouble.store,
        "kind": trouble.kind,
        "error": trouble.error,
        "reason": trouble.detail,
        "since": moment(trouble.since),
    }


def end_document(
    status: JobStatus,
    letters: Sequence[DeadLetter],
    estimate: Mapping[str, Any] | None = None,
    unreadable: Sequence[SnapshotRow] = (),
    *,
    advice: Advice | None = None,
) -> dict[str, Any]:
    """Return the state of a job that was followed to its end, with its first failures and *unreadable* manifests."""
    return status_document(status, estimate, advice=advice) | {
        "errors": [
            {
                "address": letter.known.failure.address,
                "error": letter.known.failure.error,
                "store": letter.known.failure.store,
                "detail": letter.known.failure.detail,
                "places": [{"snapshot": snapshot_id, "path": path} for snapshot_id, path in letter.places],
                "places_total": letter.places_total,
            }
            for letter in letters[:FAILURES_IN_JSON]
            if letter.known is not None
        ],
        "unreadable": [{"snapshot": row.id, "reason": row.reason} for row in unreadable[:FAILURES_IN_JSON]],
    }


def snapshot_document(row: SnapshotRow) -> dict[str, Any]:
    """Return a snapshot of a job."""
    return {
        "id": row.id,
        "state": row.state,
        "objects": row.objects,
        "bytes": row.size_bytes,
        "copied": row.copied,
        "present": row.present,
        "shared": row.shared,
        "missing": row.missing,
        "ended": moment(row.ended_at),
        "reason": row.reason,
    }


def letter_document(letter: DeadLetter, *, places: bool = True) -> dict[str, Any]:
    """Return a failed object; *places* is False if the source could not be read."""
    known = letter.known
    found = [{"snapshot": snapshot_id, "path": path} for snapshot_id, path in letter.places]
    return {
        "address": letter.address,
        "manifest": None,
        "size": letter.size_bytes if places else None,
        "error": known.failure.error if known else None,
        "store": known.failure.store if known else None,
        "detail": known.failure.detail if known else None,
        "attempts": known.attempts if known else None,
        "worker": known.worker if known else None,
        "places": found if places else None,
        "places_total": letter.places_total if places else None,
    }


def unreadable_document(row: SnapshotRow) -> dict[str, Any]:
    """Return a manifest that could not be read, in the form of a failed object."""
    error, _, detail = row.reason.partition(": ")
    return {
        "address": None,
        "manifest": row.id,
        "size": None,
        "error": error,
        "store": None,
        "detail": detail,
        "attempts": None,
        "worker": None,
        "places": [],
        "places_total": 0,
    }


def limit_document(limits: Limits) -> dict[str, int | None]:
    """Return the limits of a job or a store."""
    found = {
        "bytes_per_second": limits.rate,
        "requests_per_second": limits.requests,
        "objects_in_flight": limits.jobs,
    }
    return found | ({"requests_by_default": limits.by_default} if isinstance(limits, StoreLimits) else {})
