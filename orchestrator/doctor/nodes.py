"""How the stores look from each machine of the fleet, and what that means together."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import redis
from celery import Celery

from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.workers.diagnosis.remote_control import LOOK
from snapferry.workers.diagnosis.store_check import TIMEOUT_S, Check, from_document
from snapferry.workers.queues import PLAN_QUEUE

from .fleet import ANSWER_S, Answer
from .line import Line, by_value, some

# Beyond what the machine that looks allows itself.
LATE_S: Final = 15.0


def nodes_look(
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
        groups = "; ".join(some(nodes) for nodes in by_value(lists).values())
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
