"""What is wrong now, and what to do about it: the first thing that an operator sees."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final
from urllib.parse import quote

from snapferry.orchestrator.jobs import Listing
from snapferry.orchestrator.reporting.advice import Advice, advise
from snapferry.orchestrator.reporting.measures import IDLE_S, idle_s
from snapferry.orchestrator.reporting.nodes import Fleet, Presence, Role, lacking
from snapferry.orchestrator.reporting.text.format import duration
from snapferry.orchestrator.reporting.text.status import reason_text, stall_text
from snapferry.orchestrator.schedules.lateness import Lateness, cause_text, lateness, standings
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import shortened
from snapferry.workers.copying.describe import short
from snapferry.workers.job_state import OPEN_STATES
from snapferry.workers.ledger import Freshness, FreshnessLedger, JobEntry, JobStatus, State
from snapferry.workers.ledger.keys import MIRROR, SCRUB

from .sources import Sources

# Things that are shown, and open jobs that are looked at.
MOST_SHOWN: Final = 6
LONGEST_NAME: Final = 80
JOBS_LOOKED_AT: Final = 50

# Failed jobs, mirrors and scrubs that are shown each with its reason; the others are counted.
MOST_FAILED: Final = 3

# Names of mirrors and scrubs that are late for the same cause.
MOST_NAMES: Final = 5

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

    A failed job that another one continues is left out: if that one failed too, it is listed. The failed jobs of a
    mirror or scrub are one thing, and so are those that are late for one cause. The jobs in *read* are not read again.
    """
    open_ids = [entry.job_id for entry in listing.of_states(*OPEN_STATES)][:JOBS_LOOKED_AT]
    failures = _failures(listing.of_states(State.FAILED))
    failed_ids = [group[0].job_id for group in failures.values()][:FAILED_LOOKED_AT]
    known = {status.job_id: status for status in read}
    wanted = [job_id for job_id in (*open_ids, *failed_ids) if job_id not in known]
    known |= sources.jobs.statuses(wanted)
    open_jobs = [known[job_id] for job_id in open_ids if job_id in known]
    late = _late(sources, fleet)
    failed = {
        key: status
        for key, group in failures.items()
        if (status := known.get(group[0].job_id)) and status.unresolved and not status.continued_by
    }
    shown = dict(islice(failed.items(), MOST_FAILED))
    found = [
        *_of_open(open_jobs, fleet),
        *_of_silent(fleet),
        *(_of_failed(key, status, len(failures[key]), late) for key, status in shown.items()),
        *_of_late([one for key, one in late.items() if key not in shown or one.found.job is None]),
    ]
    # The sort is stable. A store or worker that is away explains more than a job that makes no progress.
    found = sorted(found, key=lambda one: (one.tone != "bad", one.effect))[:MOST_SHOWN]
    rest = sum(
        len(group)
        for key, group in failures.items()
        if key not in shown and (key in failed or group[0].job_id not in known)
    )
    return [*found, *_of_rest(rest)]


def _failures(entries: Iterable[JobEntry]) -> dict[str, list[JobEntry]]:
    """Return failed jobs that no other job continues, by their mirror or scrub, such as "mirror:nightly", or id."""
    found: dict[str, list[JobEntry]] = {}
    for entry in entries:
        if not entry.continued_by:
            of_mirror = f"{MIRROR}:{entry.mirror}" if entry.mirror else ""
            found.setdefault(entry.schedule or of_mirror or entry.job_id, []).append(entry)
    return found


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


@dataclass(frozen=True)
class _Late:
    """A mirror or scrub that has not succeeded in time, and what *found* says about it."""

    fresh: Freshness
    found: Lateness

    @property
    def since(self) -> str:
        """For how long it has been late."""
        return duration(self.fresh.now - self.fresh.late_at)

    @property
    def waits(self) -> bool:
        """Whether its last job has not ended: what keeps the job is listed as well."""
        return self.found.job is not None and not self.found.job.state.final


def _late(sources: Sources, fleet: Fleet) -> dict[str, _Late]:
    """Return the mirrors and scrubs that have not succeeded in time, by their keys."""
    with sources.jobs.records() as client:
        late = [one for one in FreshnessLedger(client).freshness() if one.late]
        runs = standings(client, late, lambda ids: sources.jobs.statuses(ids).values())
    found = {}
    for one in late:
        run = runs[one.expected.key]
        lacks = None if run.job is None else lacking(run.job, fleet)
        found[one.expected.key] = _Late(one, lateness(one, run, lacks=lacks))
    return found


def _of_failed(key: str, status: JobStatus, jobs: int, late: Mapping[str, _Late]) -> Attention:
    """Return that a job failed, the last one of *jobs* of a mirror or scrub if *key* is that of one."""
    ago = duration(time.time() - status.ended_at)
    name = f"Job {short(status.job_id)}" if key == status.job_id else _name(key)
    title = (
        f"{name} failed {ago} ago"
        if jobs == 1
        else f"{name}: {counted(jobs, 'job')} failed, the last {ago} ago"
    )
    if key in late and late[key].found.job is not None:
        title += f"; late for {late[key].since}"
    return Attention("bad", title, f"/jobs/{quote(status.job_id)}", reason_text(status), advise(status))


def _of_rest(jobs: int) -> Iterator[Attention]:
    """Yield that further jobs failed, if there are some."""
    if jobs:
        title = f"{counted(jobs, 'more job')} failed"
        yield Attention("bad", title, "/?state=failed", "", Advice("See all of them.", ("snapferry", "jobs")))


def _of_late(late: Iterable[_Late]) -> Iterator[Attention]:
    """Yield the mirrors and scrubs that are *late*: once for a cause that several have in common."""
    causes: dict[tuple[str, str], list[_Late]] = {}
    for one in late:
        # The command names what is the cause of one alone: its job, or its name.
        causes.setdefault((one.found.cause, one.found.advice.command), []).append(one)
    for members in causes.values():
        yield _of_members(members) if len(members) > 1 else _of_one(members[0])


def _of_one(late: _Late) -> Attention:
    fresh, job = late.fresh, late.found.job
    success = f"Its last success was {duration(fresh.age_s)} ago." if fresh.age_s else "It never succeeded."
    reason = f"{success} {cause_text(late.found)}"
    if job is not None and job.state is State.FAILED and job.error:
        reason = reason_text(job)
    title = f"{_name(fresh.expected.key)} has been late for {late.since}"
    href = "/schedules" if job is None else f"/jobs/{quote(job.job_id)}"
    return Attention("bad", title, href, reason, late.found.advice, effect=late.waits)


def _of_members(late: Sequence[_Late]) -> Attention:
    """Return that several mirrors and scrubs are *late*, all for the same cause."""
    what = Counter(one.fresh.expected.kind for one in late)
    kinds = " and ".join(counted(what[kind], kind) for kind in (MIRROR, SCRUB) if what[kind])
    names = ", ".join(shortened(one.fresh.expected.name, LONGEST_NAME) for one in late[:MOST_NAMES])
    more = f" and {len(late) - MOST_NAMES:,} more" if len(late) > MOST_NAMES else ""
    first = min(late, key=lambda one: one.fresh.late_at)
    title = f"{kinds} are late, the first for {first.since}"
    reason = f"{cause_text(late[0].found, several=True)} {names}{more}"
    return Attention("bad", title, "/schedules", reason, late[0].found.advice, effect=late[0].waits)


def _name(key: str) -> str:
    """Return the mirror or scrub of a *key* such as "mirror:nightly" at the beginning of a sentence."""
    kind, _, name = key.partition(":")
    return f"{kind.capitalize()} {shortened(name, LONGEST_NAME)}"
