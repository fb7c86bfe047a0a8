"""A short run of random faults with a fixed seed, and each clause of the oracle broken on purpose."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.ledger import State
from snapferry.workers.ledger.keys import job_key
from snapferry.workers.queues import COPY_QUEUE
from tests.chaos.jobs import request_of
from tests.chaos.oracle import CLAUSES, found_by
from tests.chaos.oracle.progress import Progress
from tests.chaos.oracle.published import manifests, object_path
from tests.chaos.rounds import kept_running, mend, run_round
from tests.chaos.schedule import PlannedJob, rounds
from tests.chaos.world import Role, World, world
from tests.integration.processes import PATIENCE_S, started, until

SEED = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, module_environment: None) -> Iterator[World]:
    roles = [
        Role("orchestrator", "o1", "host1"),
        Role("worker", "w1", "host1"),
        Role("worker", "w2", "host2"),
    ]
    with world(tmp_path_factory.mktemp("chaos"), 1, snapshots=2, large_bytes=50_000, roles=roles) as made:
        made.slack_s = PATIENCE_S
        yield made


@pytest.fixture(scope="module")
def module_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        yield


# In the second round jobs may fail.
@pytest.mark.parametrize("number", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_nothing_is_violated_by_random_faults(made: World, number: int) -> None:
    watched = Jobs(made.settings, check=False)
    with kept_running(made):
        planned = next(islice(rounds(SEED, short=True), number, None))
        result = run_round(made, planned, watched)

    assert made.violations == []
    assert any(done.possible for done in result.done)
    assert sum(result.jobs.values()) >= planned.at_once


@pytest.fixture(scope="module")
def ended(made: World) -> World:
    """A world in which a copy and a pull are done, and every role has ended."""
    made.begin_round(2)
    for action in ("copy", "pull"):
        spec = request_of(made, PlannedJob(action, None, 1))
        made.submitted.append(made.jobs.submit(spec))
    for job in made.submitted:
        assert made.jobs.wait(job, timeout_s=240).state is State.DONE
    mend(made)
    for role in made.roles:
        role.stack.close()
    assert made.violations == []
    return made


def _redis(made: World) -> redis.Redis:
    return made.redis.client()


def _published(made: World) -> Path:
    return next(path for root in made.destinations for path in manifests(root).values())


@contextmanager
def _moved(path: Path) -> Iterator[None]:
    """Take a file away until the end of the block."""
    aside = path.with_name("aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def _key(made: World, *command: object, key: str) -> Iterator[None]:
    """Change a *key* of Redis by a *command* until the end of the block."""
    with _redis(made) as client:
        client.execute_command("COPY", key, "aside") if client.exists(key) else None
        client.execute_command(*command)
        try:
            yield
        finally:
            client.delete(key)
            if client.exists("aside"):
                client.rename("aside", key)


def _field(made: World, field: str, value: object) -> Any:
    key = job_key(made.submitted[0])
    return _key(made, "HSET", key, field, value, key=key)


def _object_missing(made: World) -> Any:
    root = made.destinations[0]
    lines = next(iter(manifests(root).values())).read_text().splitlines()
    files = [line.split() for line in lines if line.startswith("F")]
    return _moved(object_path(root, files[0][2]))


@contextmanager
def _open_job(made: World) -> Iterator[None]:
    job = made.jobs.submit(request_of(made, PlannedJob("copy", None, 2)))
    try:
        yield
    finally:
        with _redis(made) as client:
            client.delete("snapferry.plan", job_key(job), "snapferry:open")


@contextmanager
def _process(made: World) -> Iterator[None]:
    with started(sys.executable, "-c", "import time; time.sleep(600)") as left:
        # Its environment can be read a moment after it was started.
        until(left.family, "the process is found")
        role = made.roles[0]
        role.past.append(left)
        try:
            yield
        finally:
            role.past.remove(left)


@contextmanager
def _upload(made: World) -> Iterator[None]:
    upload = made.server.client.create_multipart_upload(Bucket=made.bucket, Key="left over")
    yield
    made.server.client.abort_multipart_upload(
        Bucket=made.bucket, Key="left over", UploadId=upload["UploadId"]
    )


@contextmanager
def _temporary_file(made: World) -> Iterator[None]:
    left = made.destinations[0] / ".objects" / ".tmp-1f.2-33-abc-0"
    left.parent.mkdir(exist_ok=True)
    left.touch()
    yield
    left.unlink()


@contextmanager
def _backwards(made: World) -> Iterator[None]:
    status = made.jobs.status(made.submitted[0])
    progress = Progress()
    for seen in (status, replace(status, objects_settled=status.objects_settled - 1)):
        made.false_progress += progress.false(seen, 0)
    yield


# Clause -> ways to break it.
BREAKS: dict[str, list[Callable[[World], Any]]] = {
    "manifest last, and verified": [_object_missing],
    "whole in the end": [_object_missing, lambda made: _moved(_published(made)), _temporary_file],
    "every job ends": [
        _open_job,
        lambda made: _key(made, "DEL", job_key(made.submitted[0]), key=job_key(made.submitted[0])),
    ],
    "every end has a cause": [
        lambda made: _field(made, "state", "failed"),
        lambda made: _field(made, "state", "cancelled"),
    ],
    "objects of the plan = copied + present + failed": [
        lambda made: _field(made, "copied", 1),
        lambda made: _field(made, "present", 100_000),
    ],
    "receipt = ledger": [
        lambda made: _key(
            made,
            "HSET",
            job_key(made.submitted[0], "classes"),
            "Lost",
            1,
            key=job_key(made.submitted[0], "classes"),
        ),
        lambda made: _field(made, "published", 7),
    ],
    "ledger = stores": [
        lambda made: _moved(_published(made)),
        lambda made: _moved(next(path for path in made.pulled.rglob("file-*") if path.is_file())),
    ],
    "sources are as before": [
        lambda made: _moved(next(path for path in made.sources[0].rglob("?" * 55))),
        lambda made: _moved(next(path for path in made.tree.rglob("file-*"))),
    ],
    "progress is true": [_backwards],
    "no process is left over": [_process],
    "no temporary file is left over": [_temporary_file],
    "no upload is left over": [_upload],
    "no lease is left over": [
        lambda made: _key(made, "HSET", job_key("lost", "leases"), "plan:0", 1, key=job_key("lost", "leases"))
    ],
    "no message is left over": [
        lambda made: _key(made, "LPUSH", COPY_QUEUE, "{}", key=COPY_QUEUE),
        lambda made: _key(made, "ZADD", "snapferry.unacked_index", 1, "tag", key="snapferry.unacked_index"),
    ],
}


@pytest.mark.parametrize("name", CLAUSES)
def test_each_clause_of_the_oracle_reports_what_was_broken_on_purpose(ended: World, name: str) -> None:
    for number, broken in enumerate(BREAKS[name]):
        assert found_by(CLAUSES[name], ended) == []
        with broken(ended):
            assert found_by(CLAUSES[name], ended, within_s=0) != [], (name, number)
