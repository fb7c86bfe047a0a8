"""The list of mirrors and scrubs that are in the schedule."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from pydantic import ValidationError

from snapferry.orchestrator.reporting.text.format import duration, without_options
from snapferry.orchestrator.reporting.text.status import state_text
from snapferry.orchestrator.schedules.report import next_text
from snapferry.orchestrator.schedules.status import last_job
from snapferry.workers.ledger import ScheduleLedger, ScheduleRecord, ScrubLedger, ScrubState
from snapferry.workers.messages import MirrorMessage, ScrubMessage

from .jobs import TONES
from .sources import CALM_S, Sources

# Mirrors, and scrubs, that are listed.
MOST_LISTED: Final = 200

# Periods after which the oldest unverified byte is too old, as for the alert.
TOO_OLD_PERIODS: Final = 1.5


@dataclass(frozen=True)
class RunLine:
    """The last run of a mirror or scrub and the next one; *job* is "" before the first run."""

    name: str
    job: str
    href: str
    state: str
    tone: str
    age: str
    skipped: int
    why: str
    next: str


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


def schedules_page(sources: Sources) -> dict[str, Any]:
    """Return the values of the list of mirrors and scrubs."""
    with sources.jobs.records() as client:
        mirrors, scrubs = ScheduleLedger(client, "mirror"), ScrubLedger(client)
        found_mirrors, found_scrubs = mirrors.scheduled(), scrubs.scheduled()
        states = {name: scrubs.state(name) for name, _ in found_scrubs[:MOST_LISTED]}
        mirror_runs = _records(mirrors, [name for name, _ in found_mirrors[:MOST_LISTED]])
        scrub_runs = _records(scrubs, list(states))
    mirror_lines, scrub_lines = [], []
    for name, found in found_mirrors[:MOST_LISTED]:
        try:
            mirror = MirrorMessage.model_validate(found)
        except ValidationError:
            continue
        run = _run(sources, name, *mirror_runs[name])
        stores = without_options(mirror.source.url), without_options(mirror.destination.url)
        mirror_lines.append(MirrorLine(run, *stores))
    for name, found in found_scrubs[:MOST_LISTED]:
        try:
            scrub = ScrubMessage.model_validate(found)
        except ValidationError:
            continue
        scrub_lines.append(scrub_line(_run(sources, name, *scrub_runs[name]), scrub, states[name]))
    more = max(0, len(found_mirrors) - MOST_LISTED) + max(0, len(found_scrubs) - MOST_LISTED)
    return {"mirrors": mirror_lines, "scrubs": scrub_lines, "more": more, "refresh_s": CALM_S}


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


def _run(sources: Sources, name: str, record: ScheduleRecord, next_at: float | None) -> RunLine:
    job = last_job(sources.jobs, record)
    return RunLine(
        name=name,
        job=record.job_id,
        href=f"/jobs/{quote(record.job_id)}" if job is not None else "",
        state=state_text(job) if job is not None else "record expired" if record.job_id else "never run",
        tone=TONES[job.state] if job is not None else "idle",
        age=f"{duration(time.time() - record.started_at)} ago" if record.started_at else "",
        skipped=record.skipped,
        why=record.why,
        next=next_text(next_at),
    )
