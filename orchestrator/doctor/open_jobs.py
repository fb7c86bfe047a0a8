"""Checks of open jobs: which are paused, and which make no progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Final

import redis

from snapferry.orchestrator.driving.reconcile import why_drive
from snapferry.orchestrator.reporting.text.status import waiting_text
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import Ledger, UnknownJob
from snapferry.workers.queues import PLAN_QUEUE, copy_queue, lists
from snapferry.workers.settings.environment import Settings

# Open jobs that are checked; a fleet seldom has more than a few.
MOST_JOBS: Final = 1000

# Seconds without progress after which a job counts as stuck.
STUCK_S: Final = 60.0


def check_jobs(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each open job that is paused, waits for a store, or is stuck, and one about all of them."""
    ledger = Ledger(client, expires_s=settings.job_expires)
    open_jobs = ledger.open_jobs()
    troubled = 0
    for job_id in open_jobs[:MOST_JOBS]:
        with suppress(UnknownJob):
            try:
                found = _check_job(ledger, job_id)
            except ValueError:
                # Another version knows the state of this job.
                continue
            if found is not None:
                troubled += 1
                yield found
    if len(open_jobs) > MOST_JOBS:
        said = f"only {counted(MOST_JOBS, 'open job', of=len(open_jobs), verb='was')} checked"
        yield Finding(Level.NOTE, "jobs", said)
    queues = {PLAN_QUEUE, copy_queue("")}
    queues.update(copy_queue(status.queue) for status in ledger.statuses(open_jobs[:MOST_JOBS]))
    queued = sum(int(client.llen(name)) for queue in queues for name in lists(queue))
    said = f"{counted(len(open_jobs), 'open job')}, {counted(queued, 'queued task')}"
    yield Finding(Level.OK, "jobs", said + ("" if troubled else "; none is paused or stuck"))


def _check_job(ledger: Ledger, job_id: str) -> Finding | None:
    standing, neglected = ledger.neglected(job_id)
    if standing.paused:
        return Finding(
            Level.WARNING,
            "jobs.paused",
            f"job {job_id} is paused",
            f"to resume it: snapferry continue {job_id}",
        )
    # A step of an orchestrator may wait for a store, too.
    waiting = ledger.status(job_id).waiting
    if standing.waiting or waiting is not None:
        said = f"job {job_id} is {waiting_text(waiting) if waiting else 'waiting for a store'}"
        advice = f"make the store reachable; snapferry status {job_id} lists the workers that cannot reach it"
        return Finding(Level.WARNING, "jobs.waiting", said, advice)
    reason = why_drive(standing, neglected=neglected, driven=ledger.driven(job_id))
    if not reason or standing.idle_s <= STUCK_S:
        return None
    said = f"job {job_id} ({standing.state}) has made no progress for {standing.idle_s:.0f} s: {reason}"
    advice = f"an orchestrator continues it within a minute, if one is running; see snapferry status {job_id}"
    return Finding(Level.WARNING, "jobs.stuck", said, advice)
