"""
From facts to events: which failures, lateness and recoveries are told, and what was told and is over.

A problem of a mirror or scrub is told when it begins, again after a while if it persists, and once when it is over. A
job that failed is told once, and once more when a retry of it is done. What is over before it was told is not told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from snapferry.orchestrator.notify.records import MOST_PROBLEMS, Problem
from snapferry.workers.ledger import Freshness, JobStatus, State
from snapferry.workers.ledger.keys import SCRUB
from snapferry.workers.settings.notify_table import EventKind, Notify

# Seconds after which a failed job is not remembered any more: nobody continues it.
REMEMBERED_S: Final = 30 * 86400.0

_JOB: Final = "job:"


@dataclass(frozen=True)
class Facts:
    """
    What is known at one moment, *now* in seconds since the epoch.

    *ended* are jobs that have ended and are not told, the oldest first. *schedules* is job -> the mirror or scrub that
    it belongs to, as "mirror:nightly"; *ancestors* is job -> the jobs that it continues. *fresh* is what is expected
    to run; *standing* are jobs of problems that were told. *findings* is scrub -> wrong objects that are known.
    *expired* are the ids of ended jobs whose records are gone.
    """

    now: float
    ended: Sequence[JobStatus] = ()
    schedules: Mapping[str, str] = field(default_factory=dict)
    ancestors: Mapping[str, Sequence[str]] = field(default_factory=dict)
    fresh: Mapping[str, Freshness] = field(default_factory=dict)
    standing: Mapping[str, JobStatus] = field(default_factory=dict)
    findings: Mapping[str, int] = field(default_factory=dict)
    expired: Sequence[str] = ()


@dataclass(frozen=True)
class Event:
    """
    Something to tell of a *subject*: "mirror:nightly", "scrub:backup" or "job:ID".

    *job* is the job that failed or is done, None if its record has expired; *freshness* is that of a mirror or scrub.
    *since* is when the problem began. *again*: it was told before, and persists.
    """

    kind: EventKind
    subject: str
    since: float
    job: JobStatus | None = None
    freshness: Freshness | None = None
    again: bool = False


@dataclass(frozen=True)
class Decision:
    """What to tell, the jobs that then count as told, and the problems that change (None: over)."""

    events: tuple[Event, ...]
    told: tuple[str, ...]
    problems: Mapping[str, Problem | None]


def decide(facts: Facts, known: Mapping[str, Problem], table: Notify) -> Decision:
    """Return what *facts* mean, given the problems that are *known* because they were told."""
    failed, well = _ends(facts, known)
    changed: dict[str, Problem | None] = {}
    events: list[Event] = []
    for subject in sorted({*failed, *well, *known, *facts.fresh}):
        before = known.get(subject, Problem())
        if subject.startswith(_JOB):
            found = _of_job(facts, table, subject, before, failed.get(subject), well.get(subject))
        elif subject in facts.fresh:
            found = _of_schedule(facts, table, subject, before, failed.get(subject), well.get(subject))
        else:
            # Forgotten by an operator.
            found = [], Problem()
        events += [event for event in found[0] if event.kind in table.events]
        if found[1] != before:
            changed[subject] = found[1] if found[1] != Problem() else None
    changed.update(dict.fromkeys(_continued(facts, known, failed)))
    told = (*(status.job_id for status in facts.ended), *facts.expired)
    return Decision(tuple(events), told, _bounded(changed, known))


def _ends(facts: Facts, known: Mapping[str, Problem]) -> tuple[dict[str, JobStatus], dict[str, JobStatus]]:
    """Return the subjects whose last job failed, and those whose last job ended well, each with that job."""
    failed: dict[str, JobStatus] = {}
    well: dict[str, JobStatus] = {}
    for status in facts.ended:
        schedule = facts.schedules.get(status.job_id, "")
        if schedule in facts.fresh:
            if status.unresolved:
                failed[schedule] = status
                well.pop(schedule, None)
            elif status.state is State.DONE and not _has_findings(facts, schedule):
                well[schedule] = status
                failed.pop(schedule, None)
        elif status.unresolved:
            failed[f"{_JOB}{status.job_id}"] = status
        elif status.state is State.DONE:
            well |= {subject: status for subject in _ancestors(facts, status) if subject in known}
    return failed, well


def _has_findings(facts: Facts, schedule: str) -> bool:
    """Return whether a scrub knows of wrong objects: that a run found none in its share does not end the problem."""
    kind, _, name = schedule.partition(":")
    return kind == SCRUB and facts.findings.get(name, 0) > 0


def _ancestors(facts: Facts, status: JobStatus) -> Iterator[str]:
    return (f"{_JOB}{job}" for job in facts.ancestors.get(status.job_id, ()))


def _continued(facts: Facts, known: Mapping[str, Problem], failed: Mapping[str, JobStatus]) -> Iterator[str]:
    """Yield the jobs that were told and whose continuation failed: that one is told, and its end is theirs."""
    for subject, status in failed.items():
        if subject.startswith(_JOB):
            yield from (one for one in _ancestors(facts, status) if one in known)


Found = tuple[list[Event], Problem]


def _of_job(
    facts: Facts,
    table: Notify,
    subject: str,
    before: Problem,
    failed: JobStatus | None,
    well: JobStatus | None,
) -> Found:
    if well is not None and before.failed:
        return [Event(EventKind.RECOVERED, subject, before.failed, well)], Problem()
    if failed is not None and table.jobs == "all" and EventKind.FAILED in table.events:
        problem = Problem(failed=failed.ended_at, told=facts.now, job=failed.job_id)
        return [Event(EventKind.FAILED, subject, failed.ended_at, failed)], problem
    if before.told and facts.now - before.told > REMEMBERED_S:
        return [], Problem()
    return [], before


def _of_schedule(
    facts: Facts,
    table: Notify,
    subject: str,
    before: Problem,
    failed: JobStatus | None,
    well: JobStatus | None,
) -> Found:
    freshness = facts.fresh[subject]
    told = before.told > 0
    again = told and facts.now - before.told >= table.repeat_s
    fails_since = 0.0 if well is not None else before.failed or (failed.ended_at if failed else 0.0)
    job_id = failed.job_id if failed is not None else before.job
    if EventKind.FAILED not in table.events:
        fails_since = 0.0
    late_since = freshness.late_at if freshness.late and EventKind.LATE in table.events else 0.0
    if not fails_since and not late_since:
        ended = [Event(EventKind.RECOVERED, subject, _first(before), well, freshness)] if told else []
        return ended, Problem()
    problem = Problem(
        failed=fails_since, late=late_since, told=before.told, job=job_id if fails_since else ""
    )
    last = failed or facts.standing.get(before.job)
    events = []
    if fails_since and (not before.failed or again):
        events.append(
            Event(EventKind.FAILED, subject, fails_since, last, freshness, again=bool(before.failed))
        )
    if late_since and (not before.late or again):
        events.append(Event(EventKind.LATE, subject, late_since, last, freshness, again=bool(before.late)))
    return events, replace(problem, told=facts.now) if events else problem


def _first(problem: Problem) -> float:
    return min(at for at in (problem.failed, problem.late, problem.told) if at)


def _bounded(changed: dict[str, Problem | None], known: Mapping[str, Problem]) -> dict[str, Problem | None]:
    """Return the changes without those new problems of jobs for which there is no room."""
    room = MOST_PROBLEMS - len(known) + sum(problem is None for problem in changed.values())
    kept: dict[str, Problem | None] = {}
    for subject, problem in changed.items():
        new_job = problem is not None and subject.startswith(_JOB) and subject not in known
        room -= new_job
        if not new_job or room >= 0:
            kept[subject] = problem
    return kept
