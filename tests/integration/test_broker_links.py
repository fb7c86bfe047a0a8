"""Passwords that change while a fleet runs, and links whose other side is gone without a word."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings, parse_broker_url
from tests.sample import make_store, random_files, tree

from .own_redis import OwnRedis, own_redis
from .processes import PATIENCE_S, Fleet, snapferry, until
from .test_broker import SLOW, SilentProxy, commands

SOONER = """
import snapferry.workers.broker.connecting.pool as c
c.ANSWER_TIMEOUT_S = 3.0
c.HEALTH_S = 1
"""


def submitted(url: str, tmp_path: Path) -> tuple[Jobs, str, Any]:
    jobs = Jobs(Settings(broker_url=parse_broker_url(url), batch_objects=5))
    snapshot = make_store(tmp_path / "a", random_files(300))
    job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
    return jobs, job_id, snapshot


def whole(tmp_path: Path) -> bool:
    found = {path: data for path, data in tree(tmp_path / "b").items() if ".tmp-" not in path}
    return found == tree(tmp_path / "a")


def port_of(server: OwnRedis) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


def write_secret(path: Path, password: str) -> None:
    """Replace the file as a secret manager does: in one step."""
    new = path.with_suffix(".new")
    new.touch(0o600)
    new.write_text(json.dumps({"username": "snapferry", "password": password}))
    os.replace(new, path)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["file", "command"])
@pytest.mark.parametrize("first", ["redis", "secret"])
def test_a_password_changes_in_the_middle_of_a_job(tmp_path: Path, source: str, first: str) -> None:
    """Redis and the secret change one after the other, in either order, and Redis closes all connections."""
    secret = tmp_path / "secret"
    parameter = f"credentials_file={secret}"
    if source == "command":
        parameter = f"credentials_command={quote(f'cat {secret}', safe='')}"
    write_secret(secret, "hunter2-old")
    with own_redis(tmp_path / "redis", "--port", "{port}") as server, ExitStack() as stack:
        admin = stack.enter_context(redis.Redis.from_url(server.url, decode_responses=True))
        rights = commands().replace("PASSWORD", "hunter2-old").split()
        admin.execute_command("ACL SETUSER", "snapferry", *rights)
        url = f"redis://127.0.0.1:{port_of(server)}/0?{parameter}"
        fleet = Fleet(url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "5"})
        roles = [stack.enter_context(fleet.orchestrator()), stack.enter_context(fleet.worker(before=SLOW))]
        jobs, job_id, _ = submitted(url, tmp_path)
        until(lambda: jobs.status(job_id).batches_done >= 5, "some of it is done")

        def change_redis() -> None:
            admin.execute_command("ACL SETUSER", "snapferry", "resetpass", ">hunter2-new")
            admin.execute_command("CLIENT KILL", "USER", "snapferry")

        steps = [change_redis, lambda: write_secret(secret, "hunter2-new")]
        for step in steps if first == "redis" else reversed(steps):
            done = len(refusals(admin))
            step()
            if first == "redis" and step is change_redis:
                until(partial(refused_since, admin, done), "the old password is refused")
        end = jobs.wait(job_id, timeout_s=PATIENCE_S)
        status = snapferry("status", job_id, env={"SNAPFERRY_BROKER_URL": url})
        logs = "".join(role.logged() for role in roles) + status.out + status.err
        users = {one["user"] for one in admin.client_list() if one["user"] != "default"}

    assert (end.state, end.failed, status.code) == (State.DONE, 0, 0)
    assert users == {"snapferry"}
    assert whole(tmp_path)
    assert "hunter2" not in logs


def refused_since(admin: redis.Redis, count: int) -> bool:
    return len(refusals(admin)) > count


def has_done(jobs: Jobs, job_id: str, batches: int) -> bool:
    return jobs.status(job_id).batches_done >= batches


def refusals(admin: redis.Redis) -> list[Any]:
    return [one for one in admin.acl_log() if one["reason"] == "auth"]


@pytest.mark.slow
def test_a_fleet_whose_links_all_go_silent_goes_on_by_new_ones(tmp_path: Path) -> None:
    """Publishing, taking, acknowledging, counting results, the ledger: no packet says that the other side is gone."""
    with own_redis(tmp_path / "redis", "--port", "{port}") as server, ExitStack() as stack:
        proxy = stack.enter_context(closing(SilentProxy(port_of(server))))
        fleet = Fleet(f"redis://127.0.0.1:{proxy.port}/0", tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "5"})
        stack.enter_context(fleet.orchestrator(before=SOONER))
        stack.enter_context(fleet.worker(before=SOONER + SLOW))
        jobs, job_id, snapshot = submitted(server.url, tmp_path)
        for share in (5, 20, 35):
            until(partial(has_done, jobs, job_id, share), "some of it is done")
            proxy.silence()
        end = jobs.wait(job_id, timeout_s=PATIENCE_S)

        # An idle worker waits for nothing but a message.
        proxy.silence()
        again = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "c")), [snapshot]))
        second = jobs.wait(again, timeout_s=PATIENCE_S)

    assert (end.state, end.failed) == (State.DONE, 0)
    assert (second.state, second.failed) == (State.DONE, 0)
    assert whole(tmp_path)
