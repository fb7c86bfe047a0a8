"""The nodes of a fleet: who is a worker, who is there, and what a job lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs.known_nodes import announced
from snapferry.orchestrator.reporting.nodes import FORGET_S, Announced, Fleet, Node, Presence, lacking, nodes
from snapferry.workers.broker.transport import MAILBOXES
from snapferry.workers.ledger import State
from snapferry.workers.lifecycle.orchestrator_roster import SILENT_S, OrchestratorRoster
from snapferry.workers.reachability.worker_roster import RegisteredWorker
from tests.unit.test_progress import running

COPY = ("snapferry.copy",)


def test_workers_are_told_from_orchestrators_by_what_they_announce() -> None:
    found = nodes(
        Announced(
            [RegisteredWorker("odd-name@a", COPY, 2.0), RegisteredWorker("quiet@b", COPY, 60.0)],
            {"orchestrator@a": 90.0, "announced@e": 3.0, "dead@f": 90.0, "forgotten@g": FORGET_S + 1},
        ),
        {
            "odd-name@a": (Presence.ONLINE, 1.0),
            "orchestrator@a": (Presence.ONLINE, 1.0),
            "planner@c": (Presence.SILENT, 30.0),
            "worker@old": (Presence.LEFT, 3.0),
        },
        {"busy@d"},
    )

    assert [(node.name, node.role, node.presence) for node in found] == [
        ("announced@e", "orchestrator", Presence.ONLINE),
        ("busy@d", "worker", Presence.UNKNOWN),
        ("dead@f", "orchestrator", Presence.SILENT),
        ("odd-name@a", "worker", Presence.ONLINE),
        ("orchestrator@a", "orchestrator", Presence.ONLINE),
        ("planner@c", "orchestrator", Presence.SILENT),
        ("quiet@b", "worker", Presence.SILENT),
        ("worker@old", "worker", Presence.LEFT),
    ]


def test_a_worker_that_announces_itself_is_online_without_a_heartbeat_and_is_forgotten_in_the_end() -> None:
    (new,) = nodes(Announced([RegisteredWorker("w@a", COPY, 5.0)]), {})
    gone = nodes(Announced([RegisteredWorker("w@a", COPY, FORGET_S + 1)]), {})
    # It may be cut off from Redis and run all the same.
    (busy,) = nodes(Announced([RegisteredWorker("w@a", COPY, FORGET_S + 1)]), {}, {"w@a"})

    assert (new.online, gone, busy.presence) == (True, [], Presence.SILENT)


def test_a_worker_plans_while_it_announces_itself_as_an_orchestrator_too() -> None:
    workers = [RegisteredWorker(name, COPY, 2.0) for name in ("both@a", "was-both@b", "worker@c")]
    found = nodes(Announced(workers, {"both@a": 3.0, "was-both@b": SILENT_S + 1}, complete=True), {})

    assert [(node.name, node.role, node.plans) for node in found] == [
        ("both@a", "worker", True),
        ("was-both@b", "worker", False),
        ("worker@c", "worker", False),
    ]
    assert [node.name for node in Fleet(found).online("orchestrator")] == ["both@a"]


WORKER = Node("w@a", "worker", Presence.ONLINE, 1.0, COPY)
ORCHESTRATOR = Node("o@a", "orchestrator", Presence.ONLINE, 1.0)
BOTH = Node("wo@a", "worker", Presence.ONLINE, 1.0, COPY, plans=True)
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
        # A worker that is an orchestrator as well.
        ({"state": State.QUEUED}, [BOTH], None),
        ({"batches_done": 3}, [BOTH], None),
        ({"state": State.QUEUED}, [replace(BOTH, presence=Presence.SILENT)], "orchestrator"),
        ({"workers": ()}, [BOTH], None),
        ({"state": State.FAILED}, [], None),
        ({"cancelling": True, "workers": ()}, [], None),
    ],
)
def test_what_a_job_lacks(changed: dict[str, Any], fleet: list[Node], lacks: str | None) -> None:
    assert lacking(running(**changed), Fleet(fleet, complete=True)) == lacks


def test_an_orchestrator_is_not_missed_while_one_of_an_earlier_version_may_run() -> None:
    assert lacking(running(state=State.QUEUED), Fleet([], complete=False)) is None
    assert not Fleet([], complete=False).headless
    assert Fleet([WORKER, Node("o@a", "orchestrator", Presence.SILENT, 60.0)], complete=True).headless
    assert not Fleet([ORCHESTRATOR], complete=True).headless


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def test_an_orchestrator_is_on_the_roster_until_it_leaves_or_falls_silent(client: redis.Redis) -> None:
    roster = OrchestratorRoster(client)
    before = roster.running()

    roster.announce("orchestrator@a")
    roster.announce("orchestrator@b")
    both = roster.running()
    roster.leave("orchestrator@a")
    roster.leave("orchestrator@never-there")
    left = roster.announced()

    assert (before, both, roster.running()) == (0, 2, 1)
    assert left.keys() == {"orchestrator@a", "orchestrator@b"}
    assert left["orchestrator@a"] > SILENT_S >= left["orchestrator@b"]
    assert 0 < client.ttl("snapferry:orchestrators") <= 7 * 86400


def test_a_hostile_roster_of_orchestrators_is_read_safely(client: redis.Redis) -> None:
    client.zadd(
        "snapferry:orchestrators", {f"o{number}@\x1b[31m" + "x" * 400: 9e15 for number in range(1200)}
    )

    found = OrchestratorRoster(client).announced()

    assert len(found) <= 1000
    assert all(name.isprintable() and len(name) <= 2000 for name in found)
    assert set(found.values()) == {0.0}


def test_that_no_orchestrator_runs_is_certain_unless_one_of_an_earlier_version_may_run(
    client: redis.Redis,
) -> None:
    fresh = announced(client)
    client.sadd(MAILBOXES, "x\x16\x16worker@a.snapferry.pidbox")
    with_worker = announced(client)
    client.sadd(MAILBOXES, "x\x16\x16orchestrator@a.snapferry.pidbox")
    with_old_orchestrator = announced(client)
    OrchestratorRoster(client).announce("orchestrator@b")
    with_new_one = announced(client)

    assert [one.complete for one in (fresh, with_worker, with_old_orchestrator, with_new_one)] == [
        True, True, False, True,
    ]  # fmt: skip
