"""Entries that another program wrote into the schedule in Redis run nothing and stop nothing."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from redbeat.schedulers import ensure_conf

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.schedules.schedule import schedule_jobs
from snapferry.orchestrator.schedules.scheduler import LockedScheduler, wait_for_the_lock
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import Settings

MIRROR = """
[[mirror]]
name = "nightly"
from = "file:///a"
to = "file:///b"
every = "1h"
"""

META = '{"last_run_at": %s, "total_run_count": 1}'
DAMAGED = (
    "junk",
    "[" * 100_000,
    "[]",
    "5",
    META % '"junk"',
    META % "1e400",
    META % '{"__type__": "datetime", "year": 99999}',
    META % '{"__type__": "crontab", "minute": "x"}',
    META % '{"__type__": "datetime", "year": 2020, "month": 1, "day": 1, "timezone": "No/Where"}',
    b"\xff\xfe",
)


@pytest.fixture
def scheduler(redis_url: str, tmp_path: Path) -> Any:
    """A scheduler of the mirror `nightly` that holds the lock, and notes what it sends in `sent`."""
    file = tmp_path / "snapferry.toml"
    file.write_text(MIRROR)
    file.chmod(0o600)
    settings = Settings.from_environment({"SNAPFERRY_BROKER_URL": redis_url})
    app = make_fleet_app(settings)
    schedule_jobs(app, settings, read_config(str(file)))
    ensure_conf(app)
    found: Any = LockedScheduler(app)
    sent: list[tuple[str, Any]] = []
    found.apply_async = _apply(found, sent)
    found.sent = sent
    wait_for_the_lock(SimpleNamespace(scheduler=found))
    yield found
    app.close()


def _apply(scheduler: Any, sent: list[tuple[str, Any]]) -> Any:
    def apply_async(entry: Any, **_: Any) -> None:
        sent.append((entry.task, entry.args))
        scheduler.reserve(entry)

    return apply_async


@pytest.mark.parametrize("text", DAMAGED)
def test_a_mirror_whose_last_run_is_damaged_runs_now(
    text: str | bytes, scheduler: Any, redis_url: str
) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.hset("snapferry:beat:nightly", "meta", text)
        client.zadd("snapferry:beat::schedule", {"snapferry:beat:nightly": 0})
        scheduler.tick()
        assert [task for task, _ in scheduler.sent] == ["snapferry.run_mirror"]
        scheduler.tick()
        assert len(scheduler.sent) == 1


@pytest.mark.parametrize("text", DAMAGED)
def test_a_definition_in_redis_changes_nothing(text: str | bytes, scheduler: Any, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        before = json.loads(client.hget("snapferry:beat:nightly", "definition") or "")
        client.hset("snapferry:beat:nightly", "definition", text)
        client.zadd("snapferry:beat::schedule", {"snapferry:beat:nightly": 0})
        client.hdel("snapferry:beat:nightly", "meta")
        scheduler.tick()
        assert [(task, list(args)) for task, args in scheduler.sent] == [(before["task"], before["args"])]


def test_entries_of_others_are_removed_and_never_run(scheduler: Any, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        definition = json.loads(client.hget("snapferry:beat:nightly", "definition") or "")
        for number, text in enumerate(
            (*DAMAGED, json.dumps(definition), json.dumps(definition | {"task": "other"}))
        ):
            client.hset(f"snapferry:beat:evil{number}", "definition", text)
            client.zadd("snapferry:beat::schedule", {f"snapferry:beat:evil{number}": 0})
        client.zadd("snapferry:beat::schedule", {"other": 0, "snapferry:jobs": 0, b"\xff": 0, "nightly": 0})
        scheduler.tick()
        scheduler.tick()
        assert scheduler.sent == []
        assert b"snapferry:beat:nightly" in client.zrange("snapferry:beat::schedule", 0, -1)
        assert b"snapferry:beat:evil1" not in client.zrange("snapferry:beat::schedule", 0, -1)
