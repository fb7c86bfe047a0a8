"""A fleet whose work is deadly, hangs, is paused or cancelled: real workers, real signals."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.copying.transfer.sequential import MAX_DEATHS, SEQUENTIAL_AFTER
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.faults.deadly import KNOWS
from tests.sample import make_store, random_files, tree

from .processes import PATIENCE_S, Fleet, until
from .slow_bucket import slow_bucket

# What takes seconds in a fleet takes a moment here.
SOONER = """
import snapferry.workers.copying.batch_report as r
r.HEARTBEAT_S, r.PAUSE_GRACE_S, r.STUCK_S = 0.2, 0.5, 0.5
"""


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url, batch_objects=50))


def without_temporary(root: Path) -> dict[str, bytes]:
    return {path: data for path, data in tree(root).items() if ".tmp-" not in path}


@pytest.mark.slow
def test_of_a_batch_with_a_deadly_object_only_that_one_fails(
    redis_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    files = {f"./{number}": b"file %d" % number for number in range(60)}
    snapshot = make_store(tmp_path / "a", files)
    deadly = digest(files["./17"])
    (tmp_path / "a" / "deadly").write_text(object_key(deadly))
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"})
    stores = store_pair(str(tmp_path / "a"), str(tmp_path / "b"))
    source = stores[0].model_copy(update={"url": f"deadly://{tmp_path / 'a'}"})
    with fleet.orchestrator(before=KNOWS), fleet.worker(before=KNOWS):
        job_id = jobs.submit(JobSpec.of(source, stores[1], [snapshot]))
        status = jobs.wait(job_id, timeout_s=300)

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        (failed,) = Ledger(client, expires_s=3600).failures(job_id)
    assert status.state is State.FAILED
    assert (status.copied, status.failed, status.objects_settled) == (59, 1, 60)
    assert failed.failure.address == deadly
    assert len((tmp_path / "a" / "deaths").read_text().split()) == SEQUENTIAL_AFTER + MAX_DEATHS
    assert len(list((tmp_path / "b" / ".objects").rglob("?" * 55))) == 59
    assert jobs.retry(job_id)


@pytest.mark.parametrize("wish", ["cancel", "pause"])
def test_a_read_that_hangs_holds_up_neither_its_job_nor_others(
    redis_url: str, jobs: Jobs, s3_environment: dict[str, str], tmp_path: Path, wish: str
) -> None:
    """The worker has one process, which hangs, and runs the next job all the same."""
    files = {"./hangs": bytes(range(256)) * 512, **random_files(5)}
    snapshot = make_store(tmp_path / "a", files)
    other = make_store(tmp_path / "c", random_files(5))
    hangs = object_key(digest(files["./hangs"]))
    fleet = Fleet(redis_url, tmp_path, dict(s3_environment))
    with (
        slow_bucket(tmp_path / "a", hangs, pause_s=3600) as bucket,
        fleet.orchestrator(),
        fleet.worker("one", "-c", "1", before=SOONER),
    ):
        source = f"s3://bucket?endpoint_url={bucket.endpoint}"
        job_id = jobs.submit(JobSpec.of(*store_pair(source, str(tmp_path / "b")), [snapshot]))
        until(lambda: bucket.running == 1, "the object is on its way")
        until(lambda: any(run.in_flight for run in jobs.status(job_id).running), "it is in flight")
        if wish == "cancel":
            jobs.cancel(job_id)
            assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.CANCELLED
        else:
            jobs.pause(job_id)
            until(lambda: not jobs.status(job_id).workers, "no worker has the batch")
        next_job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "c"), str(tmp_path / "d")), [other]))
        assert jobs.wait(next_job, timeout_s=PATIENCE_S).state is State.DONE
        if wish == "pause":
            bucket.hurry.set()
            jobs.unpause(job_id)
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
            assert (status.state, status.copied + status.present) == (State.DONE, status.objects_total)
            assert without_temporary(tmp_path / "b") == tree(tmp_path / "a")


def test_a_manifest_that_hangs_holds_up_neither_its_cancel_nor_other_jobs(
    redis_url: str, jobs: Jobs, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    """The orchestrator has one process, and its plan of the first job hangs."""
    snapshot = make_store(tmp_path / "a", random_files(5))
    other = make_store(tmp_path / "c", random_files(5))
    hurried = "from snapferry.orchestrator.driving import control as s, drive as d\nd.RENEW_S, s.STUCK_S = 0.2, 0.5\n"
    (manifest,) = (path for path in (tmp_path / "a" / ".manifests").rglob("?" * 55))
    fleet = Fleet(redis_url, tmp_path, dict(s3_environment))
    with (
        slow_bucket(tmp_path / "a", str(manifest.relative_to(tmp_path / "a")), pause_s=3600) as bucket,
        fleet.orchestrator("-c", "1", before=hurried),
        fleet.worker(),
    ):
        source = f"s3://bucket?endpoint_url={bucket.endpoint}"
        job_id = jobs.submit(JobSpec.of(*store_pair(source, str(tmp_path / "b")), [snapshot]))
        until(lambda: bucket.running == 1, "the manifest is on its way")
        jobs.cancel(job_id)
        assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.CANCELLED
        next_job = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "c"), str(tmp_path / "d")), [other]))
        assert jobs.wait(next_job, timeout_s=PATIENCE_S).state is State.DONE


@pytest.mark.slow
def test_whole_workers_that_die_fail_no_healthy_job(redis_url: str, jobs: Jobs, tmp_path: Path) -> None:
    """Six times in a row the one worker dies in the middle of the only batch, and nothing is counted as a stall."""
    files = {"./only": b"x" * 1000}
    snapshot = make_store(tmp_path / "a", files)
    marks = tmp_path / "marks"
    marks.mkdir()
    dies = f"""
import os, pathlib, signal, snapferry.workers.copying.actions as t
run, marks = t.copy_batch, pathlib.Path({str(marks)!r})
def patched(*arguments, **options):
    for turn in range(7):
        try:
            os.close(os.open(marks / str(turn), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
    return run(*arguments, **options)
t.copy_batch = patched
"""
    # A lease of 30 s is what a dead machine costs; here it is told apart from a stall all the same.
    shorter = "import snapferry.workers.ledger.steps.leases as b\n"
    shorter += "from snapferry.orchestrator.driving import reconcile as r\n"
    shorter += "from snapferry.orchestrator.driving.steps import requeue as l\n"
    shorter += "b.LEASE_S = 3\nl.STALL_S = r.STALL_S = 3.0\nr.ROUND_S, r.QUEUED_S = 1, 2\n"
    fleet = Fleet(redis_url, tmp_path, {})
    with fleet.orchestrator(before=shorter):
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        for turn in range(7):
            with fleet.worker(f"turn{turn}", "-c", "1", before=shorter + dies) as worker:
                until((marks / str(turn)).exists, "the worker has died in the middle of the batch")
                worker.process.wait(PATIENCE_S)
        with fleet.worker("last", before=shorter + dies):
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert (status.state, status.copied) == (State.DONE, 1)
