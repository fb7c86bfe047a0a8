"""The list of jobs."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from snapferry.orchestrator.dashboard.throughput_history import Throughput
from snapferry.orchestrator.reporting.measures import ObjectState, object_counts, objects_moved, percent
from snapferry.orchestrator.reporting.text.format import duration, without_options
from snapferry.orchestrator.reporting.text.status import stall_text, state_text
from snapferry.workers.copying.words import WORDS, Words
from snapferry.workers.ledger import SUPERSEDED, JobStatus, State
from snapferry.workers.messages import Action

from .links import Link, pages
from .sources import CALM_S, LIVELY_S, Sources

JOBS_SHOWN: Final = 50

STATES: Final = (*State, SUPERSEDED)
OPEN: Final = tuple(state for state in State if not state.final)

# The colour of a state; its name is always shown as well.
TONES: Final = {
    State.QUEUED: "idle",
    State.PLANNING: "active",
    State.COPYING: "active",
    State.COMMITTING: "active",
    State.DONE: "good",
    State.FAILED: "bad",
    State.CANCELLED: "off",
}


@dataclass(frozen=True)
class Progress:
    """
    How much of a job is done, see `measures.percent`. *failed*: the job failed, or was cancelled.

    *parts* are pairs of an `ObjectState` and its percent of the objects, in the order in which they are drawn.
    """

    percent: int
    parts: tuple[tuple[str, float], ...]
    failed: bool = False


@dataclass(frozen=True)
class JobLine:
    """
    A job in a list.

    *action* is "" for a copy. *destination* is "" for a job of one store. *words* are those of its action.
    """

    status: JobStatus
    href: str
    tone: str
    state: str
    progress: Progress | None
    throughput: Throughput | None
    age: str
    stall: str
    action: str
    source: str
    destination: str
    words: Words


def jobs_page(sources: Sources, *, state: str = "", page: int = 1) -> dict[str, Any]:
    """Return the values of the list of jobs: those in *state*, a `State`, "open" or `SUPERSEDED`, or all."""
    chosen = OPEN if state == "open" else (state,) if state in STATES else ()
    state = state if chosen else ""
    page = max(1, page)
    found = sources.jobs.page(first=(page - 1) * JOBS_SHOWN, count=JOBS_SHOWN, states=chosen)
    total = sum(found.by_state.values())
    still_open = sum(found.by_state[one] for one in OPEN)
    online = [worker for worker in sources.roster.workers() if worker.state == "online"]
    choices = [Link(f"all {total:,}", "/", not state)]
    choices.append(Link(f"open {still_open:,}", "/?state=open", state == "open"))
    choices += [
        Link(f"{one} {found.by_state[one]:,}", f"/?state={one}", state == one)
        for one in STATES
        if found.by_state[one] or state == one
    ]
    return {
        "lines": [job_line(sources, status) for status in found.jobs],
        "choices": choices,
        "state": state,
        "pages": pages(found.total, page, JOBS_SHOWN, "/", {"state": state}),
        "open_jobs": still_open,
        "failed": found.by_state[State.FAILED],
        "throughput": sources.throughput.current_total(),
        "online": len(online),
        "active": sum(worker.active for worker in online),
        "no_nodes": bool(still_open and not online),
        "refresh_s": LIVELY_S if still_open else CALM_S,
    }


def job_line(sources: Sources, status: JobStatus) -> JobLine:
    """Return a job for a list."""
    tone = "off" if status.superseded else TONES[status.state]
    if not status.state.final and (status.paused or status.cancelling):
        tone = "hold"
    age = duration(time.time() - (status.ended_at or status.submitted_at))
    return JobLine(
        status=status,
        href=f"/jobs/{quote(status.job_id)}",
        tone=tone,
        state=state_text(status),
        progress=progress(status),
        throughput=_mean(status) if status.state.final else sources.throughput.current(status.job_id),
        age=f"{age} ago" if status.ended_at else f"for {age}",
        stall=stall_text(status),
        action="" if status.action is Action.COPY else str(status.action),
        source=without_options(status.source),
        destination=without_options(status.destination) if status.action.writes else "",
        words=WORDS[status.action],
    )


def progress(status: JobStatus) -> Progress | None:
    """Return how much of a job is done, None before it has a plan, and for a dry run."""
    if status.objects_total <= 0 or status.dry_run:
        return None
    counts = object_counts(status)
    return Progress(
        percent=percent(status),
        parts=tuple(
            (str(name), 100 * count / status.objects_total)
            for name, count in counts.items()
            if count and name is not ObjectState.LEFT
        ),
        failed=status.state in (State.FAILED, State.CANCELLED),
    )


def _mean(status: JobStatus) -> Throughput | None:
    """Return the mean throughput of a job that has ended, None if it moved nothing."""
    ended = status.ended_at or time.time()
    seconds = ended - status.started_at if status.started_at else 0.0
    if seconds <= 0 or not (status.bytes_moved or objects_moved(status)):
        return None
    return Throughput(status.started_at, ended, objects_moved(status) / seconds, status.bytes_moved / seconds)
