"""Redis is lost for good while a job runs: what an orchestrator exported is recovered, and no role hangs."""

from __future__ import annotations

import random
from contextlib import ExitStack
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.opening import open_store
from tests.sample import assert_published_means_complete, make_store, random_files

from .own_redis import own_redis
from .processes import PATIENCE_S, Fleet, program, snapferry, started, until
from .slow_bucket import slow_bucket

OFTEN = "from snapferry.orchestrator.recovery import keeper\nkeeper.EVERY_S = 0.5\n"


def test_a_job_goes_on_after_redis_was_lost_for_good(tmp_path: Path) -> None:
    data = random.Random(5).randbytes(3_000_000)
    snapshot = make_store(tmp_path / "a", random_files(60) | {"./big": data})
    file = tmp_path / "exports" / "jobs.json"
    file.parent.mkdir()
    with ExitStack() as stack:
        bucket = stack.enter_context(slow_bucket(tmp_path / "a", object_key(digest(data)), pause_s=0.5))
        # Nothing of it is on a disk.
        server = stack.enter_context(own_redis(tmp_path / "redis", "--port", "{port}"))
        environment = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "SNAPFERRY_ACCESS_ENDPOINTS": bucket.endpoint,
        }
        fleet = Fleet(server.url, tmp_path, environment)
        stack.enter_context(fleet.orchestrator("--export-jobs", str(file), before=OFTEN))
        stack.enter_context(fleet.worker())
        jobs = Jobs(Settings(broker_url=server.url, batch_objects=10), check=False)
        source = f"s3://bucket?endpoint_url={bucket.endpoint}"
        job = jobs.submit(JobSpec.of(*store_pair(source, str(tmp_path / "b")), [snapshot]))
        until(lambda: bucket.running and jobs.status(job).batches_done >= 3, "the job is on its way")
        until(lambda: file.exists() and job in file.read_text(), "the job is exported")

        server.kill()
        server.start()

        (lost,) = until(lambda: list(file.parent.glob("*.lost")), "the export is kept")
        first = snapferry("jobs", "recover", str(lost), "--broker", server.url)
        assert first.code == 0, first.err
        assert first.out == f"{job}\n"
        bucket.hurry.set()
        status = jobs.wait(job, timeout_s=PATIENCE_S)

    assert status.state is State.DONE, status
    assert status.copied + status.present == status.objects_total == 62
    assert status.present > 0, "what was copied before the loss is not copied again"
    assert_published_means_complete(open_store(str(tmp_path / "b")))


@pytest.mark.slow
def test_a_mirror_runs_again_after_redis_was_lost_for_good(tmp_path: Path) -> None:
    """No role is started again."""
    make_store(tmp_path / "a", random_files(3))
    (tmp_path / "snapferry.toml").write_text(
        f'[[mirror]]\nname = "m"\nfrom = "file://{tmp_path}/a"\nto = "file://{tmp_path}/b"\nevery = "10s"\n'
    )
    with ExitStack() as stack:
        server = stack.enter_context(own_redis(tmp_path / "redis", "--port", "{port}"))
        environment = {"SNAPFERRY_CONFIG": str(tmp_path / "snapferry.toml")}
        fleet = Fleet(server.url, tmp_path, environment)
        stack.enter_context(fleet.orchestrator())
        stack.enter_context(fleet.worker())
        env = environment | {"SNAPFERRY_BROKER_URL": server.url}
        log = tmp_path / "scheduler.log"
        stack.enter_context(started(*program(), "scheduler", env=env, log=log))
        jobs = Jobs(Settings(broker_url=server.url), check=False)
        until(lambda: jobs.list(limit=9, state="done"), "the mirror has run")

        server.kill()
        server.start()

        until(lambda: jobs.list(limit=9, state="done"), "the mirror runs again")
