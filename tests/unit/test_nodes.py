"""The nodes of a fleet: who is a worker, who is there, and what a job lacks."""

from __future__ import annotations

from typing import Any

import pytest

from snapferry.orchestrator.reporting.nodes import FORGET_S, Node, Presence, lacking, nodes
from snapferry.workers.ledger import State
from snapferry.workers.reachability.worker_roster import RegisteredWorker
from tests.unit.test_progress import running

COPY = ("snapferry.copy",)


def test_workers_are_told_from_orchestrators_by_what_they_announce() -> None:
    found = nodes(
        [RegisteredWorker("odd-name@a", COPY, 2.0), RegisteredWorker("quiet@b", COPY, 60.0)],
        {
            "odd-name@a": (Presence.ONLINE, 1.0),
            "orchestrator@a": (Presence.ONLINE, 1.0),
            "planner@c": (Presence.SILENT, 30.0),
            "worker@old": (Presence.LEFT, 3.0),
        },
        {"busy@d"},
    )

    assert [(node.name, node.role, node.presence) for node in found] == [
        ("busy@d", "worker", Presence.UNKNOWN),
        ("odd-name@a", "worker", Presence.ONLINE),
        ("orchestrator@a", "orchestrator", Presence.ONLINE),
        ("planner@c", "orchestrator", Presence.SILENT),
        ("quiet@b", "worker", Presence.SILENT),
        ("worker@old", "worker", Presence.LEFT),
    ]


def test_a_worker_that_announces_itself_is_online_without_a_heartbeat_and_is_forgotten_in_the_end() -> None:
    (new,) = nodes([RegisteredWorker("w@a", COPY, 5.0)], {})
    gone = nodes([RegisteredWorker("w@a", COPY, FORGET_S + 1)], {})
    # It may be cut off from Redis and run all the same.
    (busy,) = nodes([RegisteredWorker("w@a", COPY, FORGET_S + 1)], {}, {"w@a"})

    assert (new.online, gone, busy.presence) == (True, [], Presence.SILENT)


WORKER = Node("w@a", "worker", Presence.ONLINE, 1.0, COPY)
ORCHESTRATOR = Node("o@a", "orchestrator", Presence.ONLINE, 1.0)
GONE = Node("w@b", "worker", Presence.SILENT, 90.0, COPY)


@pytest.mark.parametrize(
    ("changed", "fleet", "lacks"),
    [
        ({"workers": ()}, [ORCHESTRATOR], "worker"),
        ({"workers": ()}, [ORCHESTRATOR, GONE], "worker"),
        ({"workers": ()}, [ORCHESTRATOR, WORKER], None),
        ({"workers": (), "queue": "tape"}, [ORCHESTRATOR, WORKER], "worker"),
        # A worker of an earlier version does not announce itself.
        ({"workers": ("w@c",)}, [ORCHESTRATOR], None),
        ({"state": State.QUEUED}, [WORKER], "orchestrator"),
        ({"state": State.COMMITTING}, [WORKER], "orchestrator"),
        ({"state": State.QUEUED}, [ORCHESTRATOR], None),
        # All batches that were queued are done.
        ({"batches_done": 3, "workers": ()}, [WORKER], "orchestrator"),
        ({"batches_done": 3, "workers": ()}, [ORCHESTRATOR], None),
        ({"state": State.FAILED}, [], None),
        ({"cancelling": True, "workers": ()}, [], None),
    ],
)
def test_what_a_job_lacks(changed: dict[str, Any], fleet: list[Node], lacks: str | None) -> None:
    assert lacking(running(**changed), fleet, heartbeats=True) == lacks


def test_an_orchestrator_is_not_missed_before_heartbeats_are_received() -> None:
    assert lacking(running(state=State.QUEUED), [], heartbeats=False) is None
