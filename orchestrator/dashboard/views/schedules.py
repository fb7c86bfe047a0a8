"""The list of mirrors and scrubs that are in the schedule."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from snapferry.orchestrator.reporting.text.format import duration, span, without_options
from snapferry.orchestrator.reporting.text.status import state_text
from snapferry.orchestrator.schedules.report import OVERDUE_S, is_late, next_text
from snapferry.orchestrator.schedules.status import success_at
from snapferry.workers.ledger import (
    Freshness,
    FreshnessLedger,
    JobStatus,
    ScheduleLedger,
    ScheduleRecord,
    ScrubLedger,
    ScrubState,
)
from snapferry.workers.messages import MirrorMessage, ScrubMessage

from .jobs import tone_of
from .links import href
from .sources import CALM_S, Sources
from .workers import fleet_of

_Message = TypeVar("_Message", MirrorMessage, ScrubMessage)

# Mirrors, and scrubs, that are listed.
MOST_LISTED: Final = 200

# Periods after which the oldest unverified byte is too old, as for the alert.
TOO_OLD_PERIODS: Final = 1.5


@dataclass(frozen=True)
class RunLine:
    """
    The last run of a mirror or scrub and the next one; *job* is "" before the first run.

    *next_at* and *started_at*, of the last run, are in seconds since the epoch, 0.0 if they are not known. *runs* is
    the page with all of its jobs. *success* is the age of the last success in words, *late* for how long it is late, ""
    if it is not.
    """

    name: str
    job: str
    href: str
    state: str
    tone: str
    age: str
    skipped: int
    why: str
    next: str
    next_at: float
    started_at: float
    runs: str
    success: str
    late: str


@dataclass(frozen=True)
class MirrorLine:
    """A mirror in the list."""

    run: RunLine
    source: str
    destination: str


@dataclass(frozen=True)
class ScrubLine:
    """
    A scrub in the list.

    *oldest* is the age of the oldest unverified byte in words, "" if it is not known; *late*: it is too old. *verified*
    of *shares* shares have been read. *findings* is None if it is not known.
    """

    run: RunLine
    store: str
    shares: int
    verified: int
    every: str
    oldest: str
    late: bool
    findings: int | None


@dataclass(frozen=True)
class MissingLine:
    """A mirror or scrub that is expected to run, and not in the schedule. *late*: for how long, "" if it is not."""

    kind: str
    name: str
    success: str
    late: str


def schedules_page(sources: Sources) -> dict[str, Any]:
    """Return the values of the list of mirrors and scrubs."""
    with sources.jobs.records() as client:
        scrubs = ScrubLedger(client)
        mirror_runs = _runs_of(ScheduleLedger(client, "mirror"))
        scrub_runs = _runs_of(scrubs)
        states = {run.name: scrubs.state(run.name) for run in scrub_runs[:MOST_LISTED]}
        fresh = {one.expected.key: one for one in FreshnessLedger(client).freshness()}
    runs = [*mirror_runs[:MOST_LISTED], *scrub_runs[:MOST_LISTED]]
    last_jobs = sources.jobs.statuses(run.record.job_id for run in runs if run.record.job_id)

    def line(run: _Scheduled) -> RunLine:
        return _run(run.key, last_jobs, run.record, run.next_at, fresh.get(run.key))

    mirror_lines = [
        MirrorLine(line(run), without_options(mirror.source.url), without_options(mirror.destination.url))
        for run, mirror in _messages(mirror_runs, MirrorMessage)
    ]
    scrub_lines = [
        scrub_line(line(run), scrub, states[run.name]) for run, scrub in _messages(scrub_runs, ScrubMessage)
    ]
    more = max(0, len(mirror_runs) - MOST_LISTED) + max(0, len(scrub_runs) - MOST_LISTED)
    listed = {run.key for run in (*mirror_runs, *scrub_runs)}
    missing = [_missing_line(one) for key, one in fresh.items() if key not in listed]
    return {
        "mirrors": mirror_lines,
        "scrubs": scrub_lines,
        "missing": missing[:MOST_LISTED],
        "more": more,
        "overdue": any(0 < at < time.time() - OVERDUE_S for run in runs if (at := run.next_at or 0.0)),
        "headless": fleet_of(sources).headless,
        "refresh_s": CALM_S,
    }


def _missing_line(freshness: Freshness) -> MissingLine:
    at = freshness.success_at
    return MissingLine(
        freshness.expected.kind,
        freshness.expected.name,
        f"{duration(time.time() - at)} ago" if at else "never",
        duration(freshness.now - freshness.late_at) if freshness.late else "",
    )


def scrub_line(run: RunLine, scrub: ScrubMessage, state: ScrubState | None) -> ScrubLine:
    """Return a scrub for the list."""
    age = None if state is None else max(0.0, time.time() - state.oldest_at)
    return ScrubLine(
        run=run,
        store=without_options(scrub.store.url),
        shares=scrub.shares,
        verified=0 if state is None else min(state.verified, scrub.shares),
        every=span(scrub.interval),
        oldest="" if age is None else duration(age),
        late=age is not None and age > TOO_OLD_PERIODS * scrub.period,
        findings=None if state is None else state.findings,
    )


class _Scheduled(NamedTuple):
    """A mirror or scrub in the schedule: its key and name, the *message* of its runs, their record, the next one."""

    key: str
    name: str
    message: Any
    record: ScheduleRecord
    next_at: float | None


def _runs_of(ledger: ScheduleLedger) -> list[_Scheduled]:
    """Return the mirrors or scrubs in the schedule; of those that are not listed, only which they are."""
    return [
        _Scheduled(
            f"{ledger.kind}:{name}",
            name,
            message,
            *(
                (ledger.record(name), ledger.next_at(name))
                if number < MOST_LISTED
                else (ScheduleRecord(), None)
            ),
        )
        for number, (name, message) in enumerate(ledger.scheduled())
    ]


def _messages(runs: Sequence[_Scheduled], kind: type[_Message]) -> Iterator[tuple[_Scheduled, _Message]]:
    """Yield the mirrors or scrubs that are listed, without those that this version cannot read."""
    for run in runs[:MOST_LISTED]:
        with suppress(ValidationError):
            yield run, kind.model_validate(run.message)


def _run(
    key: str,
    last_jobs: Mapping[str, JobStatus],
    record: ScheduleRecord,
    next_at: float | None,
    freshness: Freshness | None,
) -> RunLine:
    job = last_jobs.get(record.job_id)
    succeeded = success_at(freshness, job)
    late = is_late(succeeded, freshness)
    return RunLine(
        name=key.partition(":")[2],
        job=record.job_id,
        href=f"/jobs/{quote(record.job_id)}" if job is not None else "",
        state=state_text(job) if job is not None else "record expired" if record.job_id else "never run",
        tone=tone_of(job) if job is not None else "idle",
        age=f"{duration(time.time() - record.started_at)} ago" if record.started_at else "",
        skipped=record.skipped,
        why=record.why,
        next=next_text(next_at),
        next_at=next_at or 0.0,
        started_at=record.started_at,
        runs=href("/", {"q": key}),
        success=f"{duration(time.time() - succeeded)} ago" if succeeded else "never",
        late=duration(freshness.now - freshness.late_at) if freshness is not None and late else "",
    )
