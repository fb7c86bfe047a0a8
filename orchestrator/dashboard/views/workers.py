"""The list of workers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from snapferry.orchestrator.dashboard.worker_roster import WorkerState
from snapferry.workers.ledger import RunningBatch

from .sources import LIVELY_S, Sources

# Jobs of a worker that are listed.
JOBS_LISTED: Final = 20


@dataclass(frozen=True)
class WorkerLine:
    """
    A worker in a list; *heartbeat* is None before the dashboard has received one.

    *batches* is the number of batches that it runs. *jobs* has pairs of job id and page; *more* is the number of jobs
    that are left out.
    """

    name: str
    heartbeat: WorkerState | None
    batches: int
    jobs: tuple[tuple[str, str], ...]
    more: int
    href: str


def workers_page(sources: Sources) -> dict[str, Any]:
    """Return the values of the list of workers."""
    lines = worker_lines(sources.roster.workers(), sources.jobs.running(), sources.flower)
    return {"lines": lines, "refresh_s": LIVELY_S}


def worker_lines(
    roster: Sequence[WorkerState], running: Iterable[RunningBatch], flower: str, *, most: int | None = None
) -> list[WorkerLine]:
    """Return at most *most* workers that are in the *roster* or have *running* batches, the busiest first."""
    batches_of: dict[str, dict[str, int]] = {}
    for batch in running:
        jobs = batches_of.setdefault(batch.worker, {})
        jobs[batch.job_id] = jobs.get(batch.job_id, 0) + 1
    known = {worker.name: worker for worker in roster}
    names = sorted(
        known.keys() | batches_of.keys(), key=lambda name: (-sum(batches_of.get(name, {}).values()), name)
    )
    return [
        WorkerLine(
            name=name,
            heartbeat=known.get(name),
            batches=sum((jobs := batches_of.get(name, {})).values()),
            jobs=tuple((job_id, f"/jobs/{quote(job_id)}") for job_id in list(jobs)[:JOBS_LISTED]),
            more=max(0, len(jobs) - JOBS_LISTED),
            href=f"{flower}/worker/{quote(name, safe='@', errors='replace')}"
            if flower and name in known
            else "",
        )
        for name in names[:most]
    ]
