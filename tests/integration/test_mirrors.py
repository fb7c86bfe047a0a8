"""Mirrors on a real fleet: Celery beat with its schedule in Redis, orchestrators, workers."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.schedules.report import mirror_document
from snapferry.orchestrator.schedules.schedule import TAKE_OVER_S
from snapferry.orchestrator.schedules.status import mirror_statuses
from snapferry.stores.address import SnapshotId
from snapferry.stores.names.name import NameRecord, parse_name
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import State
from snapferry.workers.queues import COPY_QUEUE
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import Settings
from tests.queues import waiting
from tests.sample import fill, make_store, random_files

from .processes import PATIENCE_S, Fleet, Started, finished, program, started, until

SOONER = "import snapferry.workers.settings.schedule_tables as tables\ntables.SHORTEST_S = 1\n"


@pytest.fixture(autouse=True)
def _short_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snapferry.workers.settings.schedule_tables.SHORTEST_S", 1)


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Fleet:
    return Fleet(redis_url, tmp_path)


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url))


def configure(folder: Path, *mirrors: str) -> Path:
    """Write a configuration with the stores a and b of *folder*, and *mirrors*: their lines but for the stores."""
    path = folder / "snapferry.toml"
    text = f'[stores]\na = "file://{folder}/a"\nb = "file://{folder}/b"\n'
    path.write_text(text + "".join(f'[[mirror]]\nfrom = "a"\nto = "b"\n{one}\n' for one in mirrors))
    return path


@contextmanager
def scheduler(fleet: Fleet, config: Path, name: str = "scheduler") -> Iterator[Started]:
    log = fleet.folder / f"{name}.log"
    env = {"SNAPFERRY_BROKER_URL": fleet.url, "SNAPFERRY_CONFIG": str(config)}
    with started(*program(SOONER), "scheduler", env=env, log=log) as running:
        until(
            lambda: "beat: " in running.logged() or running.process.poll() is not None, "the scheduler is up"
        )
        assert running.process.poll() is None, running.logged()
        yield running
        # Each line is one of JSON.
        assert "beat: Starting..." in running.said()


def standing(fleet: Fleet, config: Path, mirror: int = 0) -> dict[str, Any]:
    """Return where a mirror stands."""
    settings = Settings(broker_url=fleet.url)
    known = read_config(str(config)).mirror[mirror]
    return mirror_document(mirror_statuses(settings, Jobs(settings), [known])[0])


def published(folder: Path) -> list[SnapshotId]:
    return open_store(f"file://{folder}/b").list_manifest_ids() if (folder / "b").exists() else []


def test_a_mirror_is_run_again_and_again_and_takes_over_what_is_new_and_what_is_gone(
    fleet: Fleet, tmp_path: Path
) -> None:
    first = make_store(tmp_path / "a", random_files(20))
    newest = parse_name("newest")
    open_store(f"file://{tmp_path}/a").names.write(newest, NameRecord(first))
    config = configure(tmp_path, 'name = "often"\nevery = "3s"\ndelete = true\nnames = true')
    before = standing(fleet, config)
    # Its own configuration lets it delete where this mirror does.
    orchestrators = Fleet(fleet.url, tmp_path, {"SNAPFERRY_CONFIG": str(config)})
    with orchestrators.orchestrator(before=SOONER), fleet.worker(), scheduler(fleet, config):
        until(lambda: published(tmp_path) == [first], "the first run")
        store = open_store(f"file://{tmp_path}/a")
        second = fill(store, random_files(20, seed=2))
        store.names.write(newest, NameRecord(second))
        store.delete_manifest(first)
        until(lambda: published(tmp_path) == [second], "a later run")
        after = until(
            lambda: (one := standing(fleet, config))["last_status"]["state"] == "done" and one, "it is done"
        )
        env = {"SNAPFERRY_BROKER_URL": fleet.url, "SNAPFERRY_CONFIG": str(config)}
        table, document, named = (
            finished([*program(SOONER), *command], env)
            for command in (["mirrors"], ["mirrors", "--json"], ["ls", "b"])
        )

    assert (before["last_job"], before["next"], before["skipped"]) == (None, None, 0)
    assert after["next"] > after["last_started"]
    assert after["last_status"]["job"] == after["last_job"]
    assert re.search(r"often   3s     \d+ s ago +\w+, job ", table.out), table.out
    assert json.loads(document.out)[0]["mirror"] == "often"
    assert (before["last_success"], before["last_success_age_seconds"], before["late_at"]) == (
        None,
        None,
        None,
    )
    assert after["last_success"] >= after["last_status"]["ended"]
    assert after["last_success_age_seconds"] < PATIENCE_S
    assert named.out.split() == [second]
    assert open_store(f"file://{tmp_path}/b").names.read(newest).snapshot_id == second


@pytest.mark.slow
def test_a_mirror_whose_last_job_goes_on_is_skipped_and_that_is_said(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    make_store(tmp_path / "a", random_files(20))
    config = configure(tmp_path, 'name = "often"\nevery = "3s"')
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        fleet.orchestrator() as orchestrator,
        scheduler(fleet, config),
    ):
        until(lambda: waiting(client, COPY_QUEUE), "the first run is handed out")
        found = until(lambda: (one := standing(fleet, config))["skipped"] and one, "it is skipped")
        assert f"mirror often skipped: job {found['last_job']} has not ended" in orchestrator.logged()
        assert len(jobs.list(limit=10)) == 1
        with fleet.worker():
            assert jobs.wait(found["last_job"], timeout_s=PATIENCE_S).state is State.DONE
            until(lambda: len(jobs.list(limit=10)) > 1, "the next run")
            again = until(lambda: (one := standing(fleet, config))["skipped"] == 0 and one, "it is run")

    assert f"job {found['last_job']} has not ended" in found["skipped_why"]
    assert again["skipped_why"] == ""


@pytest.mark.parametrize(
    "where", ["snapferry.workers.broker.connection.check_broker", "celery.beat.Service.start"]
)
def test_a_scheduler_that_is_told_to_stop_while_it_starts_ends_well(
    fleet: Fleet, tmp_path: Path, where: str
) -> None:
    owner, _, name = where.rpartition(".")
    told = f"""
import os, pkgutil, signal
owner = pkgutil.resolve_name({owner!r})
go_on = owner.{name}
def told(*arguments, **more):
    os.kill(os.getpid(), signal.SIGTERM)
    return go_on(*arguments, **more)
owner.{name} = told
"""
    config = configure(tmp_path, 'name = "seldom"\nevery = "1h"')

    ended = finished(
        [*program(told), "scheduler", "--config", str(config)], {"SNAPFERRY_BROKER_URL": fleet.url}, 30
    )

    assert ended.code == 0, ended
    assert "Traceback" not in ended.err


@pytest.mark.slow
def test_of_two_schedulers_one_works_and_the_other_takes_over_with_the_same_schedule(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    make_store(tmp_path / "a", random_files(5))
    config = configure(tmp_path, 'name = "seldom"\nevery = "1h"', 'name = "often"\nevery = "3s"')
    with fleet.orchestrator(), fleet.worker(), scheduler(fleet, config, "one") as one:
        until(lambda: standing(fleet, config, 1)["last_job"], "the first works")
        due = standing(fleet, config)["next"]
        with scheduler(fleet, config, "other"):
            os.kill(one.process.pid, signal.SIGKILL)
            one.process.wait(PATIENCE_S)
            seen = standing(fleet, config, 1)["last_job"]
            until(
                lambda: standing(fleet, config, 1)["last_job"] != seen,
                "the other works",
                timeout_s=TAKE_OVER_S + 60,
            )
            # A scheduler that is new does not begin to count anew.
            moved = datetime.fromisoformat(standing(fleet, config)["next"]) - datetime.fromisoformat(due)
            assert abs(moved.total_seconds()) < 1800, "an hour is counted from the first scheduler's start"
