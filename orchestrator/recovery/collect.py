"""Make an export from the records in Redis. Nothing is written, but the name of the server's data."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from typing import Any, Final

import redis
from pydantic import ValidationError

from snapferry.orchestrator.driving.snapshot_rows import snapshot_rows
from snapferry.stores.errors import InvalidAddress
from snapferry.workers.ledger import JobStatus, Ledger, UnknownJob
from snapferry.workers.lua import RedisKey

from .document import COUNTERS, MOST_JOBS, MOST_ROWS, SCHEMA, Export, ExportedJob
from .schedules import exported_schedules

# A random word that ends with the server's data. So an export tells whether they are lost.
_INSTANCE: Final = RedisKey("snapferry:instance")


def instance(client: redis.Redis) -> str:
    """Return the name of the data of this Redis server. Data without a name get one."""
    client.set(_INSTANCE, secrets.token_hex(16), nx=True)
    return str(client.get(_INSTANCE) or "")


def export(ledger: Ledger, *, open_only: bool = False) -> Export:
    """
    Return the export of all jobs, the latest first, or of those that have not ended, and of all schedules.

    At most `MOST_JOBS` jobs. Raises `redis.exceptions.RedisError`.
    """
    job_ids = ledger.open_jobs() if open_only else ledger.job_ids()
    found = list(islice(_jobs(ledger, job_ids), MOST_JOBS))
    # Between the reading of the list and that of the record, a job may end or expire.
    jobs = [job for job in found if job is not None and not (open_only and job.state.final)]
    return Export.model_validate(
        {
            "schema": SCHEMA,
            "tool": f"snapferry {version('snapferry')}",
            "exported_at": _now(ledger.client),
            "instance": instance(ledger.client),
            "open_only": open_only,
            "unreadable": found.count(None),
            "jobs": tuple(jobs),
            "schedules": tuple(exported_schedules(ledger.client)),
        }
    )


def as_text(document: Export) -> str:
    """Return *document* as JSON, one job a line, without what has its default."""
    fields = document.model_dump(mode="json", by_alias=True, exclude={"jobs", "schedules"})
    lists = {
        "jobs": [_dumped(job) for job in document.jobs],
        "schedules": [one.model_dump(mode="json", exclude_defaults=True) for one in document.schedules],
    }
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
    for name, values in lists.items():
        lines = ",\n".join(json.dumps(value, separators=(",", ":")) for value in values)
        parts.append(f'"{name}": [\n{lines}\n]')
    return "{" + ",\n".join(parts) + "}\n"


def _dumped(job: ExportedJob) -> dict[str, Any]:
    found = job.model_dump(mode="json", exclude_defaults=True, exclude={"request"})
    request = job.request
    return {"request": request.model_dump(mode="json", exclude=request.new_defaults()), **found}


def _jobs(ledger: Ledger, job_ids: Iterable[str]) -> Iterator[ExportedJob | None]:
    """Yield jobs, None for one whose record cannot be read."""
    for job_id in job_ids:
        try:
            yield _job(ledger, job_id)
        except UnknownJob:
            # The record has expired, or is damaged.
            if ledger.client.exists(RedisKey(f"snapferry:job:{job_id}")):
                yield None
        except (ValidationError, InvalidAddress, ValueError, TypeError, LookupError):
            yield None


def _job(ledger: Ledger, job_id: str) -> ExportedJob:
    status, spec = ledger.status(job_id), ledger.spec(job_id)
    raw: list[Any] = ledger.client.hmget(RedisKey(f"snapferry:job:{job_id}"), [*COUNTERS, "schedule"])
    *counts, schedule = raw
    rows: Any = None
    if status.state.final and status.snapshots_total <= MOST_ROWS:
        rows = [asdict(row) for row in snapshot_rows(ledger, job_id)]
    return ExportedJob(
        # The limits and the priority are those that the job has now.
        request=spec.model_copy(update={"limits": status.limits}),
        state=status.state,
        paused=status.paused and not status.state.final,
        cancelling=status.cancelling and not status.state.final,
        schedule=schedule or "",
        continued_by=status.continued_by,
        **_times(status),
        error=status.error,
        cause=status.cause,
        bounded=status.bounded,
        counters={name: int(count) for name, count in zip(COUNTERS, counts, strict=True) if count},
        snapshots=rows,
    )


def _times(status: JobStatus) -> dict[str, Any]:
    return {name: getattr(status, name) for name in ("submitted_at", "started_at", "ended_at")}


def _now(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6
