"""What Redis knows of ended jobs, mirrors and scrubs, for the decision of what to tell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from snapferry.orchestrator.notify.records import NotificationLedger, Problem
from snapferry.orchestrator.schedules.lateness import Standing, standings
from snapferry.workers.ledger import FreshnessLedger, JobStatus, Ledger, ScrubLedger
from snapferry.workers.ledger.keys import SCRUB

from .decide import Event, Facts

# Ended jobs that are told in one message.
MOST_JOBS: Final = 10_000

# Jobs that are followed back from one that continues others.
_LONGEST_CHAIN: Final = 100


def gather(ledger: Ledger, known: Mapping[str, Problem]) -> Facts:
    """Return what is known now. Raises `RedisError`; may be called again."""
    freshness = FreshnessLedger(ledger.client)
    ids = NotificationLedger(ledger.client).untold(MOST_JOBS)
    ended = sorted(ledger.statuses(ids), key=lambda status: status.ended_at)
    fresh = {one.expected.key: one for one in freshness.freshness()}
    standing = {problem.job for subject, problem in known.items() if subject in fresh and problem.job}
    return Facts(
        now=freshness.now(),
        ended=ended,
        schedules=freshness.schedules_of(status.job_id for status in ended),
        ancestors=_ancestors(ledger, ended),
        fresh=fresh,
        standing={status.job_id: status for status in ledger.statuses(sorted(standing))},
        findings=_findings(ledger, fresh),
        expired=sorted(set(ids) - {status.job_id for status in ended}),
    )


def standings_of(ledger: Ledger, events: Iterable[Event]) -> dict[str, Standing]:
    """Return how the runs stand of each mirror and scrub of *events* that is late."""
    late = {event.subject: event.freshness for event in events if event.freshness is not None}
    return standings(ledger.client, late.values(), ledger.statuses)


def _ancestors(ledger: Ledger, ended: Iterable[JobStatus]) -> dict[str, list[str]]:
    """Return job -> the jobs that it continues, the nearest first."""
    found: dict[str, list[str]] = {status.job_id: [status.continues] for status in ended if status.continues}
    ahead = {job: chain[-1] for job, chain in found.items()}
    for _ in range(_LONGEST_CHAIN):
        if not ahead:
            break
        earlier = {status.job_id: status.continues for status in ledger.statuses(sorted(set(ahead.values())))}
        ahead = {job: before for job, at in ahead.items() if (before := earlier.get(at, ""))}
        for job, before in ahead.items():
            found[job].append(before)
    return found


def _findings(ledger: Ledger, fresh: Iterable[str]) -> dict[str, int]:
    scrubs = ScrubLedger(ledger.client)
    names = [key.partition(":")[2] for key in fresh if key.startswith(f"{SCRUB}:")]
    states = {name: scrubs.state(name) for name in names}
    return {name: state.findings for name, state in states.items() if state is not None}
