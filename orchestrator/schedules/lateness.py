"""
Why a mirror or scrub is late, and what to do about it.

The one place that decides it. The dashboard, `doctor` and notifications show it, in their own form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import redis

from snapferry.orchestrator.reporting.advice import Advice, advise
from snapferry.orchestrator.reporting.nodes import Role
from snapferry.orchestrator.reporting.text.status import state_text
from snapferry.workers.ledger import Freshness, JobStatus, ScheduleLedger, State

# Seconds after the due time of a run at which no scheduler works on it.
OVERDUE_S: Final = 30.0


@dataclass(frozen=True)
class Standing:
    """
    How the runs of a mirror or scrub stand: its last *job*, and when it is due next.

    *job* is None before the first run, and if its record expired. *next_at* is None for one that is not scheduled.
    """

    job: JobStatus | None = None
    next_at: float | None = None


class Cause(StrEnum):
    """Why a mirror or scrub is late. JOB: its last job did not succeed. NO_JOB: none is known."""

    REMOVED = "removed"
    UNSCHEDULED = "unscheduled"
    NO_SCHEDULER = "no scheduler"
    NO_JOB = "no job"
    JOB = "job"


@dataclass(frozen=True)
class Lateness:
    """Why a mirror or scrub is late, what to do, and its last *job* if that is the cause."""

    cause: Cause
    advice: Advice
    job: JobStatus | None = None


def standings(
    client: redis.Redis,
    names: Iterable[Freshness],
    statuses: Callable[[list[str]], Iterable[JobStatus]],
) -> dict[str, Standing]:
    """
    Return how the runs of each of *names* stand, by its key, such as "mirror:nightly".

    *statuses* returns the statuses of jobs that are known.
    """
    expected = [one.expected for one in names]
    runs: dict[str, tuple[str, float | None]] = {}
    for kind in dict.fromkeys(one.kind for one in expected):
        of_kind = [one.name for one in expected if one.kind == kind]
        found = ScheduleLedger(client, kind).last_and_next(of_kind)
        runs |= {f"{kind}:{name}": run for name, run in found.items()}
    wanted = sorted({job_id for job_id, _ in runs.values() if job_id})
    jobs = {status.job_id: status for status in statuses(wanted)}
    return {key: Standing(jobs.get(job_id), next_at) for key, (job_id, next_at) in runs.items()}


def lateness(freshness: Freshness, standing: Standing, *, lacks: Role | None = None) -> Lateness:
    """
    Return why a mirror or scrub of a fleet is late, and what to do.

    *lacks* is the role of which no process runs that could take the next step of its last job, None if that is not
    known.
    """
    kind, name = freshness.expected.kind, freshness.expected.name
    listing = ("snapferry", f"{kind}s")
    see_runs = Advice("See its runs.", listing)
    if freshness.removed_at:
        sentence = "Put it back into snapferry.toml and restart the scheduler, or expect it no longer."
        return Lateness(Cause.REMOVED, Advice(sentence, (*listing, "--forget", name)))
    if standing.next_at is None or standing.next_at < freshness.now - OVERDUE_S:
        cause = Cause.UNSCHEDULED if standing.next_at is None else Cause.NO_SCHEDULER
        return Lateness(cause, Advice("Start a scheduler, or restart it.", ("snapferry", "scheduler")))
    job = standing.job
    if job is None:
        return Lateness(Cause.NO_JOB, see_runs)
    if job.state.final:
        return Lateness(Cause.JOB, advise(job) or see_runs, job)
    waits = Advice("See what the job waits for.", ("snapferry", "status", job.job_id))
    return Lateness(Cause.JOB, advise(job, lacking=lacks) or waits, job)


def cause_text(found: Lateness, *, several: bool = False) -> str:
    """Return in a sentence why a mirror or scrub is late, or *several* are for the same cause."""
    match found.cause:
        case Cause.REMOVED:
            return "It was removed from the schedule."
        case Cause.UNSCHEDULED:
            return f"{'They are' if several else 'It is'} not in the schedule."
        case Cause.NO_SCHEDULER:
            return f"No scheduler works on {'their schedules' if several else 'its schedule'}."
        case Cause.NO_JOB:
            return f"No job of {'them' if several else 'it'} is on record."
        case Cause.JOB:
            assert found.job is not None  # it is the cause
            failed = found.job.state is State.FAILED and not found.job.superseded
            if several:
                ended = found.job.state.final
                return "Their last jobs did not succeed." if ended else "Their last jobs have not ended."
            return "Its last job failed." if failed else f"Its last job is {state_text(found.job)}."
