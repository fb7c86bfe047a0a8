"""The list of mirrors and scrubs that are in the schedule."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from pydantic import ValidationError

from snapferry.orchestrator.reporting.text.format import duration, without_options
from snapferry.orchestrator.reporting.text.status import state_text
from snapferry.orchestrator.schedules.report import is_late, next_text
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
        mirrors, scrubs = ScheduleLedger(client, "mirror"), ScrubLedger(client)
        found_mirrors, found_scrubs = mirrors.scheduled(), scrubs.scheduled()
        states = {name: scrubs.state(name) for name, _ in found_scrubs[:MOST_LISTED]}
        mirror_runs = _records(mirrors, [name for name, _ in found_mirrors[:MOST_LISTED]])
        scrub_runs = _records(scrubs, list(states))
        fresh = {one.expected.key: one for one in FreshnessLedger(client).freshness()}
    last_jobs = sources.jobs.statuses(
        record.job_id for runs in (mirror_runs, scrub_runs) for record, _ in runs.values() if record.job_id
    )
    mirror_lines, scrub_lines = [], []
    for name, found in found_mirrors[:MOST_LISTED]:
        try:
            mirror = MirrorMessage.model_validate(found)
        except ValidationError:
            continue
        key = f"{mirrors.kind}:{name}"
        run = _run(key, last_jobs, *mirror_runs[name], fresh.get(key))
        stores = without_options(mirror.source.url), without_options(mirror.destination.url)
        mirror_lines.append(MirrorLine(run, *stores))
    for name, found in found_scrubs[:MOST_LISTED]:
        try:
            scrub = ScrubMessage.model_validate(found)
        except ValidationError:
            continue
        key = f"{scrubs.kind}:{name}"
        run = _run(key, last_jobs, *scrub_runs[name], fresh.get(key))
        scrub_lines.append(scrub_line(run, scrub, states[name]))
    more = max(0, len(found_mirrors) - MOST_LISTED) + max(0, len(found_scrubs) - MOST_LISTED)
    listed = {*(f"{mirrors.kind}:{name}" for name, _ in found_mirrors)}
    listed |= {f"{scrubs.kind}:{name}" for name, _ in found_scrubs}
    missing = [_missing_line(one) for key, one in fresh.items() if key not in listed]
    return {
        "mirrors": mirror_lines,
        "scrubs": scrub_lines,
        "missing": missing[:MOST_LISTED],
        "more": more,
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
        every=duration(scrub.interval),
        oldest="" if age is None else duration(age),
        late=age is not None and age > TOO_OLD_PERIODS * scrub.period,
        findings=None if state is None else state.findings,
    )


def _records(ledger: ScheduleLedger, names: list[str]) -> dict[str, tuple[ScheduleRecord, float | None]]:
    return {name: (ledger.record(name), ledger.next_at(name)) for name in names}


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
