"""What is wrong now, and what to do about it: the first thing that an operator sees."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from snapferry.orchestrator.jobs import JobQuery
from snapferry.orchestrator.reporting.advice import Advice, advise
from snapferry.orchestrator.reporting.nodes import Node, lacking
from snapferry.orchestrator.reporting.text.format import duration
from snapferry.orchestrator.reporting.text.status import stall_text
from snapferry.stores.text.format import counted
from snapferry.workers.copying.describe import short
from snapferry.workers.ledger import JobStatus, State

from .sources import Sources

# Things that are shown, and open jobs that are looked at.
MOST_SHOWN: Final = 5
JOBS_LOOKED_AT: Final = 50


@dataclass(frozen=True)
class Attention:
    """
    Something that is wrong: a *title*, a *reason* from elsewhere, and what to do.

    *tone* is its colour. *href* is the page with more, *link* the text of the link to it.
    """

    tone: str
    title: str
    reason: str
    advice: Advice
    href: str
    link: str


def attentions(sources: Sources, fleet: Sequence[Node]) -> list[Attention]:
    """
    Return what is wrong with the jobs of the fleet now, the most urgent first.

    A failed job that another one continues is left out: if that one failed too, it is listed.
    """
    open_states = tuple(state for state in State if not state.final)
    open_jobs = sources.jobs.page(JobQuery(open_states), first=0, count=JOBS_LOOKED_AT).jobs
    failed = sources.jobs.page(JobQuery((State.FAILED,)), first=0, count=JOBS_LOOKED_AT).jobs
    ended = [_of_failed(status) for status in failed if not status.continued_by]
    return [*_of_open(open_jobs, fleet, heartbeats=sources.roster.settled), *ended][:MOST_SHOWN]


def _of_open(jobs: Iterable[JobStatus], fleet: Sequence[Node], *, heartbeats: bool) -> list[Attention]:
    """Return what keeps open jobs: each cause once, with the number of jobs that it keeps."""
    causes: dict[str, list[tuple[JobStatus, Attention]]] = {}
    for status in jobs:
        lacks = lacking(status, fleet, heartbeats=heartbeats)
        advice = advise(status, lacking=lacks)
        href, link = f"/jobs/{quote(status.job_id)}", f"Job {short(status.job_id)}"
        if status.cancelling or status.paused:
            continue
        if lacks is not None:
            what = Attention("bad", f"No {lacks} is online", "", advice, href, "")
            causes.setdefault(f"{lacks} {status.queue}", []).append((status, what))
        elif status.waiting is not None:
            since = duration(time.time() - status.waiting.since)
            title = f"A store does not answer, for {since}"
            what = Attention(
                "hold", title, f"{status.waiting.store}: {status.waiting.reason}", advice, href, link
            )
            causes.setdefault(f"store {status.waiting.store}", []).append((status, what))
        elif stall := stall_text(status):
            what = Attention("hold", f"{link} makes no progress", stall, advice, href, link)
            causes.setdefault(f"job {status.job_id}", []).append((status, what))
    return [_together(each) for each in causes.values()]


def _together(cause: Sequence[tuple[JobStatus, Attention]]) -> Attention:
    status, what = cause[0]
    jobs = f"{counted(len(cause), 'open job')} {'waits' if len(cause) == 1 else 'wait'}"
    if len(cause) == 1 and what.link:
        return what
    href, link = (
        (what.href, f"Job {short(status.job_id)}") if len(cause) == 1 else ("/?state=open", "Open jobs")
    )
    return Attention(what.tone, f"{what.title}: {jobs}", what.reason, what.advice, href, link)


def _of_failed(status: JobStatus) -> Attention:
    ago = duration(time.time() - status.ended_at)
    title = f"Job {short(status.job_id)} failed {ago} ago"
    href = f"/jobs/{quote(status.job_id)}"
    return Attention("bad", title, status.error, advise(status), href, f"Job {short(status.job_id)}")
