"""A fleet whose Redis fails over: real sentinels, with TLS and passwords, real workers and orchestrators."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings, parse_broker_url
from tests import servers
from tests.sample import make_store, random_files, tree
from tests.sentinels import (
    PASSWORD,
    SENTINEL_PASSWORD,
    SentinelSet,
    Server,
    make_certificates,
    sentinel_set,
)

from .dashboards import dashboard
from .flowers import Flower, flower
from .processes import PATIENCE_S, Fleet, program, slow_batches, snapferry, started, until

SLOW = slow_batches(0.5)


def whole(tmp_path: Path) -> bool:
    found = {path: data for path, data in tree(tmp_path / "b").items() if ".tmp-" not in path}
    return found == tree(tmp_path / "a")


def jobs_of(running: SentinelSet, batch: int) -> Jobs:
    return Jobs(Settings(broker_url=parse_broker_url(running.url), batch_objects=batch))


def submit(jobs: Jobs, tmp_path: Path, count: int) -> str:
    snapshot = make_store(tmp_path / "a", random_files(count, size=64))
    return jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))


@pytest.mark.slow
def test_a_failover_in_the_middle_of_20_000_objects_completes_by_itself(tmp_path: Path) -> None:
    """With TLS and passwords. The dead primary comes back as a replica, and takes over when the next one dies."""
    with (
        sentinel_set(tmp_path / "redis", replicas=1, tls=True, passwords=True) as running,
        ExitStack() as stack,
    ):
        fleet = Fleet(running.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "200"})
        roles = [stack.enter_context(fleet.orchestrator()), stack.enter_context(fleet.worker(before=SLOW))]
        jobs = jobs_of(running, 200)
        job_id = submit(jobs, tmp_path, 20_000)
        first = running.primary()
        until(lambda: jobs.status(job_id).batches_done >= 10, "some of it is done")
        running.failover()
        until(lambda: status(jobs, job_id) >= 30, "it goes on at the other server")
        first.start()
        until(running.in_sync, "the dead one is a replica")
        assert running.info(first)["role"] == "slave"
        running.failover()
        assert running.primary() is first
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
    with sentinel_set(tmp_path / "redis", down_after_ms=4000) as running, ExitStack() as stack:
        fleet = Fleet(running.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "20"})
        stack.enter_context(fleet.orchestrator())
        stack.enter_context(fleet.worker(before=SLOW))
        jobs = jobs_of(running, 20)
        job_id = submit(jobs, tmp_path, 2000)
        until(lambda: jobs.status(job_id).batches_done >= 5, "some of it is done")
        primary = running.primary()
        replica = next(one for one in running.servers if one is not primary)
        with running.client(replica) as lagging:
            # It keeps its connection, but reads nothing of it.
            lagging.execute_command("REPLICAOF", "127.0.0.1", "1")
        at = jobs.status(job_id).batches_done
        until(lambda: jobs.status(job_id).batches_done >= at + 10, "more is done that the replica lacks")
        before = jobs.status(job_id).batches_done
        running.failover()
        until(lambda: status(jobs, job_id) > 0, "the next primary answers")
        after = status(jobs, job_id)
        end = jobs.wait(job_id, timeout_s=PATIENCE_S * 2)

    assert after < before
    assert (end.state, end.failed, end.copied + end.present) == (State.DONE, 0, 2001)
    assert whole(tmp_path)


@pytest.mark.slow
def test_commands_and_pages_find_the_primary(tmp_path: Path) -> None:
    with sentinel_set(tmp_path / "redis", passwords=True) as running, ExitStack() as stack:
        env = {"SNAPFERRY_BROKER_URL": running.url}
        fleet = Fleet(running.url, tmp_path)
        stack.enter_context(fleet.orchestrator())
        stack.enter_context(fleet.worker())
        make_store(tmp_path / "a", random_files(20))
        began = time.monotonic()
        running.failover()
        done = snapferry("sync", "--all", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), env=env)
        assert done.code == 0, done.err
        doctor = snapferry("doctor", "--json", env=env)
        records = client(parse_broker_url(running.url))
        assert records.exists("snapferry:jobs")
        said = done.out + done.err + doctor.out + doctor.err

    assert whole(tmp_path)
    assert PASSWORD not in said
    assert SENTINEL_PASSWORD not in said
    assert time.monotonic() > began


DEPLOYED = Path(__file__).parents[2] / "deploy" / "sentinel"


@contextmanager
def deployed(folder: Path) -> Iterator[SentinelSet]:
    """Run the configuration of deploy/sentinel, with all three machines on this one."""
    servers.need_redis_with_tls()
    certificates = folder / "certificates"
    make_certificates(certificates)
    ports = [servers.free_port() for _ in range(6)]

    def written(name: str, path: Path, port: int, *more: str) -> None:
        text = (DEPLOYED / name).read_text()
        for old, new in (
            ("10.0.7.11", "127.0.0.1"),
            ("tls-port 26379" if "26379" in text else "tls-port 6379", f"tls-port {port}"),
            ("main 127.0.0.1 6379", f"main 127.0.0.1 {ports[0]}"),
            ("/etc/redis/tls/ca.pem", str(certificates / "ca.pem")),
            ("/etc/redis/tls/redis.pem", str(certificates / "server.pem")),
            ("/etc/redis/tls/redis.key", str(certificates / "server.key")),
            ("/etc/redis/users.acl", str(path.parent / "users.acl")),
            ("/var/lib/redis", str(path.parent)),
            ("SENTINEL_PASSWORD", SENTINEL_PASSWORD),
            ("PASSWORD", "hunter2"),
        ):
            text = text.replace(old, new)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join([text, *more, ""]))

    made: list[list[Server]] = [[], []]
    for number, port in enumerate(ports):
        is_sentinel = number >= 3
        own = folder / f"{'sentinel' if is_sentinel else 'redis'}-{number % 3}"
        replica = [f"replicaof 127.0.0.1 {ports[0]}"] if number in (1, 2) else []
        written("sentinel.conf" if is_sentinel else "redis.conf", own / "redis.conf", port, *replica)
        if not is_sentinel:
            written("users.acl", own / "users.acl", port)
        made[is_sentinel].append(Server(own, port, {}, is_sentinel))
    found = SentinelSet(made[0], made[1], certificates, passwords=True, user="snapferry", password="hunter2")
    with found.running():
        yield found


@pytest.mark.slow
def test_the_documented_configuration_fails_over_and_all_roles_follow(tmp_path: Path) -> None:
    """With TLS, users with few rights, Flower, the dashboard, the doctor and a scheduler."""
    with deployed(tmp_path / "redis") as running, ExitStack() as stack:
        env = {"SNAPFERRY_BROKER_URL": running.url}
        fleet = Fleet(running.url, tmp_path)
        stack.enter_context(fleet.orchestrator())
        stack.enter_context(fleet.worker())
        pages = stack.enter_context(flower(running.url, tmp_path))
        jobs_pages = stack.enter_context(dashboard(tmp_path, running.url))
        make_store(tmp_path / "a", random_files(20))
        config = tmp_path / "snapferry.toml"
        config.write_text(
            f'[[mirror]]\nname = "m"\nfrom = "{tmp_path}/a"\nto = "{tmp_path}/b"\nevery = "10s"\n'
        )
        scheduler = [*program(), "scheduler", "--config", str(config)]
        stack.enter_context(started(*scheduler, env=env, log=tmp_path / "scheduler.log"))
        until(lambda: whole(tmp_path), "the mirror is run")
        before = snapferry("doctor", "--json", env=env)

        old = running.failover()
        make_store(tmp_path / "a", random_files(20, seed=2))
        until(lambda: whole(tmp_path), "the mirror is run by way of the next primary")
        queues = until(lambda: answered(pages, "/api/queues/length"), "Flower lists the queues")
        page = until(lambda: jobs_pages.ask("/").status == 200, "the dashboard answers")
        after = snapferry("doctor", "--json", env=env)
        logs = "".join(path.read_text(errors="replace") for path in tmp_path.glob("*.log"))

    checks = {one["check"]: one for one in before.document["checks"] if one["about"] == "broker"}
    lost = {one["check"]: one for one in after.document["checks"] if one["about"] == "broker"}
    assert {name: one["level"] for name, one in checks.items() if one["level"] != "ok"} == {}
    assert checks["broker.sentinels"]["level"] == "ok"
    assert "min" not in checks["broker.replicas"]["advice"]
    assert f"127.0.0.1:{old.port}" in lost["broker.role"]["said"]
    assert {one["name"] for one in queues["active_queues"]} >= {"snapferry.copy", "snapferry.plan"}
    assert page
    assert "hunter" not in before.out + before.err + after.out + after.err + logs


def answered(pages: Flower, path: str) -> Any:
    with suppress(OSError):
        return pages.get(path)
    return None
