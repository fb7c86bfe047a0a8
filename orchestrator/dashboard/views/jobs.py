"""The list of jobs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote

from snapferry.orchestrator.dashboard.pages import LONGEST
from snapferry.orchestrator.dashboard.throughput_history import Throughput
from snapferry.orchestrator.jobs import JobQuery, Sort
from snapferry.orchestrator.reporting.measures import (
    ObjectState,
    bytes_worked,
    object_counts,
    objects_moved,
    percent,
    running_s,
    share,
)
from snapferry.orchestrator.reporting.nodes import Role, lacking
from snapferry.orchestrator.reporting.text.format import duration, without_options
from snapferry.orchestrator.reporting.text.status import stall_text, state_text
from snapferry.workers.copying.words import WORDS, Words
from snapferry.workers.job_state import OPEN_STATES
from snapferry.workers.ledger import DISMISSED, SUPERSEDED, JobStatus, State
from snapferry.workers.messages import Action

from .attention import attentions
from .links import Link, exports, href, pages
from .sources import CALM_S, LIVELY_S, Sources
from .workers import fleet_of

JOBS_SHOWN: Final = 50

# Stores that can be chosen from, and characters of a search that are used.
STORES_SHOWN: Final = 200
LONGEST_SEARCH: Final = 200

STATES: Final = (*State, SUPERSEDED, DISMISSED)

# The parameters that select jobs.
PARAMETERS: Final = ("state", "q", "store", "sort", "dir")

# The orders that can be chosen, with the one of the first choice: True for the smallest first.
SORTS: Final = {
    Sort.SUBMITTED: ("newest first", False),
    Sort.AGE: ("last ended first", True),
    Sort.FAILED: ("most failed objects first", False),
    Sort.PROGRESS: ("least progress first", True),
    Sort.THROUGHPUT: ("fastest first", False),
    Sort.SNAPSHOTS: ("most snapshots first", False),
    Sort.STATE: ("by state", True),
}


@dataclass(frozen=True)
class Column:
    """
    A column of the list. *sort* is "ascending" or "descending" if the list is sorted by it, else "".

    *href* sorts by it, the other way round if the list is sorted by it already; "" if it cannot be sorted by.
    """

    text: str
    href: str = ""
    sort: str = ""
    style: str = ""


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

    *parts* are pairs of an `ObjectState` and the percent of the bar that it takes, in the order of drawing. Together
    they are as long as *percent* says, unless the job failed.
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


def jobs_page(sources: Sources, given: Mapping[str, str], *, page: int = 1) -> dict[str, Any]:
    """
    Return the values of the list of jobs that the parameters *given* select.

    They are ``state`` (a `State`, "open", `SUPERSEDED` or `DISMISSED`), ``q`` (words), ``store`` (a URL), ``sort`` (a
    `Sort`) and ``dir`` ("up", "down"). What is not understood counts as not given.
    """
    query = query_of(given)
    kept = _parameters(query, given)
    page = max(1, page)
    listing = sources.jobs.listing()
    found = sources.jobs.page(query, first=(page - 1) * JOBS_SHOWN, count=JOBS_SHOWN, listing=listing)
    # The counts of all jobs, whatever is shown of them.
    everything = listing.by_state() if query.text or query.store else found.by_state
    still_open = sum(everything[one] for one in OPEN_STATES)
    fleet = fleet_of(sources)
    workers = fleet.online("worker")
    heard = {worker.name: worker.active for worker in sources.roster.workers()}
    return {
        "lines": [job_line(sources, status, lacking(status, fleet)) for status in found.jobs],
        "choices": _choices(found.by_state, kept),
        "columns": _columns(query, kept),
        "stores": _stores(found.stores, query.store),
        "sorts": [(str(sort), text, sort is query.sort) for sort, (text, _) in SORTS.items()],
        "query": query,
        "state": kept["state"],
        "exports": exports("/export/jobs", ("csv", "json"), kept),
        "narrowed": bool(query.text or query.store),
        "pages": pages(found.total, page, JOBS_SHOWN, "/", kept),
        "attentions": attentions(sources, fleet, listing, found.jobs),
        "open_jobs": still_open,
        "failed": everything[State.FAILED],
        "superseded": everything[SUPERSEDED],
        "dismissed": everything[DISMISSED],
        "throughput": sources.throughput.current_total(),
        "online": len(workers),
        "orchestrators": len(fleet.online("orchestrator")),
        "headless": fleet.headless,
        "active": sum(heard.get(node.name, 0) for node in workers),
        "refresh_s": LIVELY_S if still_open else CALM_S,
    }


def query_of(given: Mapping[str, str]) -> JobQuery:
    """Return the jobs that the parameters *given* select; what is not understood counts as not given."""
    state = given.get("state", "")
    sort = Sort(given["sort"]) if given.get("sort") in set(Sort) else Sort.SUBMITTED
    upwards = {"up": True, "down": False}.get(given.get("dir", ""), SORTS[sort][1])
    return JobQuery(
        states=OPEN_STATES if state == "open" else (state,) if state in STATES else (),
        text=given.get("q", "")[:LONGEST_SEARCH].strip(),
        store=given.get("store", ""),
        sort=sort,
        upwards=upwards,
    )


def _parameters(query: JobQuery, given: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a link that selects the same jobs."""
    direction = ("up" if query.upwards else "down") if query.upwards != SORTS[query.sort][1] else ""
    return {
        "state": given.get("state", "") if query.states else "",
        "q": query.text,
        "store": query.store,
        "sort": "" if query.sort is Sort.SUBMITTED else str(query.sort),
        "dir": direction,
    }


def _choices(by_state: Counter[str], kept: Mapping[str, str]) -> list[Link]:
    still_open, state = sum(by_state[one] for one in OPEN_STATES), kept["state"]
    choices = [("", "all", sum(by_state.values())), ("open", "open", still_open)]
    choices += [(one, one, by_state[one]) for one in STATES if by_state[one] or state == one]
    return [
        Link(f"{text} {count:,}", href("/", {**kept, "state": one}), state == one)
        for one, text, count in choices
    ]


def _columns(query: JobQuery, kept: Mapping[str, str]) -> list[Column]:
    def column(text: str, sort: Sort, style: str = "") -> Column:
        current = sort is query.sort
        upwards = not query.upwards if current else SORTS[sort][1]
        other = replace(query, sort=sort, upwards=upwards)
        now = ("ascending" if query.upwards else "descending") if current else ""
        return Column(text, href("/", {**kept, **_order(other)}), now, style)

    return [
        column("Job", Sort.SUBMITTED),
        column("State", Sort.STATE),
        column("Progress", Sort.PROGRESS, "wide"),
        column("Snapshots", Sort.SNAPSHOTS, "number"),
        column("Failed", Sort.FAILED, "number"),
        column("Throughput", Sort.THROUGHPUT, "number"),
        column("Age", Sort.AGE),
    ]


def _order(query: JobQuery) -> dict[str, str]:
    return {name: value for name, value in _parameters(query, {}).items() if name in ("sort", "dir")}


def _stores(stores: Counter[str], chosen: str) -> list[tuple[str, int, bool]]:
    """Return the stores to choose from: URL, number of jobs, and whether it is chosen."""
    # A longer one could not be shown whole.
    names = sorted(name for name, _ in stores.most_common(STORES_SHOWN) if len(name) <= LONGEST)
    if chosen and chosen not in names:
        names.append(chosen)
    return [(name, stores[name], name == chosen) for name in names]


def job_line(sources: Sources, status: JobStatus, lacks: Role | None = None) -> JobLine:
    """Return a job for a list. *lacks* is the role of which no process runs that could take its next step."""
    age = duration(time.time() - (status.ended_at or status.submitted_at))
    return JobLine(
        status=status,
        href=f"/jobs/{quote(status.job_id)}",
        tone=tone_of(status),
        state=state_text(status),
        progress=progress(status),
        throughput=_mean(status) if status.state.final else sources.throughput.current(status.job_id),
        age=f"{age} ago" if status.ended_at else f"for {age}",
        stall=stall_text(status, lacks),
        action="" if status.action is Action.COPY else str(status.action),
        source=without_options(status.source),
        destination=without_options(status.destination) if status.action.writes else "",
        words=WORDS[status.action],
    )


def tone_of(status: JobStatus) -> str:
    """Return the colour of the state of a job."""
    if status.superseded or status.dismissed is not None:
        return "off"
    if not status.state.final and (status.paused or status.cancelling or status.waiting is not None):
        return "hold"
    return TONES[status.state]


def progress(status: JobStatus) -> Progress | None:
    """Return how much of a job is done, None before its plan is complete, and for a dry run."""
    if status.objects_total <= 0 or status.dry_run or status.partly_planned:
        return None
    failed = status.state in (State.FAILED, State.CANCELLED)
    counts = object_counts(status)
    parts = {
        str(name): 100 * count / status.objects_total
        for name, count in counts.items()
        if count and name is not ObjectState.LEFT
    }
    return Progress(percent(status), tuple((parts if failed else _by_bytes(parts, status)).items()), failed)


def _by_bytes(parts: Mapping[str, float], status: JobStatus) -> dict[str, float]:
    """
    Return *parts*, which are shares of objects, together as long as the share of bytes.

    While a large object is copied, no object is done, but maybe most of the bytes.
    """
    settled = sum(parts.values())
    done = 100 * share(status)
    if not settled:
        return {str(ObjectState.RUNNING): done} if done else {}
    return {name: length * done / settled for name, length in parts.items()}


def _mean(status: JobStatus) -> Throughput | None:
    """Return the mean throughput of a job that has ended, None if it moved nothing."""
    ended = status.ended_at or time.time()
    seconds = running_s(status)
    if seconds <= 0 or not (bytes_worked(status) or objects_moved(status)):
        return None
    return Throughput(
        status.started_at, ended, objects_moved(status) / seconds, bytes_worked(status) / seconds
    )
