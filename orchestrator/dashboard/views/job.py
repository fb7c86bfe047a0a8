"""One job, with its snapshots and failed objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, urlencode

from pydantic import ValidationError

from snapferry.orchestrator.dashboard.chart import chart
from snapferry.orchestrator.dashboard.lookup import Found, document
from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.reporting.advice import advise
from snapferry.orchestrator.reporting.measures import (
    batch_counts,
    object_counts,
    rate,
    seconds_left,
    snapshot_counts,
)
from snapferry.orchestrator.reporting.nodes import lacking
from snapferry.orchestrator.reporting.text.dry_run import dry_run_lines
from snapferry.orchestrator.reporting.text.failures import IMPORTED
from snapferry.orchestrator.reporting.text.format import duration
from snapferry.orchestrator.reporting.text.limits import limit_text
from snapferry.orchestrator.reporting.text.options import option_texts
from snapferry.orchestrator.reporting.text.outcome import done_text
from snapferry.orchestrator.reporting.text.status import kept_text, over_text, state_text
from snapferry.stores.text.format import counted
from snapferry.workers.copying.commit import SnapshotState
from snapferry.workers.copying.describe import short
from snapferry.workers.ledger import FAILURES_KEPT, JobStatus, State, UnknownJob

from .jobs import job_line, tone_of
from .links import Link, exports, href, pages
from .sources import CALM_S, LIVELY_S, Sources
from .workers import fleet_of, worker_lines

SNAPSHOTS_SHOWN: Final = 50
FAILURES_SHOWN: Final = 25
WORKERS_SHOWN: Final = 20

_ENDS: Final = [state for state in SnapshotState if state is not SnapshotState.FAILED]
SNAPSHOT_STATES: Final = ("pending", *_ENDS, "trusted", SnapshotState.FAILED)


# Jobs before and after one of a chain that are shown.
CHAIN_SHOWN: Final = 10


@dataclass(frozen=True)
class Continuation:
    """A job of a chain; *here*: the page is about it."""

    job_id: str
    href: str
    state: str
    tone: str
    here: bool


def job_page(
    sources: Sources, job_id: str, *, state: str = "", snapshots: int = 1, failures: int = 1
) -> dict[str, Any]:
    """
    Return the values of a job's page, with one page of its *snapshots*, in *state* or all, and of its *failures*.

    Raises `UnknownJob`, also for a job of a version that has other states.
    """
    status = sources.jobs.status(job_id)
    running = sources.jobs.running(job_id)
    fleet = fleet_of(sources, {batch.worker for batch in running})
    lacks = lacking(status, fleet)
    lines = worker_lines(fleet.nodes, (), running, sources.flower, most=WORKERS_SHOWN)
    here = f"/jobs/{quote(job_id)}"
    kept = {
        "state": state if state in SNAPSHOT_STATES else "",
        "snapshots": str(snapshots) if snapshots > 1 else "",
        "failures": str(failures) if failures > 1 else "",
    }
    estimate = sources.jobs.estimate(job_id)
    ended = status.ended_at or time.time()
    return {
        "line": job_line(sources, status, lacks),
        "status": status,
        "left": seconds_left(status),
        "mean": rate(status),
        "age_s": ended - status.submitted_at,
        "duration_s": ended - status.started_at if status.started_at else 0.0,
        "objects": _named(object_counts(status)),
        "ends": _named(snapshot_counts(status)),
        "batches": _named(batch_counts(status, len(running))),
        "advice": advise(status, lacking=lacks),
        "chain": _chain(sources.jobs, status),
        "settings": _settings(sources.jobs, status),
        "times": _times(status),
        "kept": kept_text(status),
        "over": over_text(status),
        "outcome": done_text(status) if status.state is State.DONE and not status.dry_run else "",
        "estimate": [line.strip() for line in dry_run_lines(status, estimate)]
        if estimate and status.dry_run
        else [],
        "chart": chart(sources.throughput.past(job_id)),
        "workers": [line for line in lines if line.batches],
        "flower": _flower_link(sources.flower, status),
        "snapshots": _snapshots(sources.jobs, status, here, kept, max(1, snapshots)),
        "failures": _failures(sources, status, here, kept, max(1, failures)),
        "refresh_s": CALM_S if status.state.final else LIVELY_S,
    }


def _chain(jobs: Jobs, status: JobStatus) -> list[Continuation]:
    """Return the jobs that this one continues and those that continue it, the first one first; none if it is alone."""
    found = {status.job_id: status}

    def follow(link: Callable[[JobStatus], str]) -> None:
        at = status
        for _ in range(CHAIN_SHOWN):
            if not (further := link(at)) or further in found:
                return
            try:
                at = found[further] = jobs.status(further)
            except UnknownJob:
                return

    follow(lambda job: job.continues)
    before = [found.pop(job_id) for job_id in list(found)[:0:-1]]
    follow(lambda job: job.continued_by)
    chain = [*before, *found.values()]
    if len(chain) == 1:
        return []
    return [
        Continuation(job.job_id, f"/jobs/{quote(job.job_id)}", state_text(job), tone_of(job), job is status)
        for job in chain
    ]


def _settings(jobs: Jobs, status: JobStatus) -> list[tuple[str, str, str]]:
    """Return what was asked of a job: name, value, and the address of a page about it or ""."""
    spec, schedule = jobs.spec(status.job_id), jobs.schedule(status.job_id)
    limits = jobs.store_limits(status.job_id)
    options = "of another version of snapferry" if spec is None else "  ".join(option_texts(spec)) or "none"
    return [
        ("Priority", status.priority, ""),
        ("Queue", status.queue or "default", ""),
        ("Limits of the job", limit_text(status.limits) or "none", ""),
        *(
            (f"Limits of the {side}, for all jobs", limit_text(of_store), "")
            for side, of_store in limits.items()
            if limit_text(of_store) and (side == "source" or status.action.writes)
        ),
        ("Options", options, ""),
        *([("Queued by", schedule.replace(":", " "), href("/", {"q": schedule}))] if schedule else []),
    ]


def _times(status: JobStatus) -> list[tuple[str, float, str]]:
    """Return when the states of a job began: name, seconds since the epoch, and how long ago that was."""
    now = time.time()
    times = {"Submitted": status.submitted_at, "Started": status.started_at}
    times |= {"Ended": status.ended_at} if status.ended_at else {"Last progress": status.moved_at}
    return [(name, at, f"{duration(now - at)} ago") for name, at in times.items() if at]


def _named(counts: Mapping[Any, int]) -> dict[str, int]:
    return {str(name): count for name, count in counts.items()}


def _flower_link(flower: str, status: JobStatus) -> Link | None:
    """
    Return the link to the tasks of a job in Flower, of a failed job to those that failed; None without Flower.

    Flower's page of tasks takes a part of a search from the address. The descriptions of all tasks of a job begin with
    the first digits of its id.
    """
    if not flower:
        return None
    failed = status.state is State.FAILED
    part = {"state": "FAILURE"} if failed else {"name": "snapferry"}
    ((field, wanted),) = part.items()
    query = urlencode({field: f"{wanted} args:{short(status.job_id)}"}, quote_via=quote)
    return Link("Failed tasks in Flower" if failed else "Tasks in Flower", f"{flower}/tasks?{query}")


def _snapshots(
    jobs: Jobs, status: JobStatus, here: str, kept: Mapping[str, str], page: int
) -> dict[str, Any]:
    problem = ""
    rows: Sequence[SnapshotRow] = ()
    try:
        rows = jobs.snapshots(status.job_id)
    except ValidationError:
        problem = "Another version of snapferry submitted this job. Its snapshots cannot be shown."
    counts = dict.fromkeys(SNAPSHOT_STATES, 0)
    for row in rows:
        counts[row.state] += 1
    state = kept["state"]
    chosen = [row for row in rows if row.state == state] if state else rows
    others = {name: value for name, value in kept.items() if name == "failures"}
    choices = [Link(f"all {len(rows):,}", href(here, others, "snapshots"), not state)]
    choices += [
        Link(f"{one} {count:,}", href(here, others | {"state": one}, "snapshots"), state == one)
        for one, count in counts.items()
        if count or state == one
    ]
    shown = pages(len(chosen), page, SNAPSHOTS_SHOWN, here, kept, "snapshots")
    return {
        "rows": chosen[shown.first - 1 : shown.last] if shown.total else [],
        "choices": choices if len(rows) > 1 else [],
        "pages": shown,
        "problem": problem,
    }


def _failures(
    sources: Sources, status: JobStatus, here: str, kept: Mapping[str, str], page: int
) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "total": 0,
        "classes": [],
        "rows": [],
        "notes": [],
        "kept": FAILURES_KEPT,
        "pages": None,
        "exports": exports(f"{here}/failures", ("csv", "jsonl"), {}),
    }
    if not status.failed:
        return empty
    if status.imported:
        return empty | {
            "total": status.failed,
            "notes": [IMPORTED],
            "pages": pages(0, 1, FAILURES_SHOWN, here, kept, "failures"),
        }
    job_id = status.job_id
    classes = sorted(sources.jobs.failed_by_class(job_id).items(), key=lambda item: (-item[1], item[0]))
    page = min(page, -(-status.failed // FAILURES_SHOWN))
    first = (page - 1) * FAILURES_SHOWN
    found = sources.lookup.find(job_id, failed=status.failed, first=first, count=FAILURES_SHOWN)
    notes = []
    if found.done or len(found.letters) == FAILURES_SHOWN:
        rows, total = found.letters, found.known if found.done else status.failed
    else:
        letters = [document(letter) for letter in sources.jobs.failures(job_id, places=False)]
        total = len(letters)
        shown = pages(total, page, FAILURES_SHOWN, here, kept, "failures")
        rows = letters[shown.first - 1 : shown.last] if total else []
        if status.failed > total:
            notes.append(f"Only the first {FAILURES_KEPT:,} of {status.failed:,} failures have a reason.")
    notes += _place_notes(found, status)
    return empty | {
        "total": status.failed,
        "classes": classes,
        "rows": rows,
        "notes": notes,
        "pages": pages(total, page, FAILURES_SHOWN, here, kept, "failures"),
    }


def _place_notes(found: Found, status: JobStatus) -> list[str]:
    if found.problem:
        return [f"The paths cannot be looked up here: {found.problem}"]
    if found.done and found.known >= status.failed:
        return []
    if found.known:
        return [f"The paths of {counted(found.known, 'object')} are known; the others are being looked up."]
    return ["The paths are being looked up in the manifests at the source."]
