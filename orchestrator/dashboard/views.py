"""
What each page shows: plain functions from the fleet to a template's values.

They ask Redis, and wait for nothing else. Raises what `jobs.Jobs` raises.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from pydantic import ValidationError

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.reporting import report
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import FAILURES_KEPT, JobStatus, RunningBatch, State

from .chart import chart
from .lookup import Found, Lookup, document
from .speed_history import Pace, Speed
from .worker_roster import Heard, Roll

JOBS_SHOWN: Final = 50
SNAPSHOTS_SHOWN: Final = 50
FAILURES_SHOWN: Final = 25

# Workers of a job, jobs of a worker, batches of either, and deleted or refused things that are listed.
LISTED: Final = 20

# Seconds between two looks of a page: at what moves, and at what does not.
LIVELY_S: Final = 2
CALM_S: Final = 10

OPEN: Final = tuple(state for state in State if not state.final)

SNAPSHOT_STATES: Final = ("pending", "published", "trusted", "failed")

# How a state looks; the word is always there as well.
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
class Fleet:
    """What the pages are made of; *flower* is the address of Flower's pages, "" if there is none."""

    jobs: Jobs
    pace: Pace
    roll: Roll
    lookup: Lookup
    flower: str = ""


@dataclass(frozen=True)
class Link:
    """A choice: its words, where it leads ("" : nowhere), and whether it is the one that is shown."""

    words: str
    href: str
    current: bool = False


@dataclass(frozen=True)
class Pages:
    """Where to turn the pages of a list of *total* rows, of which *first* to *last* (from 1) are shown."""

    first: int
    last: int
    total: int
    newer: str
    older: str


@dataclass(frozen=True)
class Progress:
    """
    How far a job is. *percent* is 100 only if nothing is left.

    *parts* are (outcome, percent) of the objects, in the order in which they are drawn.
    """

    percent: int
    parts: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class JobLine:
    """A job as it is listed."""

    status: JobStatus
    href: str
    tone: str
    words: str
    progress: Progress | None
    speed: Speed | None
    age: str
    hint: str
    source: str
    destination: str


@dataclass(frozen=True)
class WorkerLine:
    """A worker: as it was heard of, if it was; *batches* it has in hand, *of* jobs: (words, href)."""

    name: str
    heard: Heard | None
    batches: int
    of: tuple[tuple[str, str], ...]
    more: int
    href: str


def jobs_page(fleet: Fleet, *, state: str = "", page: int = 1) -> dict[str, Any]:
    """Return the values of the list of jobs: those in *state*, a `State` or "open", or all."""
    chosen = OPEN if state == "open" else (State(state),) if state in set(State) else ()
    state = state if chosen else ""
    page = max(1, page)
    found = fleet.jobs.page(first=(page - 1) * JOBS_SHOWN, count=JOBS_SHOWN, states=chosen)
    total = sum(found.by_state.values())
    going_on = sum(found.by_state[one] for one in OPEN)
    heard = fleet.roll.workers()
    online = [worker for worker in heard if worker.state == "online"]
    choices = [Link(f"all {total:,}", "/", not state)]
    choices.append(Link(f"open {going_on:,}", "/?state=open", state == "open"))
    choices += [
        Link(f"{one} {found.by_state[one]:,}", f"/?state={one}", state == one)
        for one in State
        if found.by_state[one] or state == one
    ]
    return {
        "lines": [job_line(fleet, status) for status in found.jobs],
        "choices": choices,
        "state": state,
        "pages": _pages(found.total, page, JOBS_SHOWN, "/", {"state": state}),
        "going_on": going_on,
        "failed": found.by_state[State.FAILED],
        "speed": fleet.pace.of_all(),
        "online": len(online),
        "active": sum(worker.active for worker in online),
        "nobody": bool(going_on and not online),
        "refresh_s": LIVELY_S if going_on else CALM_S,
    }


def job_page(
    fleet: Fleet, job_id: str, *, state: str = "", snapshots: int = 1, failures: int = 1
) -> dict[str, Any]:
    """
    Return the values of a job's page, with one page of its *snapshots*, in *state* or all, and of its *failures*.

    Raises `snapferry.workers.ledger.UnknownJob`, also for a job of a version that has other states.
    """
    status = fleet.jobs.status(job_id)
    running = fleet.jobs.running(job_id)
    waiting = 0
    if not status.state.final:
        waiting = max(0, status.batches_handed - status.batches_done - len(running))
    here = f"/jobs/{quote(job_id)}"
    kept = {
        "state": state if state in SNAPSHOT_STATES else "",
        "snapshots": str(snapshots) if snapshots > 1 else "",
        "failures": str(failures) if failures > 1 else "",
    }
    estimate = fleet.jobs.estimate(job_id)
    return {
        "line": job_line(fleet, status),
        "status": status,
        "left": report.seconds_left(status),
        "mean": report.rate(status),
        "seconds": (status.ended_at or time.time()) - status.submitted_at,
        "took": (status.ended_at or time.time()) - status.started_at if status.started_at else 0.0,
        "waiting": waiting,
        "next": report.next_steps(status) if status.state.final else "",
        "outcome": report.done_words(status) if status.state is State.DONE and not status.dry_run else "",
        "estimate": [line.strip() for line in report.dry_run_lines(status, estimate)]
        if estimate and status.dry_run
        else [],
        "chart": chart(fleet.pace.past(job_id)),
        "workers": worker_lines((), running, fleet.flower, len_shown=LISTED),
        "running": len(running),
        "flower": f"{fleet.flower}/task/{quote(job_id)}" if fleet.flower else "",
        "snapshots": _snapshots(fleet.jobs, status, here, kept, max(1, snapshots)),
        "failures": _failures(fleet, status, here, kept, max(1, failures)),
        "refresh_s": CALM_S if status.state.final else LIVELY_S,
    }


def workers_page(fleet: Fleet) -> dict[str, Any]:
    """Return the values of the list of workers."""
    lines = worker_lines(fleet.roll.workers(), fleet.jobs.running(), fleet.flower)
    return {"lines": lines, "refresh_s": LIVELY_S}


def job_line(fleet: Fleet, status: JobStatus) -> JobLine:
    """Return a job as it is listed."""
    tone = TONES[status.state]
    if not status.state.final and (status.paused or status.cancelling):
        tone = "hold"
    ended = status.ended_at or time.time()
    age = report.duration(time.time() - (status.ended_at or status.submitted_at))
    return JobLine(
        status=status,
        href=f"/jobs/{quote(status.job_id)}",
        tone=tone,
        words=report.state_words(status),
        progress=progress(status),
        speed=fleet.pace.now(status.job_id) if not status.state.final else _mean(status, ended),
        age=f"{age} ago" if status.ended_at else f"for {age}",
        hint=report.hint(status),
        source=report.bare(status.source),
        destination=report.bare(status.destination),
    )


def progress(status: JobStatus) -> Progress | None:
    """Return how far a job is, None as long as it has no plan, and for a dry run."""
    total = status.objects_total
    if not total or status.dry_run:
        return None
    whole = status.objects_settled >= total and status.bytes_settled >= status.bytes_total
    counts = {"copied": status.copied, "present": status.present, "failed": status.failed}
    counts["moving"] = max(0, status.objects_settled - sum(counts.values()))
    return Progress(
        percent=100 if whole else min(99, report.percent(status)),
        parts=tuple((name, 100 * count / total) for name, count in counts.items() if count > 0),
    )


def worker_lines(
    heard: Sequence[Heard], running: Iterable[RunningBatch], flower: str, *, len_shown: int | None = None
) -> list[WorkerLine]:
    """Return the workers that were *heard* of or have *running* batches, the busiest first."""
    in_hand: dict[str, dict[str, int]] = {}
    for batch in running:
        jobs = in_hand.setdefault(batch.worker, {})
        jobs[batch.job_id] = jobs.get(batch.job_id, 0) + 1
    known = {worker.name: worker for worker in heard}
    names = sorted(
        known.keys() | in_hand.keys(), key=lambda name: (-sum(in_hand.get(name, {}).values()), name)
    )
    return [
        WorkerLine(
            name=name,
            heard=known.get(name),
            batches=sum((jobs := in_hand.get(name, {})).values()),
            of=tuple((job_id, f"/jobs/{quote(job_id)}") for job_id in list(jobs)[:LISTED]),
            more=max(0, len(jobs) - LISTED),
            href=f"{flower}/worker/{quote(name, safe='@', errors='replace')}"
            if flower and name in known
            else "",
        )
        for name in names[:len_shown]
    ]


def _mean(status: JobStatus, ended: float) -> Speed | None:
    seconds = ended - status.started_at if status.started_at else 0.0
    if seconds <= 0 or not status.objects_settled:
        return None
    return Speed(status.started_at, ended, status.objects_settled / seconds, status.bytes_settled / seconds)


def _snapshots(
    jobs: Jobs, status: JobStatus, here: str, kept: Mapping[str, str], page: int
) -> dict[str, Any]:
    problem = ""
    rows: Sequence[SnapshotRow] = ()
    try:
        rows = jobs.snapshots(status.job_id)
    except ValidationError:
        problem = "The job was submitted by another version of snapferry: its snapshots cannot be told here."
    counts = dict.fromkeys(SNAPSHOT_STATES, 0)
    for row in rows:
        counts[row.state] += 1
    state = kept["state"]
    chosen = [row for row in rows if row.state == state] if state else rows
    others = {name: value for name, value in kept.items() if name == "failures"}
    choices = [Link(f"all {len(rows):,}", _href(here, others, "snapshots"), not state)]
    choices += [
        Link(f"{one} {count:,}", _href(here, others | {"state": one}, "snapshots"), state == one)
        for one, count in counts.items()
        if count or state == one
    ]
    pages = _pages(len(chosen), page, SNAPSHOTS_SHOWN, here, kept, "snapshots")
    return {
        "rows": chosen[pages.first - 1 : pages.last] if pages.total else [],
        "choices": choices if len(rows) > 1 else [],
        "pages": pages,
        "problem": problem,
    }


def _failures(
    fleet: Fleet, status: JobStatus, here: str, kept: Mapping[str, str], page: int
) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "total": 0,
        "classes": [],
        "rows": [],
        "notes": [],
        "places": True,
        "pages": None,
    }
    if not status.failed:
        return empty
    job_id = status.job_id
    classes = sorted(fleet.jobs.failed_by_class(job_id).items(), key=lambda item: (-item[1], item[0]))
    page = min(page, -(-status.failed // FAILURES_SHOWN))
    first = (page - 1) * FAILURES_SHOWN
    found = fleet.lookup.find(job_id, failed=status.failed, first=first, count=FAILURES_SHOWN)
    filed = found.done or len(found.letters) == FAILURES_SHOWN
    notes = []
    if filed:
        rows, total = found.letters, found.known if found.done else status.failed
    else:
        letters = [document(letter) for letter in fleet.jobs.failures(job_id, places=False)]
        total = len(letters)
        pages = _pages(total, page, FAILURES_SHOWN, here, kept, "failures")
        rows = letters[pages.first - 1 : pages.last] if total else []
        if status.failed > total:
            notes.append(
                f"Of {status.failed:,} failures, the reasons of the first {FAILURES_KEPT:,} are kept."
            )
    notes += _place_notes(found, status)
    return empty | {
        "total": status.failed,
        "classes": classes,
        "rows": rows,
        "notes": notes,
        "places": filed,
        "pages": _pages(total, page, FAILURES_SHOWN, here, kept, "failures"),
    }


def _place_notes(found: Found, status: JobStatus) -> list[str]:
    if found.problem:
        return [f"Which paths wait for them cannot be told here: {found.problem}"]
    if found.done and found.known >= status.failed:
        return []
    if found.known:
        return [f"The paths of {counted(found.known, 'object')} are found; the others are being looked up."]
    return ["The paths that wait for them are being looked up in the manifests at the source."]


def _pages(
    total: int, page: int, length: int, here: str, kept: Mapping[str, str], name: str = "page"
) -> Pages:
    page = min(page, max(1, -(-total // length)))

    def to(number: int) -> str:
        anchor = "" if name == "page" else name
        return _href(here, dict(kept) | {name: str(number) if number > 1 else ""}, anchor)

    return Pages(
        first=(page - 1) * length + 1 if total else 0,
        last=min(total, page * length),
        total=total,
        newer=to(page - 1) if page > 1 else "",
        older=to(page + 1) if page * length < total else "",
    )


def _href(here: str, parameters: Mapping[str, str], anchor: str = "") -> str:
    query = urlencode({name: value for name, value in parameters.items() if value})
    return here + (f"?{query}" if query else "") + (f"#{anchor}" if anchor else "")
