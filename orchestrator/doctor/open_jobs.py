"""Which open jobs are held, and which do not move."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import redis

from snapferry.orchestrator.driving.reconcile import why_drive
from snapferry.orchestrator.reporting.report import waiting_words
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import Ledger, UnknownJob
from snapferry.workers.queues import PLAN_QUEUE, copy_queue, lists
from snapferry.workers.settings.environment import Settings

# Jobs that are open; there are seldom more than a few.
MOST_JOBS: Final = 1000
STUCK_S: Final = 60.0


def _waiting(ledger: Ledger, job_id: str) -> Finding:
    status = ledger.status(job_id)
    words = waiting_words(status.waiting) if status.waiting else "waiting for a store"
    advice = (
        f"make the store answer; snapferry status {job_id} lists the workers that cannot reach it, and why"
    )
    return Finding(Level.WARNING, "jobs.waiting", f"job {job_id} is {words}", advice)


def jobs_findings(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Say which open jobs are held, and which do not move though nothing holds them."""
    ledger = Ledger(client, expires_s=settings.job_expires)
    open_jobs = ledger.open_jobs()
    troubled = 0
    for job_id in open_jobs[:MOST_JOBS]:
        with suppress(UnknownJob):
            try:
                standing, neglected = ledger.neglected(job_id)
            except ValueError:
                # A state of another version.
                continue
            if standing.paused:
                troubled += 1
                said = f"job {job_id} is paused: nothing of it is handed out"
                yield Finding(Level.WARNING, "jobs.paused", said, f"snapferry continue {job_id}")
                continue
            if standing.waiting:
                troubled += 1
                yield _waiting(ledger, job_id)
                continue
            why = why_drive(standing, neglected=neglected, driven=ledger.driven(job_id))
            if why and standing.idle_s > STUCK_S:
                troubled += 1
                said = f"job {job_id} ({standing.state}) has not moved for {standing.idle_s:.0f} s: {why}"
                advice = (
                    f"an orchestrator takes it up within a minute, if one runs; snapferry status {job_id}"
                )
                yield Finding(Level.WARNING, "jobs.stuck", said, advice)
    if len(open_jobs) > MOST_JOBS:
        yield Finding(
            Level.NOTE, "jobs", f"of {len(open_jobs):,} open jobs only {MOST_JOBS:,} were looked at"
        )
    queues = {PLAN_QUEUE, copy_queue("")}
    queues.update(copy_queue(status.queue) for status in ledger.statuses(open_jobs[:MOST_JOBS]))
    waiting = sum(int(client.llen(name)) for queue in queues for name in lists(queue))
    said = f"{counted(len(open_jobs), 'open job')}, {counted(waiting, 'task')} in the queues"
    yield Finding(Level.OK, "jobs", said + ("" if troubled else "; none is paused or stuck"))
