"""
Kill every action before each of its writes; then it is completed, and nothing is left over.

All points take about two minutes for each action and place on a quiet machine:

    python -m pytest -m slow --timeout=3600 tests/crash/test_crash_points.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.schedules.scheduler import LockedScheduler
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.pools import publishing
from snapferry.workers.copying.copy_run import CopyRun
from snapferry.workers.outcome import BatchOutcome
from tests.servers import S3Server

from .actions import ACTIONS
from .kill import MOST_POINTS, kill_at, undisturbed
from .world import World

ROWS = {row.name: row for row in ACTIONS}


@pytest.fixture
def world(memory: Path, redis_url: str) -> World:
    return World(memory / "world", redis_url)


@pytest.fixture
def at(world: World, request: pytest.FixtureRequest) -> World:
    """The world with its destination at the place of the test's parameter."""
    if request.param == "s3":
        s3: S3Server = request.getfixturevalue("rclone_memory_s3")
        world.server, world.bucket = s3, s3.make_bucket()
    return world


@pytest.mark.slow
@pytest.mark.parametrize("messages", ["redelivered", "lost"])
@pytest.mark.parametrize("at", ["directory", "s3"], indirect=True)
@pytest.mark.parametrize("name", ROWS)
def test_an_action_survives_a_death_before_each_of_its_writes(at: World, name: str, messages: str) -> None:
    row = ROWS[name]
    if messages == "lost" and not row.survives_loss:
        messages = "redelivered"

    problems = kill_at(at, row, range(MOST_POINTS), redelivered=messages == "redelivered")

    assert problems == [], "\n".join(problems)


def test_a_copy_survives_a_death_at_some_of_its_writes(world: World) -> None:
    """One point of each kind: see the slow test for all."""
    row = ROWS["copy"]
    for only in ("rename .tmp-", "LPUSH snapferry.plan", "account", "advance"):
        assert kill_at(world, row, [1], only=only, redelivered=True) == []
        assert only in world.note.read_text()


@pytest.mark.parametrize("redelivered", [True, False], ids=["redelivered", "lost"])
def test_a_copy_survives_a_death_whenever_its_plan_grows(world: World, *, redelivered: bool) -> None:
    """The first two calls move the job to planning and to copying, and the others record a plan that grows."""
    row = ROWS["growing"]
    for only in ("redis advance", "redis set_fields"):
        assert kill_at(world, row, range(1, 5), only=only, redelivered=redelivered) == []
        assert only in world.note.read_text()


def test_a_run_that_is_due_is_not_lost_and_not_run_twice(world: World) -> None:
    """The scheduler, and the orchestrator that queues the job, die before and after each queues its message."""
    row = ROWS["schedule"]
    only = "LPUSH snapferry.plan"

    assert kill_at(world, row, range(4), only=only, redelivered=True) == []


def test_points_are_found_in_every_place(world: World) -> None:
    undisturbed(world, ROWS["mirror"])

    labels = world.labels.read_text().splitlines()
    for kind in ("mkdir", "create", "write", "rename", "remove", "redis account", "redis advance"):
        assert [label for label in labels if label.startswith(kind)], kind
    # The deletion of the mirror is the last change of the store, before the job ends.
    removed = max(
        number for number, label in enumerate(labels) if label.startswith("remove") and ".plan" not in label
    )
    assert removed < max(number for number, label in enumerate(labels) if label == "redis advance")


# What follows breaks a guarantee, and makes sure that the deaths show it.


def test_a_lost_run_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery and RedBeat record a run before they queue its message."""
    monkeypatch.delattr(LockedScheduler, "apply_async")

    (problem,) = kill_at(world, ROWS["schedule"], [0], only="LPUSH snapferry.plan", redelivered=True)

    assert problem.startswith("schedule, point 0, before: redis LPUSH")


def test_a_manifest_without_objects_is_found(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker accounts for objects before it copies them, and the commit trusts the ledger."""
    copy = CopyRun.copy

    def trusting(run: CopyRun) -> Any:
        run.ledger.account(run.batch, BatchOutcome(copied=len(run.batch.sizes)), attempts=1, worker="")
        return copy(run)

    monkeypatch.setattr(CopyRun, "copy", trusting)
    monkeypatch.setattr(publishing, "_absent", lambda *_: AddressSet())

    (problem,) = kill_at(world, ROWS["mirror"], [0], only="rename .tmp-", redelivered=True)

    assert "is not in this store" in problem
