"""Checks of workers and orchestrators: what each answers in bounded time, and what the answers mean together."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from celery import Celery

from snapferry.orchestrator.reporting.nodes import Announced
from snapferry.orchestrator.reporting.text.format import duration
from snapferry.stores.diagnosis.findings import Finding, Level, clock_finding
from snapferry.stores.text.format import counted
from snapferry.workers.diagnosis.remote_control import FACTS, fleet_wide, versions
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings

from .result import CheckResult, by_value, some

# A worker answers within milliseconds, unless its machine is busy or it runs tasks in its own process (pool "solo").
ANSWER_S: Final = 5.0

# Seconds of silence after which no further process answers under a name that has answered.
FURTHER_S: Final = 0.5


class Answer(NamedTuple):
    """
    The facts that a process gave about itself; *asked* and *answered* are seconds since the epoch.

    Several processes may share the name of the *node*.
    """

    node: str
    facts: Mapping[str, Any]
    asked: float
    answered: float

    @property
    def instance(self) -> str:
        """What tells the process apart from others of its node, "" for a node of an earlier version."""
        return str((self.facts.get("process") or {}).get("instance", ""))

    @property
    def process(self) -> str:
        """The process as people find it, "" for a node of an earlier version."""
        process = self.facts.get("process") or {}
        return f"{process.get('pid')} on {process.get('machine')}" if process else ""


def fleet_facts(app: Celery, known: Collection[str]) -> list[Answer]:
    """
    Ask all nodes for their facts; return one answer of each process, by node.

    Waits until as many have answered as there are *known* nodes, or none has for `ANSWER_S`.
    """
    answers: dict[tuple[str, str], Answer] = {}

    def ask(timeout_s: float, limit: int | None, nodes: list[str] | None = None) -> None:
        asked = time.time()
        times: Counter[str] = Counter()

        def take(reply: Mapping[str, Mapping[str, Any]]) -> None:
            for node, facts in reply.items():
                times[node] += 1
                answer = Answer(node, {} if "error" in facts else facts, asked, time.time())
                # Nodes of earlier versions do not tell their processes apart.
                answers.setdefault((node, answer.instance or str(times[node])), answer)

        app.control.broadcast(
            FACTS, reply=True, timeout=timeout_s, limit=limit, callback=take, destination=nodes
        )

    ask(ANSWER_S, len(known) or None)
    names = {node for node, _ in answers}
    if len(names) < len(answers) and (missing := sorted(set(known) - names)):
        # The answers of processes that share a name were counted in place of theirs.
        ask(ANSWER_S, len(missing), missing)
    ask(FURTHER_S, None)
    return sorted(answers.values(), key=lambda answer: (answer.node, answer.process))


def check_fleet(
    answers: Sequence[Answer],
    known: Iterable[str],
    settings: Settings,
    announced: Announced = Announced(),  # noqa: B008 - it cannot be changed
) -> list[CheckResult]:
    """
    Return results about the nodes' *answers*.

    *known* nodes have a mailbox, *settings* are this command's, and *announced* nodes said that they run.
    """
    findings = [*_roles(answers, announced), *_names(answers, known)]
    # A node of an old version gives no facts.
    answered = [answer for answer in told_apart(answers) if answer.facts]
    if answered:
        findings += [*_versions(answered), *_settings(answered, settings), *_access(answered)]
        for answer in answered:
            at = float(answer.facts["time"])
            findings.append(clock_finding(answer.node, (at, at), (answer.asked, answer.answered)))
    return [CheckResult("fleet", finding) for finding in findings]


def _roles(answers: Sequence[Answer], announced: Announced) -> Iterator[Finding]:
    last = {
        "worker": {worker.name: worker.silent_s for worker in announced.workers},
        "orchestrator": announced.orchestrators,
    }
    for queue, role, work in (
        (COPY_QUEUE, "worker", "copied"),
        (PLAN_QUEUE, "orchestrator", "planned or published"),
    ):
        serving = [answer.node for answer in answers if queue in answer.facts.get("queues", ())]
        check = f"fleet.{role}s"
        if serving:
            said = f"{counted(len(serving), role)} on {queue}: {some(serving)}"
            yield Finding(Level.OK, check, said)
        else:
            said = f"no {role} serves {queue}: nothing is {work}{_last_seen(last[role])}"
            yield Finding(Level.ERROR, check, said, f"start one: snapferry {role}")


def _last_seen(silent_s: Mapping[str, float]) -> str:
    """Return which node of a role was there last, "" if none was in the last week."""
    if not silent_s:
        return ""
    name = min(silent_s, key=lambda name: silent_s[name])
    return f". The last one was {name}, {duration(silent_s[name])} ago"


def _names(answers: Sequence[Answer], known: Iterable[str]) -> Iterator[Finding]:
    yield from _shared_names(answers)
    foreign = [answer.node for answer in answers if not answer.facts]
    if foreign:
        said = f"nodes of an older version, which cannot be checked: {some(foreign)}"
        yield Finding(Level.WARNING, "fleet.versions", said, "upgrade them")
    ours = (COPY_QUEUE, PLAN_QUEUE)
    idle = [
        answer.node
        for answer in answers
        if answer.facts and not any(queue.startswith(ours) for queue in answer.facts["queues"])
    ]
    if idle:
        said = f"nodes that serve no queue of snapferry: {some(idle)}"
        yield Finding(Level.NOTE, "fleet.queues", said, f"use -Q {COPY_QUEUE} or -Q {PLAN_QUEUE}")
    silent = sorted(set(known) - {answer.node for answer in answers})
    if silent:
        said = f"nodes that are known to the broker but do not answer: {some(silent)}"
        advice = "ignore nodes that were killed; a running one hangs, or its only process is busy"
        yield Finding(Level.NOTE, "fleet.silent", said, advice)


def _shared_names(answers: Sequence[Answer]) -> Iterator[Finding]:
    """Yield a finding for each name that several processes have."""
    for name, times in Counter(answer.node for answer in answers).items():
        if times == 1:
            continue
        sharing = [answer for answer in answers if answer.node == name]
        processes = some([answer.process for answer in sharing if answer.process])
        said = (
            f"{len(sharing)} processes share the name {name}{f' ({processes})' if processes else ''}, and count as"
            " one: a store that one of them cannot reach, or its end, is recorded for all of them"
        )
        plans = any(PLAN_QUEUE in answer.facts.get("queues", ()) for answer in sharing)
        role = "orchestrator" if plans else "worker"
        advice = f"start each with a name of its own: snapferry {role} --name {role}-2"
        yield Finding(Level.WARNING, "fleet.names", said, advice)


def told_apart(answers: Sequence[Answer]) -> Iterator[Answer]:
    """Yield *answers*, each under a name that no other has."""
    times = Counter(answer.node for answer in answers)
    for number, answer in enumerate(answers, 1):
        process = answer.process or f"no. {number}"
        yield answer if times[answer.node] == 1 else answer._replace(node=f"{answer.node} ({process})")


def _versions(answers: Sequence[Answer]) -> Iterator[Finding]:
    own = versions()
    by_messages = by_value({answer.node: str(answer.facts["versions"]["messages"]) for answer in answers})
    if own["messages"] not in by_messages:
        said = (
            f"this command writes messages of version {own['messages']}, but nodes read {_each(by_messages)}"
        )
        yield Finding(Level.ERROR, "fleet.versions", said, "use the version of snapferry that the fleet runs")
        return
    differ = False
    for part, what in (("messages", "messages"), ("snapferry", "snapferry"), ("celery", "Celery")):
        seen = {answer.node: str(answer.facts["versions"].get(part, "?")) for answer in answers}
        apart = by_value(seen | {"this command": own[part]})
        if len(apart) > 1:
            differ = True
            said = f"versions of {what} differ: {_each(apart)}"
            yield Finding(Level.WARNING, "fleet.versions", said, "bring all machines to one version soon")
    if not differ:
        said = f"all run snapferry {own['snapferry']}, Celery {own['celery']}, messages of version {own['messages']}"
        yield Finding(Level.OK, "fleet.versions", said)


def _settings(answers: Sequence[Answer], settings: Settings) -> Iterator[Finding]:
    differ = False
    for name, own in fleet_wide(settings).items():
        seen = {answer.node: str(answer.facts["settings"].get(name, "?")) for answer in answers}
        variable = f"SNAPFERRY_{name.upper()}"
        if len(set(seen.values())) > 1:
            differ = True
            # Each node applies its own visibility timeout to the tasks of all.
            level = Level.ERROR if name == "visibility_timeout" else Level.WARNING
            said = f"{variable} differs: {_each(by_value(seen))}"
            yield Finding(level, "fleet.settings", said, "set one value on all machines, and restart them")
        elif str(own) not in seen.values():
            differ = True
            said = f"{variable} is {own} here and {next(iter(seen.values()))} on the fleet"
            yield Finding(Level.WARNING, "fleet.settings", said, "set the same value here")
    if not differ:
        values = ", ".join(f"{name} {value}" for name, value in fleet_wide(settings).items())
        yield Finding(Level.OK, "fleet.settings", f"settings that must be equal are equal: {values}")


def _access(answers: Sequence[Answer]) -> Iterator[Finding]:
    # Nodes of earlier versions have no allow-list.
    open_nodes = [answer.node for answer in answers if answer.facts.get("unlimited", ["read"])]
    if open_nodes:
        said = f"nodes without an allow-list open any store that a job names: {some(open_nodes)}"
        advice = "set read and write of [access] in their snapferry.toml, see docs/security.md"
        yield Finding(Level.WARNING, "fleet.access", said, advice)
    else:
        yield Finding(Level.OK, "fleet.access", "every node has an allow-list of stores")


def _each(by_value: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{value} ({some(nodes)})" for value, nodes in by_value.items())
