"""How mirrors and scrubs stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snapferry.orchestrator.jobs import JobReader
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import (
    JobStatus,
    ScheduleLedger,
    ScheduleRecord,
    ScrubLedger,
    ScrubState,
    UnknownJob,
)
from snapferry.workers.settings.environment import Settings
from snapferry.workers.settings.schedule_tables import Mirror, Scrub


@dataclass(frozen=True)
class ScheduleStatus:
    """
    The record of the runs of a mirror or scrub, its last job, and when it is due next.

    *job* is None for a job whose record expired, and before the first run. *next_at*, in seconds since the epoch, is
    None for one that is not in the schedule.
    """

    record: ScheduleRecord
    job: JobStatus | None
    next_at: float | None


@dataclass(frozen=True)
class MirrorStatus(ScheduleStatus):
    """How a mirror stands."""

    mirror: Mirror


@dataclass(frozen=True)
class ScrubStatus(ScheduleStatus):
    """How a scrub stands. *state* is None before a scheduler or a run has begun its first cycle."""

    scrub: Scrub
    state: ScrubState | None


def mirror_statuses(settings: Settings, jobs: JobReader, mirrors: Iterable[Mirror]) -> list[MirrorStatus]:
    """Return how each of *mirrors* stands, in their order."""
    ledger = ScheduleLedger(client(_broker(settings)), "mirror")
    return [MirrorStatus(*_runs(ledger, jobs, mirror.name), mirror) for mirror in mirrors]


def scrub_statuses(settings: Settings, jobs: JobReader, scrubs: Iterable[Scrub]) -> list[ScrubStatus]:
    """Return how each of *scrubs* stands, in their order."""
    ledger = ScrubLedger(client(_broker(settings)))
    return [
        ScrubStatus(*_runs(ledger, jobs, scrub.name), scrub, ledger.state(scrub.name)) for scrub in scrubs
    ]


def _runs(
    ledger: ScheduleLedger, jobs: JobReader, name: str
) -> tuple[ScheduleRecord, JobStatus | None, float | None]:
    record = ledger.record(name)
    return record, last_job(jobs, record), ledger.next_at(name)


def _broker(settings: Settings) -> str:
    assert settings.broker_url is not None  # a fleet with a schedule has a broker
    return settings.broker_url


def last_job(jobs: JobReader, record: ScheduleRecord) -> JobStatus | None:
    """Return the status of the last job of a mirror or scrub; None before the first, and if its record expired."""
    if not record.job_id:
        return None
    try:
        return jobs.status(record.job_id)
    except UnknownJob:
        return None
