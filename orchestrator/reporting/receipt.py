"""The receipt: the final account of a job, snapshot by snapshot. docs/json.md describes it."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any, Final

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow, snapshot_rows
from snapferry.orchestrator.driving.steps.verify import STOPPED_AT
from snapferry.stores.names.name import is_name
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import Action, JobSpec, StoreRef, decode_addresses

from .text.format import moment

SCHEMA: Final = "snapferry.receipt/1"

# How each outcome was verified, in a job that copies.
VERIFIED: Final = {
    "copied": "hashed (BLAKE3) while it was read; the destination then confirmed that it has it",
    "present": "the destination confirmed that it has it, by name and size",
    "manifest": "hashed (BLAKE3) when read from the source, and again when read back from the destination",
    "trusted": "not verified: the destination had its manifest, and --trust-manifest was set",
}

# What is different in a job of another action.
_VERIFIED_BY: Final = {
    Action.VERIFY: {
        "present": "all of its bytes were read and hashed (BLAKE3)",
        "manifest": "hashed (BLAKE3) when read",
    },
    Action.HEAL: {
        "copied": "hashed (BLAKE3) while it was read from a source, and again when read back from the store",
        "present": "all of its bytes were read and hashed (BLAKE3)",
        "manifest": "hashed (BLAKE3) when read from the store or from a source",
    },
}
_VERIFIED_COMPARED: Final = {"present": "all of its bytes at the destination were read and hashed (BLAKE3)"}
_VERIFIED_ON_SERVER: Final = {
    "copied": (
        "the source was read and hashed (BLAKE3); the server copied the same version of it, for as many objects as"
        " confirmed.server says, and the others were sent; the destination then confirmed that it has it"
    )
}
_VERIFIED_FAST: Final = {
    "present": "the store has it with the length in the manifest, or all of its bytes were read and hashed (BLAKE3)"
}

# How an S3 store can confirm that it has the bytes that were sent; "none": not at all.
# "server": it was not sent, the server copied what was read.
CONFIRMED_BY: Final = ("digest", "etag", "read_back", "server", "none")


def receipt(ledger: Ledger, job_id: str) -> dict[str, Any]:
    """Return the receipt of a job as a JSON document, preliminary if the job has not ended."""
    status, spec = ledger.status(job_id), ledger.spec(job_id)
    deleted = ledger.field(job_id, "deleted_ids")
    return {
        "schema": SCHEMA,
        "tool": f"snapferry {version('snapferry')}",
        "job": job_id,
        "action": str(spec.action),
        "state": str(status.state),
        "final": status.state.final,
        **({"imported": True} if ledger.field(job_id, "imported") else {}),
        "partly_planned": status.partly_planned,
        "error": status.error,
        "resumes": spec.resumes or spec.retries or None,
        "source": _store(spec.source),
        "more_sources": [_store(reference) for reference in spec.more_sources],
        "destination": _store(spec.destination),
        "submitted": moment(status.submitted_at),
        "started": moment(status.started_at),
        "ended": moment(status.ended_at),
        "objects": {
            "total": status.objects_total,
            "copied": status.copied,
            "present": status.present,
            "failed": status.failed,
            "healed": status.healed,
        },
        "bytes": {"total": status.bytes_total, "copied": status.bytes_copied},
        "manifests_healed": status.manifests_healed,
        "verified": VERIFIED
        | _VERIFIED_BY.get(spec.action, {})
        | (_VERIFIED_FAST if spec.verify.fast else {})
        | (_VERIFIED_COMPARED if spec.checksum else {})
        | (_VERIFIED_ON_SERVER if spec.server_side else {}),
        "scope": _scope(spec)
        | {
            "fast": spec.verify.fast,
            "bounded": status.bounded or None,
            "stopped_at": ledger.field(job_id, STOPPED_AT) or None,
        },
        "confirmed": _confirmed(ledger, job_id),
        "snapshots": [_document(row) for row in snapshot_rows(ledger, job_id)],
        "repaired": [repair._asdict() for repair in ledger.repairs(job_id)],
        "deleted": decode_addresses(deleted),
        "names": {
            "carried": status.names_carried,
            "kept": _names(ledger, job_id, "kept_names"),
            "removed": _names(ledger, job_id, "removed_names"),
        },
    }


def _confirmed(ledger: Ledger, job_id: str) -> dict[str, int]:
    counts = {name: ledger.field(job_id, f"confirmed:{name}") for name in CONFIRMED_BY}
    return {name: int(count) for name, count in counts.items() if count and count.isdigit()}


def _names(ledger: Ledger, job_id: str, field: str) -> list[str]:
    return [name for name in (ledger.field(job_id, field) or "").split() if is_name(name)]


def _scope(spec: JobSpec) -> dict[str, Any]:
    """Return the part of the address space that a job looks at."""
    scope = spec.scope
    return {
        "first": scope.first or None,
        "last": scope.last or None,
        "sample": scope.sample if scope.samples > 1 else None,
        "samples": scope.samples if scope.samples > 1 else None,
    }


def _store(reference: StoreRef) -> dict[str, str | None]:
    return {"url": reference.url, "objects_url": reference.objects_url}


def _document(row: SnapshotRow) -> dict[str, Any]:
    found = asdict(row)
    found["bytes"] = found.pop("size_bytes")
    found["ended"] = moment(found.pop("ended_at"))
    return found
