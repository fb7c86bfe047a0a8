"""The operators in a real Airflow, against a real fleet: `make test-examples` installs Airflow and runs this."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from snapferry import Client, Job
from snapferry.orchestrator.client import State
from snapferry.stores.address import Address, object_key
from snapferry.stores.hashing import digest
from tests.json_documents import check
from tests.sample import make_store, random_files, tree
from tests.servers import redis_server

from .airflows import Airflow, Run, airflow
from .processes import PATIENCE_S, REPOSITORY, Fleet, finished, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FILES = random_files(20)

# The variants of a task that the tests need. A run's conf names the stores.
DAGS = """
from datetime import timedelta
from airflow.sdk import dag
from snapferry.airflow import SnapferryHealOperator, SnapferryPullOperator, SnapferryPushOperator, SnapferrySyncOperator

SOON = {"retry_delay": timedelta(seconds=1), "poll_interval": timedelta(seconds=1), "conn_id": "fleet"}
STORES = {"source": "{{ dag_run.conf['source'] }}", "destination": "{{ dag_run.conf['destination'] }}"}
QUICK = {"patience": 1}

@dag(schedule=None)
def variants():
    SnapferrySyncOperator(task_id="deferred", **STORES, options=QUICK, retries=2, **SOON)

@dag(schedule=None)
def waiting():
    SnapferrySyncOperator(task_id="waiting", **STORES, options=QUICK, deferrable=False, retries=2, **SOON)

@dag(schedule=None)
def impatient():
    SnapferrySyncOperator(
        task_id="kept", **STORES, retries=5, execution_timeout=timedelta(seconds=5), cancel_on_kill=False, **SOON
    )

@dag(schedule=None)
def trees():
    conf = "{{ dag_run.conf['folder'] }}"
    push = SnapferryPushOperator(task_id="push", path=f"{conf}/tree", destination=f"{conf}/pushed", **SOON)
    heal = SnapferryHealOperator(task_id="heal", store=f"{conf}/pushed", sources=[f"{conf}/live"], **SOON)
    pull = SnapferryPullOperator(
        task_id="pull", source=f"{conf}/pushed", snapshot="latest", path=f"{conf}/restored", **SOON
    )
    push >> heal >> pull

variants(), waiting(), impatient(), trees()
"""


CONNECTIONS = """
from airflow.sdk import Connection
from snapferry.airflow import broker_url
for connection in (
    Connection(conn_id="a", conn_type="redis", host="queue", password="p@s/s", schema="2"),
    Connection(conn_id="b", conn_type="rediss", host="queue", port=6380, login="me", password="s"),
    Connection(conn_id="c", conn_type="redis", host="queue", extra='{"ssl": true, "db": 3}'),
    Connection(conn_id="d", conn_type="generic", extra='{"broker": "sentinel://a,b/0?master_name=main"}'),
):
    print(broker_url(connection))
"""


@dataclass
class World:
    """A fleet whose processes the tests start, and an Airflow."""

    folder: Path
    fleet: Fleet
    airflow: Airflow
    client: Client

    def start(self, dag: str, name: str) -> tuple[Run, Path, Path]:
        """Start a run of *dag* that copies a new store; return it and the stores."""
        source, destination = self.folder / name / "a", self.folder / name / "b"
        make_store(source, FILES)
        return self.airflow.start(dag, source=str(source), destination=str(destination)), source, destination

    def job(self, run: Run, task: str) -> Job:
        """Return the job of a task, once it is submitted."""
        job_id = until(lambda: run.xcom(task, "job_id"), "the job is submitted")
        return self.client.job(job_id)

    def jobs_to(self, destination: Path) -> list[Job]:
        """Return the jobs with this destination, the newest first."""
        return [job for job in self.client.jobs() if job.status().destination == f"file://{destination}"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("airflow")
    dags = folder / "dags"
    dags.mkdir()
    (dags / "variants.py").write_text(DAGS)
    shutil.copy(REPOSITORY / "docs/examples/airflow/nightly_copy.py", dags)
    config = folder / "snapferry.toml"
    config.write_text(f'[stores]\nlive = "file://{folder}/live"\nbackup = "file://{folder}/backup"\n')
    with redis_server() as url:
        env = {
            "SNAPFERRY_CONFIG": str(config),
            "SNAPFERRY_BROKER_URL": url,
            "AIRFLOW_CONN_FLEET": url,
        }
        with airflow(folder, dags, env) as found, Client(url) as client:
            yield World(folder, Fleet(url, folder), found, client)


def test_the_example_copies_verifies_and_reports(world: World) -> None:
    make_store(world.folder / "live", FILES)
    with world.fleet.orchestrator(), world.fleet.worker():
        run = world.airflow.start("nightly_copy")
        run.until("report", "success")

    copied, verified = run.xcom("copy"), run.xcom("verify")
    check("job", copied)
    check("job", verified)
    # The run that the schedule starts at once may be before this one.
    assert copied["state"] == "done"
    assert copied["objects"]["copied"] + copied["objects"]["present"] == len(FILES)
    assert run.xcom("report") == f"{copied['objects']['copied']} objects copied, {len(FILES)} intact"
    assert tree(world.folder / "live") == tree(world.folder / "backup")
    log = run.log("copy")
    assert f"job {copied['job']} submitted" in log
    assert "done: " in log


def test_a_task_that_waits_in_the_triggerer_shows_progress_and_its_job(world: World) -> None:
    run, source, destination = world.start("variants", "progress")
    run.until("deferred", "deferred")
    job = world.job(run, "deferred")
    assert job.status().state is State.QUEUED
    with world.fleet.orchestrator(), world.fleet.worker():
        run.until("deferred", "success")
    assert run.xcom("deferred")["job"] == job.id
    assert tree(source) == tree(destination)
    assert "queued" in run.log("deferred")


@pytest.mark.parametrize(("dag", "task"), [("variants", "deferred"), ("waiting", "waiting")])
def test_an_attempt_after_a_failed_job_resumes_it(world: World, dag: str, task: str) -> None:
    run, source, destination = world.start(dag, f"failed-{task}")
    lost = source / object_key(Address(digest(FILES["./dir 1/file-00001"])))
    kept = lost.read_bytes()
    lost.unlink()
    with world.fleet.orchestrator(), world.fleet.worker():
        job = world.job(run, task)
        failed = job.wait(timeout_s=PATIENCE_S)
        lost.write_bytes(kept)
        run.until(task, "success")
    jobs = world.jobs_to(destination)
    assert failed.state is State.FAILED
    # Each attempt that came before the repair resumed the one before.
    assert [found.status().continues for found in jobs] == [*(found.id for found in jobs[1:]), ""]
    assert run.xcom(task)["job"] == jobs[0].id
    assert jobs[-1].id == job.id
    assert tree(source) == tree(destination)


@pytest.mark.parametrize(("dag", "task"), [("variants", "deferred"), ("waiting", "waiting")])
def test_a_job_that_somebody_cancels_fails_the_task_without_a_retry(
    world: World, dag: str, task: str
) -> None:
    run, _, destination = world.start(dag, f"cancelled-{task}")
    world.job(run, task).cancel()
    with world.fleet.orchestrator():
        found = run.until(task, "failed")
    assert found["try_number"] == 1
    assert len(world.jobs_to(destination)) == 1
    assert "was cancelled" in run.log(task)


@pytest.mark.parametrize(
    ("dag", "task", "state"), [("variants", "deferred", "deferred"), ("waiting", "waiting", "running")]
)
def test_a_task_that_is_marked_as_failed_cancels_its_job_and_one_that_is_cleared_is_a_new_job(
    world: World, dag: str, task: str, state: str
) -> None:
    run, source, destination = world.start(dag, f"killed-{task}")
    job = world.job(run, task)
    run.until(task, state)
    # Airflow tells a trigger nothing before it runs.
    until(lambda: "queued" in run.log(task), "the job is followed")
    run.mark(task, "failed")
    until(lambda: job.status().cancelling, "the job is being cancelled")
    with world.fleet.orchestrator(), world.fleet.worker():
        assert job.wait(timeout_s=PATIENCE_S).state is State.CANCELLED
        run.clear(task)
        run.until(task, "success")
    new, old = world.jobs_to(destination)
    assert (old.id, new.status().continues) == (job.id, "")
    assert run.xcom(task)["job"] == new.id
    assert tree(source) == tree(destination)


def test_attempts_that_time_out_take_up_the_same_job(world: World) -> None:
    run, source, destination = world.start("impatient", "impatient")
    job = world.job(run, "kept")
    until(lambda: run.task("kept")["try_number"] > 1, "a second attempt")
    with ExitStack() as stack:
        stack.enter_context(world.fleet.orchestrator())
        stack.enter_context(world.fleet.worker())
        run.until("kept", "success")
    assert [found.id for found in world.jobs_to(destination)] == [job.id]
    assert f"job {job.id} taken up" in run.log("kept")
    assert tree(source) == tree(destination)


def test_a_connection_names_the_broker(world: World) -> None:
    python = world.airflow.program.with_name("python")
    printed = finished([str(python), "-c", CONNECTIONS], {"AIRFLOW_HOME": str(world.folder / "home")})
    assert printed.out.split() == [
        "redis://:p%40s%2Fs@queue:6379/2",
        "rediss://me:s@queue:6380/0",
        "rediss://queue:6379/3",
        "sentinel://a,b/0?master_name=main",
    ], printed.err


def test_push_heal_and_pull(world: World) -> None:
    folder = world.folder / "trees"
    for path, data in FILES.items():
        (folder / "tree" / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tree" / path).write_bytes(data)
    make_store(folder / "live", FILES)
    allowed = {
        "SNAPFERRY_ACCESS_READ": f"file://{folder} tree://{folder}/tree",
        "SNAPFERRY_ACCESS_WRITE": f"file://{folder} tree://{folder}/restored",
    }
    fleet = Fleet(world.fleet.url, world.folder, allowed)
    with fleet.orchestrator(), fleet.worker():
        run = world.airflow.start("trees", folder=str(folder))
        run.until("pull", "success")
    assert tree(folder / "tree") == tree(folder / "restored")
