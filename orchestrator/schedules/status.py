"""How mirrors and scrubs stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from snapferry.orchestrator.jobs import JobReader
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import (
    Freshness,
    FreshnessLedger,
    JobStatus,
    ScheduleLedger,
    ScheduleRecord,
    ScrubLedger,
    ScrubState,
    State,
    UnknownJob,
)
from snapferry.workers.messages import ScheduleKind
from snapferry.workers.settings.environment import Settings
from snapferry.workers.settings.schedule_tables import Mirror, Scrub


@dataclass(frozen=True)
class ScheduleStatus:
    """
    The record of the runs of a mirror or scrub, its last job, and when it is due next.

    *job* is None for a job whose record expired, and before the first run. *next_at*, in seconds since the epoch, is
    None for one that is not in the schedule. *freshness* is None before a scheduler or an orchestrator has seen it.
    """

    record: ScheduleRecord
    job: JobStatus | None
    next_at: float | None
    freshness: Freshness | None

    @property
    def success_at(self) -> float:
        """When a run last succeeded, in seconds since the epoch, 0.0: never."""
        return success_at(self.freshness, self.job)


@dataclass(frozen=True)
class MirrorStatus(ScheduleStatus):
    """How a mirror stands."""

    mirror: Mirror

    @property
    def name(self) -> str:
        """The name of the mirror."""
        return self.mirror.name


@dataclass(frozen=True)
class ScrubStatus(ScheduleStatus):
    """How a scrub stands. *state* is None before a scheduler or a run has begun its first cycle."""

    scrub: Scrub
    state: ScrubState | None

    @property
    def name(self) -> str:
        """The name of the scrub."""
        return self.scrub.name


def mirror_statuses(settings: Settings, jobs: JobReader, mirrors: Iterable[Mirror]) -> list[MirrorStatus]:
    """Return how each of *mirrors* stands, in their order."""
    ledger = ScheduleLedger(client(_broker(settings)), "mirror")
    fresh = freshness_of(ledger)
    return [MirrorStatus(*_runs(ledger, jobs, mirror.name, fresh), mirror) for mirror in mirrors]


def scrub_statuses(settings: Settings, jobs: JobReader, scrubs: Iterable[Scrub]) -> list[ScrubStatus]:
    """Return how each of *scrubs* stands, in their order."""
    ledger = ScrubLedger(client(_broker(settings)))
    fresh = freshness_of(ledger)
    return [
        ScrubStatus(*_runs(ledger, jobs, scrub.name, fresh), scrub, ledger.state(scrub.name))
        for scrub in scrubs
    ]


def unlisted(settings: Settings, kind: ScheduleKind, listed: Iterable[str]) -> list[Freshness]:
    """Return how fresh the mirrors or scrubs are that are expected, but not among the *listed* names."""
    found = freshness_of(ScheduleLedger(client(_broker(settings)), kind))
    return [found[name] for name in sorted(found.keys() - set(listed))]


def forget(settings: Settings, kind: ScheduleKind, name: str) -> bool:
    """Expect a mirror or scrub no longer; return whether it was expected."""
    return FreshnessLedger(client(_broker(settings))).forget(kind, name)


def freshness_of(ledger: ScheduleLedger) -> dict[str, Freshness]:
    """Return name -> how fresh each mirror or scrub is that is expected to run."""
    found = FreshnessLedger(ledger.client).freshness()
    return {one.expected.name: one for one in found if one.expected.kind == ledger.kind}


def success_at(freshness: Freshness | None, job: JobStatus | None) -> float:
    """
    Return when a mirror or scrub last succeeded, in seconds since the epoch, 0.0: never.

    A last *job* that is done counts although no orchestrator has settled it yet.
    """
    recorded = freshness.success_at if freshness is not None else 0.0
    done = job.ended_at if job is not None and job.state is State.DONE else 0.0
    return max(recorded, done)


def _runs(
    ledger: ScheduleLedger, jobs: JobReader, name: str, fresh: dict[str, Freshness]
) -> tuple[ScheduleRecord, JobStatus | None, float | None, Freshness | None]:
    record = ledger.record(name)
    return record, last_job(jobs, record), ledger.next_at(name), fresh.get(name)


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
