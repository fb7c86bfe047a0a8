"""What is wrong now, and what to do about it: the first thing that an operator sees."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from snapferry.orchestrator.jobs import Listing
from snapferry.orchestrator.reporting.advice import Advice, advise
from snapferry.orchestrator.reporting.measures import IDLE_S, idle_s
from snapferry.orchestrator.reporting.nodes import Fleet, Presence, Role, lacking
from snapferry.orchestrator.reporting.text.format import duration
from snapferry.orchestrator.reporting.text.status import reason_text, stall_text
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import shortened
from snapferry.workers.copying.describe import short
from snapferry.workers.job_state import OPEN_STATES
from snapferry.workers.ledger import FreshnessLedger, JobStatus, State

from .sources import Sources

# Things that are shown, and open jobs that are looked at.
MOST_SHOWN: Final = 6
LONGEST_NAME: Final = 80
JOBS_LOOKED_AT: Final = 50

# Failed jobs that are looked at: more than are shown, because some may have been continued meanwhile.
FAILED_LOOKED_AT: Final = 4 * MOST_SHOWN


@dataclass(frozen=True)
class Attention:
    """
    Something that is wrong: a *title* with a link *href* to more, a *reason* from elsewhere, and what to do.

    *tone* is its colour: "bad" for what does not end by itself. *effect*: something else may be its cause.
    """

    tone: str
    title: str
    href: str
    reason: str
    advice: Advice
    effect: bool = False


_ROLES: Final[tuple[Role, ...]] = ("orchestrator", "worker")

_NO_ORCHESTRATOR: Final = Attention(
    "bad",
    "No orchestrator is online",
    "/workers",
    "",
    Advice(
        "Jobs neither begin nor end, and mirrors and scrubs do not run. Start one.",
        ("snapferry", "orchestrator"),
    ),
)


def attentions(
    sources: Sources, fleet: Fleet, listing: Listing, read: Iterable[JobStatus]
) -> list[Attention]:
    """
    Return what is wrong with the jobs of *listing* and the schedules of the fleet now, the most urgent first.

    A failed job that another one continues is left out: if that one failed too, it is listed. The jobs in *read* are
    not read again.
    """
    open_ids = [entry.job_id for entry in listing.of_states(*OPEN_STATES)][:JOBS_LOOKED_AT]
    failed_ids = [entry.job_id for entry in listing.of_states(State.FAILED) if not entry.continued_by]
    failed_ids = failed_ids[:FAILED_LOOKED_AT]
    known = {status.job_id: status for status in read}
    wanted = [job_id for job_id in (*open_ids, *failed_ids) if job_id not in known]
    known |= sources.jobs.statuses(wanted)
    open_jobs = [known[job_id] for job_id in open_ids if job_id in known]
    failed = [known[job_id] for job_id in failed_ids if job_id in known]
    found = [
        *_of_open(open_jobs, fleet),
        *_of_silent(fleet),
        *(_of_failed(status) for status in failed if status.unresolved and not status.continued_by),
        *_of_schedules(sources),
    ]
    # The sort is stable. A store or worker that is away explains more than a job that makes no progress.
    return sorted(found, key=lambda one: (one.tone != "bad", one.effect))[:MOST_SHOWN]


def _of_open(jobs: Iterable[JobStatus], fleet: Fleet) -> list[Attention]:
    """Return what keeps open jobs: each cause once, with the number of jobs that it keeps."""
    causes: dict[str, list[tuple[JobStatus, Role | None]]] = {}
    for status in jobs:
        lacks = lacking(status, fleet)
        if status.cancelling or status.paused:
            continue
        if lacks is not None:
            causes.setdefault(f"{lacks} {status.queue if lacks == 'worker' else ''}", []).append(
                (status, lacks)
            )
        elif status.waiting is not None:
            causes.setdefault(f"store {status.waiting.store}", []).append((status, None))
        elif stall_text(status):
            causes.setdefault(f"job {status.job_id}", []).append((status, None))
    found = [_of_cause([status for status, _ in cause], cause[0][1]) for cause in causes.values()]
    if fleet.headless and not any(key.startswith("orchestrator ") for key in causes):
        found.append(_NO_ORCHESTRATOR)
    return found


def _of_silent(fleet: Fleet) -> Iterator[Attention]:
    """Yield the roles of which nodes fell silent without leaving."""
    for role in _ROLES:
        silent = [node for node in fleet.nodes if node.role == role and node.presence is Presence.SILENT]
        others = fleet.online(role)
        # Without any orchestrator there is a title of its own.
        if not silent or (role == "orchestrator" and not others):
            continue
        one = len(silent) == 1
        name = f"{role.capitalize()} {shortened(silent[0].name, LONGEST_NAME)}"
        title = f"{name} has" if one else f"{counted(len(silent), role)} have"
        title += f" been silent for {duration(min(node.silent_s or 0.0 for node in silent))}"
        work = "batches" if role == "worker" else "jobs"
        then = f"Other {role}s take over the {work} within a minute" if others else f"The {work} wait"
        dead = "The process or its machine is probably dead" if one else "They are probably dead"
        again = "Start it again" if one else "Start them again"
        advice = Advice(f"{dead}. {then}; nothing is lost. {again}.", ("snapferry", role))
        yield Attention("hold", title, "/workers", "", advice)


def _of_cause(jobs: Sequence[JobStatus], lacks: Role | None) -> Attention:
    status = jobs[0]
    advice = advise(status, lacking=lacks)
    href = f"/jobs/{quote(status.job_id)}" if len(jobs) == 1 else "/?state=open"
    waits = f"{counted(len(jobs), 'open job')} {'waits' if len(jobs) == 1 else 'wait'}"
    if lacks is not None:
        return Attention("bad", f"No {lacks} is online: {waits}", href, "", advice)
    if status.waiting is not None:
        since = duration(time.time() - status.waiting.since)
        reason = f"{status.waiting.store}: {status.waiting.reason}"
        return Attention("hold", f"A store has not answered for {since}: {waits}", href, reason, advice)
    part = "" if idle_s(status) > IDLE_S else "Part of "
    title = f"{part}{'job' if part else 'Job'} {short(status.job_id)} makes no progress"
    return Attention("hold", title, href, stall_text(status), advice, effect=True)


def _of_failed(status: JobStatus) -> Attention:
    ago = duration(time.time() - status.ended_at)
    title = f"Job {short(status.job_id)} failed {ago} ago"
    return Attention("bad", title, f"/jobs/{quote(status.job_id)}", reason_text(status), advise(status))


def _of_schedules(sources: Sources) -> Iterator[Attention]:
    """Yield the mirrors and scrubs that have not succeeded in time."""
    with sources.jobs.records() as client:
        found = FreshnessLedger(client).freshness()
    for one in found:
        if one.late and not one.removed_at:
            name = f"{one.expected.kind.capitalize()} {one.expected.name}"
            success = (
                f"Its last success was {duration(one.age_s)} ago." if one.age_s else "It never succeeded."
            )
            advice = Advice(f"{success} Find out why it did not run.", ("snapferry", "doctor"))
            title = f"{name} has been late for {duration(one.now - one.late_at)}"
            yield Attention("bad", title, "/schedules", "", advice)
