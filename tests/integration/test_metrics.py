"""Metrics of a real fleet: a job with bad objects, a store that charges, killed children, a Redis that is away."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.orchestrator.reporting.fleet_metrics import ASKED
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.metrics.catalogue import BUILD_INFO, COUNTED, ORCHESTRATORS
from tests.opening import open_store
from tests.sample import fill, make_store, random_files
from tests.scrape import Scrape, promtool, scrape
from tests.servers import S3Server, free_port

from .own_redis import own_redis
from .processes import PATIENCE_S, Fleet, children_of, snapferry, until


def exported_by(role: str) -> dict[str, str]:
    """Return name -> type of what a member of the fleet exports."""
    return {
        metric.name: metric.kind
        for metric in (*COUNTED, *ASKED.values(), BUILD_INFO, ORCHESTRATORS)
        if role in metric.roles
    }


def requests(found: Scrape, side: str) -> Counter[str]:
    """Return the requests that a scrape counts for a side, by operation."""
    return Counter(
        {
            labels["operation"]: int(found.value("snapferry_store_requests_total", **labels))
            for labels in found.labels("snapferry_store_requests_total")
            if labels["side"] == side
        }
    )


# A batch with objects that could not be copied is a failed task.
ENDS = ("success", "expected_failure", "failure")


def test_the_figures_of_a_job_with_bad_objects_are_those_of_its_record(
    redis_url: str, tmp_path: Path, rclone_memory_s3: S3Server
) -> None:
    bucket = rclone_memory_s3.make_bucket()
    source = rclone_memory_s3.url(bucket)
    files = random_files(299, size=100)
    snapshot = fill(open_store(source), files)
    addresses = sorted(digest(data) for data in files.values() if data)
    missing, corrupt, there = addresses[0], addresses[150], addresses[200:220]
    rclone_memory_s3.client.delete_object(Bucket=bucket, Key=object_key(missing))
    rclone_memory_s3.client.put_object(Bucket=bucket, Key=object_key(corrupt), Body=b"x" * 100)
    destination = open_store(str(tmp_path / "b"))
    destination.prepare()
    for data in files.values():
        if digest(data) in there:
            destination.put_object(digest(data), data)
    ports = {"worker": free_port(), "orchestrator": free_port()}
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=50))
    fleet = Fleet(redis_url, tmp_path, {**rclone_memory_s3.environment, "TMPDIR": str(tmp_path)})
    with fleet.orchestrator("--metrics-port", str(ports["orchestrator"])):
        job_id = jobs.submit(JobSpec.of(*store_pair(source, str(tmp_path / "b")), [snapshot]))
        until(lambda: jobs.status(job_id).state is State.COPYING, "the job is planned")
        # Nobody copies yet.
        waiting = until(
            lambda: (
                (found := scrape(ports["orchestrator"])).value(
                    "snapferry_queue_messages", queue="snapferry.copy"
                )
                == 6
                and found
            ),
            "its batches are queued",
        )
        assert waiting.value("snapferry_workers", role="worker") == 0
        assert waiting.value("snapferry_workers", role="orchestrator") == 1
        assert waiting.value("snapferry_backlog_objects") == 300
        assert waiting.value("snapferry_backlog_bytes") == jobs.status(job_id).bytes_total
        assert waiting.value("snapferry_jobs", state="copying") == 1
        assert waiting.value("snapferry_open_snapshots", state="pending") == 1
        age = waiting.value("snapferry_queue_oldest_message_age_seconds", queue="snapferry.copy")
        open_for = waiting.value("snapferry_oldest_open_job_age_seconds")
        submitted = jobs.status(job_id).submitted_at
        assert 0 < age < open_for <= time.time() - submitted
        with fleet.worker("worker", "--metrics-port", str(ports["worker"])) as running:
            ended = jobs.wait(job_id, timeout_s=PATIENCE_S)

            def all_counted() -> Scrape | None:
                found = scrape(ports["worker"])
                tasks = sum(found.value("snapferry_tasks_total", state=state) for state in ENDS)
                return found if tasks == 6 else None

            worker = until(all_counted, "the last task is counted")
            orchestrator = scrape(ports["orchestrator"])
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(PATIENCE_S) == 0
            # The orchestrator's is left.
            assert len(list(tmp_path.glob("snapferry-metrics-*/*"))) == 1

    assert (ended.state, ended.copied, ended.present, ended.failed) == (State.FAILED, 278, 20, 2)
    assert worker.value("snapferry_objects_total", outcome="copied") == ended.copied
    assert worker.value("snapferry_objects_total", outcome="present") == ended.present
    assert worker.value("snapferry_objects_total", outcome="failed") == ended.failed
    assert worker.value("snapferry_copied_bytes_total") == ended.bytes_copied
    assert worker.value("snapferry_batch_deliveries_total", end="ended") == ended.batches_done == 6
    assert worker.value("snapferry_batch_deliveries_total") == 6
    assert worker.value("snapferry_batch_duration_seconds_count") == 6
    assert worker.value("snapferry_batches_in_flight") == 0
    assert (
        {
            labels["error"]: worker.value("snapferry_errors_total", **labels)
            for labels in worker.labels("snapferry_errors_total")
            if worker.value("snapferry_errors_total", **labels)
        }
        == jobs.failed_by_class(job_id)
        == {"ObjectMissing": 1, "IntegrityError": 1}
    )
    # The corrupt object is fetched, and then read twice to its end. It and the missing one are requested in flight
    # before, unless they are among the first. A directory is sent no request.
    assert requests(worker, "source")["GetObject"] in {281, 282, 283, 284}
    assert requests(worker, "source").keys() <= {"GetObject", "HeadBucket"}
    assert requests(worker, "destination") == {}
    assert requests(orchestrator, "source")["GetObject"] >= 2

    assert orchestrator.value("snapferry_jobs_ended_total", state="failed") == 1
    assert orchestrator.value("snapferry_jobs_ended_total") == 1
    assert orchestrator.value("snapferry_jobs", state="failed") == 1
    assert orchestrator.value("snapferry_jobs") == 1
    assert orchestrator.value("snapferry_tasks_total", task="snapferry.plan_job", state="success") == 1
    # An alert fires for `failure` alone, and nothing unforeseen happened.
    assert worker.value("snapferry_tasks_total", state="expected_failure") in {1, 2}
    assert orchestrator.value("snapferry_tasks_total", state="expected_failure") == 1
    assert worker.value("snapferry_tasks_total", state="failure") == 0
    assert orchestrator.value("snapferry_tasks_total", state="failure") == 0
    assert orchestrator.value("snapferry_workers", role="worker") == 1
    assert worker.value("snapferry_orchestrators") == orchestrator.value("snapferry_orchestrators") == 1
    for name in ("backlog_objects", "backlog_bytes", "queue_messages", "running_batches", "open_snapshots"):
        assert orchestrator.value(f"snapferry_{name}") == 0

    # All that is promised is there, and nothing else; and none of it names what was copied.
    for role, found in (("worker", worker), ("orchestrator", orchestrator)):
        kinds = exported_by(role)
        assert found.kinds() == kinds
        promtool("check", "metrics", stdin=found.text)
        for secret in (bucket, job_id, str(tmp_path), missing, rclone_memory_s3.endpoint):
            assert secret not in found.text


def test_counts_survive_a_killed_child_and_redis_that_is_away_is_said_in_time(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(40))
    ports = {"worker": free_port(), "orchestrator": free_port()}
    with own_redis(tmp_path / "redis", "--port", "{port}") as server:
        fleet = Fleet(server.url, tmp_path)
        with (
            fleet.orchestrator("--metrics-port", str(ports["orchestrator"])),
            fleet.worker("worker", "--metrics-port", str(ports["worker"])) as worker,
        ):
            ended = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot)
            assert ended.code == 0, ended.err
            before = until(
                lambda: (found := scrape(ports["worker"])).value("snapferry_objects_total") == 41 and found,
                "the batch is counted",
            )
            children = children_of(worker.process.pid)
            assert len(children) == 2
            for child in children:
                os.kill(child, signal.SIGKILL)
            until(
                lambda: len(new := set(children_of(worker.process.pid)) - set(children)) == 2 and new,
                "the pool has new children",
            )
            after = scrape(ports["worker"])
            assert after.value("snapferry_objects_total", outcome="copied") == 41
            assert after.value("snapferry_copied_bytes_total") == before.value("snapferry_copied_bytes_total")

            again = fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot)
            assert again.code == 0, again.err
            until(
                lambda: scrape(ports["worker"]).value("snapferry_objects_total", outcome="present") == 41,
                "the new children count",
            )

            assert scrape(ports["orchestrator"]).value("snapferry_broker_up") == 1
            assert server.process is not None
            # It hangs: connections are taken, and nothing answers.
            server.process.send_signal(signal.SIGSTOP)
            # That it is answered at all, with the server stopped, shows that nothing waits for Redis.
            hung = scrape(ports["orchestrator"])
            server.process.send_signal(signal.SIGCONT)
            server.kill()
            gone = scrape(ports["orchestrator"])

            for found in (hung, gone):
                assert found.value("snapferry_broker_up") == 0
                counted = {name for name, kind in exported_by("orchestrator").items() if kind != "gauge"}
                # What is not known is left out.
                assert found.names() & ASKED_NAMES == {"snapferry_broker_up"}
                assert counted - ASKED_NAMES - {"snapferry_store_requests_total"} <= found.names()
            assert scrape(ports["worker"]).value("snapferry_objects_total") == 82

            server.start()
            until(lambda: scrape(ports["orchestrator"]).value("snapferry_broker_up") == 1, "it is back")
            until(
                lambda: scrape(ports["orchestrator"]).value("snapferry_workers") == 2,
                "the fleet is back",
                timeout_s=60,
            )


ASKED_NAMES = {metric.name for metric in ASKED.values()}


def test_a_private_fleet_counts_nothing_opens_no_port_and_imports_nothing_for_it(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(10))
    port = free_port()
    # Whoever imports it fails, in this process and in all that are forked from it.
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "prometheus_client.py").write_text("raise SystemExit('imported')")
    path = f"{tmp_path / 'poison'}{os.pathsep}{Path(__file__).parents[2]}"
    env = {"SNAPFERRY_METRICS_PORT": str(port), "TMPDIR": str(tmp_path), "PYTHONPATH": path}

    ended = snapferry(
        "sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot, env=env
    )

    assert ended.code == 0, ended.err
    assert not list(tmp_path.glob("snapferry-metrics-*"))
    # The same trap catches a worker, which does import it.
    caught = snapferry("worker", env={**env, "SNAPFERRY_BROKER_URL": "redis://127.0.0.1:1/0"})
    assert "imported" in caught.err


@pytest.mark.parametrize("damage", ["", "no json", "{}", '{"headers": {"snapferry_sent_at": "soon"}}'])
def test_a_message_that_does_not_say_when_it_was_queued_is_of_age_0(damage: str) -> None:
    from snapferry.orchestrator.reporting.fleet_metrics import _age

    assert _age(damage, 100.0) == 0.0
    assert _age('{"headers": {"snapferry_sent_at": 40}}', 100.0) == 60.0
    assert _age('{"headers": {"snapferry_sent_at": 140}}', 100.0) == 0.0
