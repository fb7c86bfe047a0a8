"""
The doctor: what is wrong with a fleet and the stores of a copy, and what to do about it.

    examine      all of it
    fleet_facts  ask workers and orchestrators, in bounded time
    judge_fleet  what their answers mean; pure
    judge_nodes  what machines say of stores, side by side; pure

Nothing is changed by being looked at, and nothing is left behind.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import redis
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from stores.findings import Finding, Level, clock_finding
from stores.words import counted, size
from workers.app import COPY_QUEUE, PLAN_QUEUE
from workers.broker_check import check_redis, open_broker
from workers.checkup import FACTS, LOOK, fleet_wide, versions
from workers.ledger import Ledger, UnknownJob
from workers.settings import Settings
from workers.store_check import TIMEOUT_S, Check, Looking, from_document

from .app import make_fleet_app
from .embedded import EmbeddedFleet, FleetDied, find_server
from .reconcile import needs_a_look

# A worker answers within milliseconds, unless it runs tasks in its own process (pool "solo").
ANSWER_S: Final = 2.0

# Beyond what the machine that looks allows itself.
LATE_S: Final = 15.0

# Jobs that are open; there are seldom more than a few.
MOST_JOBS: Final = 1000
STUCK_S: Final = 60.0

_WORST: Final = {Level.OK: 0, Level.NOTE: 1, Level.WARNING: 2, Level.ERROR: 3}


@dataclass(frozen=True)
class Line:
    """A finding, what it is *about*, and the *node* of the fleet that found it; "" for this command."""

    about: str
    finding: Finding
    node: str = ""


class Answer(NamedTuple):
    """What a *node* said of itself, and when it was asked and had answered, in seconds since the epoch."""

    node: str
    facts: Mapping[str, Any]
    asked: float
    answered: float


def examine(settings: Settings, check: Check) -> list[Line]:
    """
    Look at the fleet, or at what stands in for it without a broker, and at the stores of *check*.

    Takes some seconds, two minutes at most. Raises `InvalidSettings`; whatever is wrong else is in the answer.
    """
    about_stores = check.source is not None or check.destination is not None
    if settings.broker_url is None:
        # It forks, so it comes before anything that makes threads.
        lines = [Line("fleet", finding) for finding in embedded(settings)]
        return lines + (_here(Looking(check).end()) if about_stores else [])
    looking = Looking(check) if about_stores else None
    try:
        lines, by_node = _fleet(settings, settings.broker_url, check if about_stores else None)
    except BaseException:
        if looking is not None:
            looking.stop()
        raise
    if looking is not None:
        here = _here(looking.end())
        lines += judge_nodes(here, by_node)
    return lines


def worst(lines: Iterable[Line]) -> Level:
    """Return the worst level of all lines."""
    return max((line.finding.level for line in lines), key=_WORST.__getitem__, default=Level.OK)


def embedded(settings: Settings) -> Iterator[Finding]:
    """Say how a command works without a broker, and try it: the server is started, asked and ended."""
    began = time.monotonic()
    try:
        server = find_server()
        with EmbeddedFleet(settings, processes=1) as fleet:
            took = time.monotonic() - began
            with open_broker(fleet.settings.broker_url or "") as client:
                info: Mapping[str, Any] = client.info("server")
            version = info.get("valkey_version") or info.get("redis_version")
            fleet.check()
    except (FleetDied, RedisError, OSError) as error:
        said = f"no broker is configured, and the embedded server does not start: {error}"
        yield Finding(Level.ERROR, "embedded", said, "install redis-server, or name a broker with --broker")
        return
    yield Finding(
        Level.OK,
        "embedded",
        f"no broker is configured: each command starts a server of its own ({server}, {version}; {took:.1f} s)",
    )
    free = shutil.disk_usage(_temporary()).free
    if free < 64 * 1024**2:
        said = f"only {size(free)} is free in the temporary directory"
        yield Finding(Level.WARNING, "embedded.space", said, "make room there, or set TMPDIR")


def _temporary() -> str:
    import tempfile

    return tempfile.gettempdir()


def _fleet(
    settings: Settings, url: str, check: Check | None
) -> tuple[list[Line], dict[str, list[Line] | str]]:
    """Return what is to be said of the fleet, and of each node what it found at the stores, or why it did not look."""
    found = list(check_redis(url))
    lines = [Line("broker", finding) for finding in found]
    if found[0].level is Level.ERROR:
        return lines, {}
    app = make_fleet_app(settings)
    by_node: dict[str, list[Line] | str] = {}
    try:
        with open_broker(url) as client:
            known = _known_nodes(client)
            answers = fleet_facts(app, len(known))
            lines += judge_fleet(answers, known, settings)
            lines += [Line("jobs", finding) for finding in jobs_findings(client, settings)]
            if check is not None:
                by_node = _nodes_look(app, client, [answer for answer in answers if answer.facts], check)
    except (RedisError, OperationalError, OSError) as error:
        said = f"the fleet cannot be asked: {str(error)[:200] or type(error).__name__}"
        advice = "see what was said of the broker; if nothing, look at its log"
        lines.append(Line("fleet", Finding(Level.ERROR, "fleet.answers", said, advice)))
    finally:
        app.close()
    return lines, by_node


def _known_nodes(client: redis.Redis) -> set[str]:
    """Return the nodes that have a mailbox in the broker: those that run, and those that ended without a word."""
    ending = ".celery.pidbox"
    queues = (
        str(binding).rpartition("\x16")[2] for binding in client.smembers("_kombu.binding.celery.pidbox")
    )
    return {queue.removesuffix(ending) for queue in queues if queue.endswith(ending)}


def fleet_facts(app: Celery, expected: int) -> list[Answer]:
    """Ask all nodes what they are; return their answers. Ends when *expected* came, or none came for `ANSWER_S`."""
    answers: list[Answer] = []
    asked = time.time()

    def take(reply: Mapping[str, Mapping[str, Any]]) -> None:
        for node, facts in reply.items():
            answers.append(Answer(node, {} if "error" in facts else facts, asked, time.time()))

    app.control.broadcast(FACTS, reply=True, timeout=ANSWER_S, limit=expected or None, callback=take)
    return sorted(answers)


def judge_fleet(answers: Sequence[Answer], known: Iterable[str], settings: Settings) -> list[Line]:
    """Return what the nodes' *answers* mean together; *known* have a mailbox, *settings* are this command's."""
    lines = [Line("fleet", finding) for finding in _roles(answers)]
    lines += [Line("fleet", finding) for finding in _who(answers, known)]
    told = [answer for answer in answers if answer.facts]
    if told:
        lines += [Line("fleet", finding) for finding in _versions(told)]
        lines += [Line("fleet", finding) for finding in _settings(told, settings)]
        for answer in told:
            at = float(answer.facts["time"])
            clock = clock_finding(answer.node, (at, at), (answer.asked, answer.answered))
            lines.append(Line("fleet", clock))
    return lines


def _roles(answers: Sequence[Answer]) -> Iterator[Finding]:
    for queue, role, does in (
        (COPY_QUEUE, "worker", "copies"),
        (PLAN_QUEUE, "orchestrator", "plans or publishes"),
    ):
        serving = [answer.node for answer in answers if queue in answer.facts.get("queues", ())]
        check = f"fleet.{role}s"
        if serving:
            said = f"{counted(len(serving), role)} on {queue}: {_some(serving)}"
            yield Finding(Level.OK, check, said)
        else:
            said = f"no {role} serves {queue}: nobody {does}, jobs wait"
            yield Finding(Level.ERROR, check, said, f"start one: snapferry {role}")


def _who(answers: Sequence[Answer], known: Iterable[str]) -> Iterator[Finding]:
    twice = [node for node, times in Counter(answer.node for answer in answers).items() if times > 1]
    if twice:
        said = f"several processes have one name: {_some(twice)}"
        yield Finding(Level.WARNING, "fleet.names", said, "give each its own: --hostname NAME@%h")
    foreign = [answer.node for answer in answers if not answer.facts]
    if foreign:
        said = f"cannot say what they are: {_some(foreign)}"
        yield Finding(Level.WARNING, "fleet.versions", said, "they run an older snapferry: upgrade them")
    idle = [a.node for a in answers if a.facts and not {COPY_QUEUE, PLAN_QUEUE} & set(a.facts["queues"])]
    if idle:
        said = f"serve neither queue: {_some(idle)}"
        yield Finding(
            Level.NOTE, "fleet.queues", said, f"-Q {COPY_QUEUE} and -Q {PLAN_QUEUE} are what there is"
        )
    silent = sorted(set(known) - {answer.node for answer in answers})
    if silent:
        said = f"have a mailbox and do not answer: {_some(silent)}"
        advice = "those that were killed never will; one that runs hangs, or is busy in its only process"
        yield Finding(Level.NOTE, "fleet.silent", said, advice)


def _versions(answers: Sequence[Answer]) -> Iterator[Finding]:
    own = versions()
    by_messages = _by_value({answer.node: str(answer.facts["versions"]["messages"]) for answer in answers})
    if own["messages"] not in by_messages:
        said = f"this command writes messages of version {own['messages']}, which no node reads: {_each(by_messages)}"
        yield Finding(Level.ERROR, "fleet.versions", said, "use the snapferry that the fleet runs")
        return
    differ = False
    for part, what in (("messages", "messages"), ("snapferry", "snapferry"), ("celery", "Celery")):
        seen = {answer.node: str(answer.facts["versions"].get(part, "?")) for answer in answers}
        by_value = _by_value(seen | {"this command": own[part]})
        if len(by_value) > 1:
            differ = True
            said = f"the versions of {what} differ: {_each(by_value)}"
            yield Finding(Level.WARNING, "fleet.versions", said, "bring all machines to one version, soon")
    if not differ:
        said = f"all have snapferry {own['snapferry']}, Celery {own['celery']}, messages of version {own['messages']}"
        yield Finding(Level.OK, "fleet.versions", said)


def _settings(answers: Sequence[Answer], settings: Settings) -> Iterator[Finding]:
    differ = False
    for name, own in fleet_wide(settings).items():
        seen = {answer.node: str(answer.facts["settings"].get(name, "?")) for answer in answers}
        variable = f"SNAPFERRY_{name.upper()}"
        if len(set(seen.values())) > 1:
            differ = True
            # Each applies its own visibility timeout to everybody's tasks.
            level = Level.ERROR if name == "visibility_timeout" else Level.WARNING
            said = f"{variable} differs: {_each(_by_value(seen))}"
            yield Finding(
                level, "fleet.settings", said, "set one value on all machines, and start them again"
            )
        elif str(own) not in seen.values():
            differ = True
            said = f"{variable} is {own} here and {next(iter(seen.values()))} on the fleet"
            yield Finding(Level.WARNING, "fleet.settings", said, "set the same value here")
    if not differ:
        values = ", ".join(f"{name} {value}" for name, value in fleet_wide(settings).items())
        yield Finding(Level.OK, "fleet.settings", f"what must be equal on all machines is: {values}")


def jobs_findings(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Say which open jobs are held, and which do not move though nothing holds them."""
    ledger = Ledger(client, expires_s=settings.job_expires)
    open_jobs = ledger.open_jobs()
    troubled = 0
    for job_id in open_jobs[:MOST_JOBS]:
        with suppress(UnknownJob):
            try:
                standing, neglected = ledger.neglected(job_id)
            except ValueError:
                # A state of another version.
                continue
            if standing.paused:
                troubled += 1
                said = f"job {job_id} is paused: nothing of it is handed out"
                yield Finding(Level.WARNING, "jobs.paused", said, f"snapferry continue {job_id}")
                continue
            why = needs_a_look(standing, neglected=neglected, driven=ledger.driven(job_id))
            if why and standing.idle_s > STUCK_S:
                troubled += 1
                said = f"job {job_id} ({standing.state}) has not moved for {standing.idle_s:.0f} s: {why}"
                advice = (
                    f"an orchestrator takes it up within a minute, if one runs; snapferry status {job_id}"
                )
                yield Finding(Level.WARNING, "jobs.stuck", said, advice)
    if len(open_jobs) > MOST_JOBS:
        yield Finding(
            Level.NOTE, "jobs", f"of {len(open_jobs):,} open jobs only {MOST_JOBS:,} were looked at"
        )
    waiting = int(client.llen(COPY_QUEUE)) + int(client.llen(PLAN_QUEUE))
    said = f"{counted(len(open_jobs), 'open job')}, {counted(waiting, 'task')} in the queues"
    yield Finding(Level.OK, "jobs", said + ("" if troubled else "; none is paused or stuck"))


def _nodes_look(
    app: Celery, client: redis.Redis, answers: Sequence[Answer], check: Check
) -> dict[str, list[Line] | str]:
    """Let each node that answered look at the stores; return what it found, or why there is nothing."""
    answer_to = f"snapferry:doctor:{secrets.token_hex(16)}"
    found: dict[str, list[Line] | str] = dict.fromkeys(
        (answer.node for answer in answers), "it does not answer"
    )
    waited_for = set()
    for planning in (True, False):
        nodes = [one.node for one in answers if (PLAN_QUEUE in one.facts["queues"]) is planning]
        # Workers read no manifest that was asked for; a huge one keeps an orchestrator busy enough.
        asked = check if planning else check._replace(snapshots=())
        arguments = {"check": json.dumps(asked), "answer_to": answer_to}
        replies = nodes and app.control.broadcast(
            LOOK, arguments=arguments, destination=nodes, reply=True, timeout=ANSWER_S
        )
        for node, said in (pair for reply in replies or () for pair in reply.items()):
            if "ok" in said:
                waited_for.add(node)
                found[node] = f"it did not end looking within {TIMEOUT_S + LATE_S:.0f} s"
            else:
                found[node] = str(said.get("error"))[:200]
    deadline = time.monotonic() + TIMEOUT_S + LATE_S
    while waited_for and time.monotonic() < deadline:
        # Shorter than the client's own patience.
        popped: Any = client.blpop([answer_to], timeout=1)
        if popped is None:
            continue
        with suppress(ValueError, KeyError, TypeError):
            document = json.loads(popped[1])
            node = str(document["node"])
            told = map(from_document, document["found"])
            found[node] = [Line(one.where, one.finding, node) for one in told]
            waited_for.discard(node)
    client.delete(answer_to)
    return found


def judge_nodes(here: Sequence[Line], by_node: Mapping[str, Sequence[Line] | str]) -> list[Line]:
    """
    Return what this command (*here*) and each node of the fleet found at the stores, with what it means together.

    The machines of the fleet do the copying; where they looked, this one's lack of access is no error.
    """
    looked = {node: list(found) for node, found in by_node.items() if not isinstance(found, str)}
    lines = [_softened(line) for line in here] if looked else list(here)
    exists = any(_is_there(found) for found in [lines, *looked.values()])
    for node, found in by_node.items():
        if isinstance(found, str):
            finding = Finding(
                Level.WARNING, "store.probe", f"it does not say what the stores are like: {found}"
            )
            lines.append(Line("stores", finding, node))
        else:
            lines += [_mounted(line) if exists else line for line in found]
    lists = {
        node or "this machine": line.finding.value
        for node, found in {"": list(here), **looked}.items()
        for line in found
        if line.finding.check == "source.list" and line.finding.value
    }
    if len(set(lists.values())) > 1:
        groups = "; ".join(_some(nodes) for nodes in _by_value(lists).values())
        said = f"not all machines see the same snapshots at the source: {groups}"
        advice = (
            "see that its path is the same shared mount on each; run again if snapshots were just written"
        )
        lines.append(Line("source", Finding(Level.WARNING, "source.same", said, advice)))
    return lines


def _softened(line: Line) -> Line:
    if line.finding.level is not Level.ERROR:
        return line
    advice = f"{line.finding.advice}; only needed where the copying is done from this machine".lstrip("; ")
    return replace(line, finding=replace(line.finding, level=Level.WARNING, advice=advice))


def _is_there(found: Iterable[Line]) -> bool:
    return any(line.finding.check == "store.exists" and line.finding.level is Level.OK for line in found)


def _mounted(line: Line) -> Line:
    """Say that a directory that another machine has, and this one would make, is a mount that is missing."""
    if line.finding.check != "store.exists" or line.finding.level is not Level.NOTE:
        return line
    said = f"{line.finding.said.partition(' yet;')[0]} here, though other machines have it"
    return replace(
        line, finding=Finding(Level.ERROR, "store.exists", said, "mount it on this machine as well")
    )


def _here(found: Iterable[Any]) -> list[Line]:
    return [Line(told.where, told.finding) for told in found]


def _by_value(seen: Mapping[str, str]) -> dict[str, list[str]]:
    by_value: dict[str, list[str]] = {}
    for node, value in seen.items():
        by_value.setdefault(value, []).append(node)
    return dict(sorted(by_value.items()))


def _each(by_value: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} ({_some(nodes)})" for value, nodes in by_value.items())


def _some(names: Sequence[str]) -> str:
    """Return the first of *names*, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
