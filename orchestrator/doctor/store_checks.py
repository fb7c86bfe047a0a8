"""Checks of the stores from each machine of the fleet, and what their results mean together."""

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
from snapferry.workers.redis_json import parse_json

from .fleet import ANSWER_S, Answer, told_apart
from .result import CheckResult, by_value, some

# Seconds for the answer of a node to arrive, after the time that the node has for its checks.
LATE_S: Final = 15.0


def check_stores(
    app: Celery, client: redis.Redis, answers: Sequence[Answer], check: Check
) -> dict[str, list[CheckResult] | str]:
    """
    Let each process that answered check the stores; return its results, or why it has none.

    They are by the name of its node, which `told_apart` has changed where several processes share it.
    """
    answer_to = f"snapferry:doctor:{secrets.token_hex(16)}"
    names = {
        (one.node, one.instance): apart.node for one, apart in zip(answers, told_apart(answers), strict=True)
    }
    found: dict[str, list[CheckResult] | str] = dict.fromkeys(names.values(), "it does not answer")
    waited_for = set()
    for planning in (True, False):
        asked_nodes = [one.node for one in answers if (PLAN_QUEUE in one.facts["queues"]) is planning]
        # Only orchestrators read manifests; one huge manifest per machine is enough.
        asked = check if planning else check._replace(snapshots=())
        arguments = {"check": json.dumps(asked), "answer_to": answer_to}
        replies = asked_nodes and app.control.broadcast(
            LOOK,
            arguments=arguments,
            destination=sorted(set(asked_nodes)),
            reply=True,
            timeout=ANSWER_S,
            limit=len(asked_nodes),
        )
        for node, reply in (pair for part in replies or () for pair in part.items()):
            name = names.get((node, str(reply.get("instance", ""))), node)
            if "ok" in reply:
                waited_for.add(name)
                found[name] = f"its checks took more than {TIMEOUT_S + LATE_S:.0f} s"
            else:
                found[name] = str(reply.get("error"))[:200]
    deadline = time.monotonic() + TIMEOUT_S + LATE_S
    while waited_for and time.monotonic() < deadline:
        # Shorter than the timeout of the client.
        popped: Any = client.blpop([answer_to], timeout=1)
        if popped is None:
            continue
        with suppress(ValueError, KeyError, TypeError):
            document = parse_json(popped[1])
            node = str(document["node"])
            name = names.get((node, str(document.get("instance", ""))), node)
            told = map(from_document, document["found"])
            found[name] = [CheckResult(one.where, one.finding, name) for one in told]
            waited_for.discard(name)
    client.delete(answer_to)
    return found


def compare_nodes(
    local: Sequence[CheckResult], by_node: Mapping[str, Sequence[CheckResult] | str]
) -> list[CheckResult]:
    """
    Return the results about the stores of this command (*local*) and of each node, judged together.

    The machines of the fleet do the copying. If they checked the stores, missing access here is not an error.
    """
    checked = {node: list(found) for node, found in by_node.items() if not isinstance(found, str)}
    results = [_downgraded(result) for result in local] if checked else list(local)
    exists = any(_is_there(found) for found in [results, *checked.values()])
    for node, found in by_node.items():
        if isinstance(found, str):
            finding = Finding(Level.WARNING, "store.probe", f"the stores were not checked: {found}")
            results.append(CheckResult("stores", finding, node))
        else:
            results += [_missing_mount(result) if exists else result for result in found]
    lists = {
        node or "this machine": result.finding.value
        for node, found in {"": list(local), **checked}.items()
        for result in found
        if result.finding.check == "source.list" and result.finding.value
    }
    if len(set(lists.values())) > 1:
        groups = "; ".join(some(nodes) for nodes in by_value(lists).values())
        said = f"machines see different snapshots at the source: {groups}"
        advice = (
            "use the same shared mount on each machine; if snapshots were just written, run the doctor again"
        )
        results.append(CheckResult("source", Finding(Level.WARNING, "source.same", said, advice)))
    return results


def _downgraded(result: CheckResult) -> CheckResult:
    """Return an error of this machine as a warning."""
    if result.finding.level is not Level.ERROR:
        return result
    advice = f"{result.finding.advice}; only needed for copies from this machine".lstrip("; ")
    return replace(result, finding=replace(result.finding, level=Level.WARNING, advice=advice))


def _is_there(found: Iterable[CheckResult]) -> bool:
    return any(
        result.finding.check == "store.exists" and result.finding.level is Level.OK for result in found
    )


def _missing_mount(result: CheckResult) -> CheckResult:
    """Return an error if a directory exists on other machines but not where *result* was found."""
    if result.finding.check != "store.exists" or result.finding.level is not Level.NOTE:
        return result
    # Nodes of an earlier version do not give the directory as a value.
    said = f"{result.finding.value or 'the directory'} does not exist here, but other machines have it"
    finding = Finding(Level.ERROR, "store.exists", said, "mount it on this machine as well")
    return replace(result, finding=finding)
