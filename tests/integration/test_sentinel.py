"""A fleet whose Redis fails over: real sentinels, with TLS and passwords, real workers and orchestrators."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings, parse_broker_url
from tests.sample import make_store, random_files, tree
from tests.sentinels import PASSWORD, SENTINEL_PASSWORD, SentinelSet, sentinel_set

from .processes import PATIENCE_S, Fleet, snapferry, until

SLOW = """
import time, snapferry.workers.copying.tasks as t
run = t.run_batch
def slowly(*a):
    time.sleep(0.5)
    return run(*a)
t.run_batch = slowly
"""


def whole(tmp_path: Path) -> bool:
    found = {path: data for path, data in tree(tmp_path / "b").items() if ".tmp-" not in path}
    return found == tree(tmp_path / "a")


def jobs_of(servers: SentinelSet, batch: int) -> Jobs:
    return Jobs(Settings(broker_url=parse_broker_url(servers.url), batch_objects=batch))


def submit(jobs: Jobs, tmp_path: Path, count: int) -> str:
    snapshot = make_store(tmp_path / "a", random_files(count, size=64))
    return jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))


@pytest.mark.slow
def test_a_failover_in_the_middle_of_20_000_objects_completes_by_itself(tmp_path: Path) -> None:
    """With TLS and passwords. The dead primary comes back as a replica, and takes over when the next one dies."""
    with (
        sentinel_set(tmp_path / "redis", replicas=1, tls=True, passwords=True) as servers,
        ExitStack() as stack,
    ):
        fleet = Fleet(servers.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "200"})
        roles = [stack.enter_context(fleet.orchestrator()), stack.enter_context(fleet.worker(before=SLOW))]
        jobs = jobs_of(servers, 200)
        job_id = submit(jobs, tmp_path, 20_000)
        first = servers.primary()
        until(lambda: jobs.status(job_id).batches_done >= 10, "some of it is done")
        servers.failover()
        until(lambda: status(jobs, job_id) >= 30, "it goes on at the other server")
        first.start()
        until(servers.in_sync, "the dead one is a replica")
        assert servers.info(first)["role"] == "slave"
        servers.failover()
        assert servers.primary() is first
        end = jobs.wait(job_id, timeout_s=PATIENCE_S * 4)
        logs = "".join(role.logged() for role in roles)

    assert (end.state, end.failed, end.objects_total) == (State.DONE, 0, 20_001)
    assert end.copied + end.present == 20_001
    assert whole(tmp_path)
    assert PASSWORD not in logs
    assert SENTINEL_PASSWORD not in logs


def status(jobs: Jobs, job_id: str) -> int:
    try:
        return jobs.status(job_id).batches_done
    except Exception:
        return 0


@pytest.mark.slow
def test_writes_that_the_dead_primary_acknowledged_and_the_next_one_never_got_are_made_again(
    tmp_path: Path,
) -> None:
    """The replica is stopped for a while, so it lacks accounts of batches, and messages, when it takes over."""
    with sentinel_set(tmp_path / "redis", down_after_ms=4000) as servers, ExitStack() as stack:
        fleet = Fleet(servers.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "20"})
        stack.enter_context(fleet.orchestrator())
        stack.enter_context(fleet.worker(before=SLOW))
        jobs = jobs_of(servers, 20)
        job_id = submit(jobs, tmp_path, 2000)
        until(lambda: jobs.status(job_id).batches_done >= 5, "some of it is done")
        primary = servers.primary()
        replica = next(one for one in servers.servers if one is not primary)
        with servers.client(replica) as lagging:
            # It keeps its connection, but reads nothing of it.
            lagging.execute_command("REPLICAOF", "127.0.0.1", "1")
        at = jobs.status(job_id).batches_done
        until(lambda: jobs.status(job_id).batches_done >= at + 10, "more is done that the replica lacks")
        before = jobs.status(job_id).batches_done
        servers.failover()
        until(lambda: status(jobs, job_id) > 0, "the next primary answers")
        after = status(jobs, job_id)
        end = jobs.wait(job_id, timeout_s=PATIENCE_S * 2)

    assert after < before
    assert (end.state, end.failed, end.copied + end.present) == (State.DONE, 0, 2001)
    assert whole(tmp_path)


@pytest.mark.slow
def test_commands_and_pages_find_the_primary(tmp_path: Path) -> None:
    with sentinel_set(tmp_path / "redis", passwords=True) as servers, ExitStack() as stack:
        env = {"SNAPFERRY_BROKER_URL": servers.url}
        fleet = Fleet(servers.url, tmp_path)
        stack.enter_context(fleet.orchestrator())
        stack.enter_context(fleet.worker())
        make_store(tmp_path / "a", random_files(20))
        began = time.monotonic()
        servers.failover()
        done = snapferry("sync", "--all", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), env=env)
        assert done.code == 0, done.err
        doctor = snapferry("doctor", "--json", env=env)
        records = client(parse_broker_url(servers.url))
        assert records.exists("snapferry:jobs")
        said = done.out + done.err + doctor.out + doctor.err

    assert whole(tmp_path)
    assert PASSWORD not in said
    assert SENTINEL_PASSWORD not in said
    assert time.monotonic() > began
