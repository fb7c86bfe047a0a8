"""How mirrors stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snapferry.orchestrator.jobs import JobReader
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import JobStatus, MirrorLedger, MirrorRecord, UnknownJob
from snapferry.workers.settings.config_file import Mirror
from snapferry.workers.settings.environment import Settings


@dataclass(frozen=True)
class MirrorStatus:
    """
    A mirror, the record of its runs, its last job, and when it is due next.

    *job* is None for a job whose record expired, and before the first run. *next_at*, in seconds since the epoch, is
    None for a mirror that is not in the schedule.
    """

    mirror: Mirror
    record: MirrorRecord
    job: JobStatus | None
    next_at: float | None


def mirror_statuses(settings: Settings, jobs: JobReader, mirrors: Iterable[Mirror]) -> list[MirrorStatus]:
    """Return how each of *mirrors* stands, in their order."""
    assert settings.broker_url is not None  # a fleet with a schedule has a broker
    ledger = MirrorLedger(client(settings.broker_url))
    found = []
    for mirror in mirrors:
        record = ledger.record(mirror.name)
        found.append(MirrorStatus(mirror, record, last_job(jobs, record), ledger.next_at(mirror.name)))
    return found


def last_job(jobs: JobReader, record: MirrorRecord) -> JobStatus | None:
    """Return the status of a mirror's last job; None before the first run, and for a job whose record expired."""
    if not record.job_id:
        return None
    try:
        return jobs.status(record.job_id)
    except UnknownJob:
        return None
