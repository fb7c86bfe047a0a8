"""The fleet: a real Redis, an orchestrator and workers in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import uuid
from collections import Counter
from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.orchestrator.jobs.batching import BATCHES_OF_A_PROCESS, LOCAL_BATCH_OBJECTS
from snapferry.stores.opening import open_store
from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger import State
from snapferry.workers.ledger.keys import WORKERS
from snapferry.workers.messages import GROUP_BATCHES, JobSpec
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from tests import servers
from tests.queues import waiting
from tests.sample import make_store, random_files, tree

from .forge import Forge
from .processes import PATIENCE_S, Fleet, children_of, snapferry, started, until


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Fleet:
    return Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"})


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url, batch_objects=50))


def deliver_again(client: redis.Redis, queue: str) -> int:
    """Put a second copy of every queued message into *queue*, each with a delivery tag of its own."""
    messages = waiting(client, queue)
    for text in messages:
        message = json.loads(text)
        message["properties"]["delivery_tag"] = str(uuid.uuid4())
        client.lpush(queue, json.dumps(message))
    return len(messages)


def is_idle(client: redis.Redis) -> bool:
    """Say whether nothing waits in a queue and nothing is being worked on."""
    return not client.llen(PLAN_QUEUE) and not len(waiting(client, COPY_QUEUE)) and not client.hlen(UNACKED)


def is_planned(client: redis.Redis) -> bool:
    return not client.llen(PLAN_QUEUE) and not client.hlen(UNACKED)


def test_two_workers_and_an_orchestrator_copy_a_snapshot(fleet: Fleet, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1000))
    with fleet.orchestrator(), fleet.worker("one") as one, fleet.worker("two") as two:
        ended = fleet.sync(
            "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot, "--json"
        )

        assert ended.code == 0, ended.err
        assert ended.document["objects"]["copied"] == 1001
        assert tree(tmp_path / "a") == tree(tmp_path / "b")
        shares = [worker.batches_run() for worker in (one, two)]
        assert all(shares), "both workers took part"
    assert open_store(str(tmp_path / "b")).list_manifest_ids() == [snapshot]


def test_a_job_between_directories_is_cut_for_the_processes_that_run(
    fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    stores = store_pair(str(tmp_path / "a"), str(tmp_path / "b"))

    def batches(job_id: str) -> int:
        return jobs._ledger.spec(job_id).group_batches

    first = jobs.submit(JobSpec.of(*stores, [snapshot]))
    assert batches(first) == GROUP_BATCHES
    with fleet.worker("one"):
        assert batches(jobs.submit(JobSpec.of(*stores, [snapshot]))) == BATCHES_OF_A_PROCESS * 2
        assert batches(jobs.submit(JobSpec.of(*stores, [snapshot], group_batches=5))) == 5
        assert batches(jobs.submit(JobSpec.of(*stores, [snapshot], queue="other"))) == GROUP_BATCHES
        # If Redis loses it, it is submitted again, while workers have batches of the first one.
        assert batches(jobs.submit(JobSpec.of(*stores, [snapshot], job_id="chosen"))) == GROUP_BATCHES
        jobs.cancel(first)
        with fleet.orchestrator():
            jobs.wait(first)
        again = jobs.resume(first)
        assert again is not None
        assert batches(again) == BATCHES_OF_A_PROCESS * 2


def test_batches_between_directories_are_larger_unless_somebody_chose_their_size(
    redis_url: str, fleet: Fleet, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    stores = store_pair(str(tmp_path / "a"), str(tmp_path / "b"))
    default = JobSpec.of(*stores, [snapshot]).batch_objects

    def of_a_job_and_its_rest(**settings: int) -> list[int]:
        jobs = Jobs(Settings(broker_url=redis_url, **settings))
        first = jobs.submit(JobSpec.of(*stores, [snapshot]))
        jobs.cancel(first)
        jobs.wait(first)
        again = jobs.resume(first)
        assert again is not None
        return [jobs._ledger.spec(job).batch_objects for job in (first, again)]

    with fleet.orchestrator():
        assert of_a_job_and_its_rest() == [default] * 2
        with fleet.worker("one"):
            assert of_a_job_and_its_rest() == [LOCAL_BATCH_OBJECTS] * 2
            assert of_a_job_and_its_rest(batch_objects=default) == [default] * 2


def test_a_job_is_cut_for_the_processes_that_a_worker_may_start(
    redis_url: str, fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    """With --autoscale, a pool grows with the batches that wait. Remote control, as of Flower, changes it as well."""
    snapshot = make_store(tmp_path / "a", random_files(3))
    stores = store_pair(str(tmp_path / "a"), str(tmp_path / "b"))

    def processes() -> float:
        batches = jobs._ledger.spec(jobs.submit(JobSpec.of(*stores, [snapshot]))).group_batches
        return batches / BATCHES_OF_A_PROCESS

    control = make_fleet_app(Settings(broker_url=redis_url)).control
    with fleet.worker("scaled", "--autoscale", "8,1"):
        until(lambda: processes() == 8, "as many as it may start")
        # It announces itself before it listens.
        until(lambda: control.ping(timeout=1), "it listens")
        control.autoscale(max=5, min=1)
        until(lambda: processes() == 5, "the new limit is announced")
    with fleet.worker("fixed"), redis.Redis.from_url(redis_url) as client:
        # The other one was killed, and counts as alive for a while.
        client.hdel(WORKERS, *[name for name in client.hkeys(WORKERS) if name.startswith(b"scaled@")])
        until(lambda: processes() == 2, "those it has")
        until(lambda: control.ping(timeout=1), "it listens as well")
        control.pool_grow(n=1)
        until(lambda: processes() == 3, "the new one is announced")


def test_a_damaged_roster_of_workers_refuses_no_job(redis_url: str, jobs: Jobs, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    stores = store_pair(str(tmp_path / "a"), str(tmp_path / "b"))
    with redis.Redis.from_url(redis_url) as client:
        client.set(WORKERS, "junk")
    assert jobs._ledger.spec(jobs.submit(JobSpec.of(*stores, [snapshot]))).group_batches == GROUP_BATCHES


def test_plain_celery_commands_do_as_well(redis_url: str, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    env = {"SNAPFERRY_BROKER_URL": redis_url}
    celery = [sys.executable, "-m", "celery"]
    worker = [*celery, "-A", "snapferry.worker", "worker", "-Q", COPY_QUEUE, "-c", "1", "-n", "w@%h"]
    orchestrator = [
        *celery,
        "-A",
        "snapferry.orchestrator",
        "worker",
        "-Q",
        PLAN_QUEUE,
        "-c",
        "1",
        "-n",
        "o@%h",
    ]
    logs = tmp_path / "w.log", tmp_path / "o.log"
    with started(*worker, env=env, log=logs[0]), started(*orchestrator, env=env, log=logs[1]):
        ended = snapferry(
            "sync", "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot, env=env
        )

    assert ended.code == 0, ended.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_it_is_known_at_once_that_the_last_orchestrator_ended(
    forge: Forge, fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3))
    spec = JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot])
    never = jobs.lacks(jobs.status(jobs.submit(spec)))
    with fleet.orchestrator("--hostname", "planner@%h") as orchestrator:
        until(
            lambda: any(name.startswith("planner@") for name in jobs.announced().orchestrators), "announced"
        )
        there = jobs.announced()
        jobs.wait(spec.job_id, timeout_s=0)
        orchestrator.process.terminate()
        orchestrator.process.wait(PATIENCE_S)
    later = jobs.submit(spec.model_copy(update={"job_id": str(uuid.uuid4())}))

    assert never == "orchestrator"
    assert there.complete
    assert jobs.lacks(jobs.status(later)) == "orchestrator"
    ended = forge.run(["status", later, "--broker", fleet.url])
    assert "no orchestrator is running" in ended.out
    assert "snapferry orchestrator" in ended.out.splitlines()[-1]


@pytest.mark.slow
def test_a_submitted_job_needs_its_submitter_no_longer(fleet: Fleet, jobs: Jobs, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))

    with fleet.orchestrator(), fleet.worker():
        assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.DONE


@pytest.mark.slow
def test_every_task_delivered_twice_changes_nothing(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1000))
    job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        assert deliver_again(client, PLAN_QUEUE) == 1
        with fleet.orchestrator():
            # The second delivery of the plan finds the first at it, or its batches handed out.
            until(
                lambda: len(waiting(client, COPY_QUEUE)) == 21 and is_planned(client),
                "the plan is handed out",
            )
            assert deliver_again(client, COPY_QUEUE) == 21
            seen: list[tuple[int, int]] = []
            with fleet.worker("one") as one, fleet.worker("two") as two:
                status = jobs.wait(
                    job_id, lambda s: seen.append((s.objects_settled, s.bytes_settled)), timeout_s=PATIENCE_S
                )
                assert status.state is State.DONE
                before = tree(tmp_path / "b")
                # And once more, late: the whole job from its start.
                app = make_fleet_app(Settings(broker_url=redis_url))
                app.send_task("snapferry.plan_job", args=(job_id,), queue=PLAN_QUEUE)
                app.send_task("snapferry.commit_snapshots", args=(job_id,), queue=PLAN_QUEUE)
                until(lambda: is_idle(client), "everything is delivered")
                runs = sum(worker.batches_run() for worker in (one, two))

        assert jobs.status(job_id) == status
    assert runs == 42
    assert (status.copied, status.present, status.failed) == (1001, 0, 0)
    assert (status.objects_settled, status.bytes_settled) == (1001, 1000 * 512)
    assert seen == sorted(seen), "progress never goes back"
    assert all(objects <= 1001 and size <= 512_000 for objects, size in seen)
    assert before == tree(tmp_path / "b") == tree(tmp_path / "a")


def test_a_commit_that_is_called_too_early_writes_no_manifest(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        fleet.orchestrator() as orchestrator,
    ):
        # Until then the step that plans has the job, and a commit that is called leaves at once.
        until(lambda: "plan_job: 1 snapshot" in orchestrator.logged(), "the plan was handed out")
        assert len(waiting(client, COPY_QUEUE)) == 3
        make_fleet_app(Settings(broker_url=redis_url)).send_task(
            "snapferry.commit_snapshots", args=(job_id,), queue=PLAN_QUEUE
        )
        until(
            lambda: "commit_snapshots: waiting for batches" in orchestrator.logged(), "the early commit ran"
        )
        assert not (tmp_path / "b" / ".manifests").exists()

        with fleet.worker():
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert status.state is State.DONE
    assert (status.copied, status.present, status.failed) == (101, 0, 0)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_objects_that_vanish_between_copy_and_commit_are_healed(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        with fleet.orchestrator():
            until(lambda: len(waiting(client, COPY_QUEUE)) == 3, "the plan is handed out")
        with fleet.worker():
            until(lambda: client.llen(PLAN_QUEUE) == 1, "all batches are done and the commit is queued")
            gone = sorted((tmp_path / "b" / ".objects").rglob("?" * 55))[:5]
            for path in gone:
                path.unlink()
            with fleet.orchestrator():
                status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert status.state is State.DONE
    assert (status.copied, status.present, status.failed, status.healed) == (101, 0, 0, 5)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


@pytest.mark.slow
def test_a_killed_worker_child_is_replaced_and_its_batch_runs_again(fleet: Fleet, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3000))
    with fleet.orchestrator(), fleet.worker() as worker:
        command = [sys.executable, "-m", "snapferry", "sync", "--broker", fleet.url, "--id", snapshot]
        command += ["--from", str(tmp_path / "a"), "--to", str(tmp_path / "b")]
        with started(*command, env=fleet.env) as running:
            until((tmp_path / "b" / ".objects").is_dir, "copying has begun")
            for child in children_of(worker.process.pid):
                os.kill(child, signal.SIGKILL)
            assert running.process.wait(PATIENCE_S) == 0
        assert "WorkerLostError" in worker.logged()
    assert {p: d for p, d in tree(tmp_path / "b").items() if ".tmp-" not in p} == tree(tmp_path / "a")


@pytest.mark.slow
def test_a_worker_that_is_told_to_stop_ends_its_batches_first(fleet: Fleet, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(3000))
    jobs = Jobs(Settings(broker_url=fleet.url, batch_objects=50))
    with fleet.orchestrator(), fleet.worker("one") as one, fleet.worker("two"):
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        until((tmp_path / "b" / ".objects").is_dir, "copying has begun")
        one.process.terminate()

        assert one.process.wait(PATIENCE_S) == 0
        assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.DONE
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_cancelled_job_ends_so_and_writes_no_manifest(fleet: Fleet, jobs: Jobs, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1500))
    with fleet.orchestrator(), fleet.worker():
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        until((tmp_path / "b" / ".objects").is_dir, "copying has begun")
        jobs.cancel(job_id)

        assert jobs.wait(job_id, timeout_s=PATIENCE_S).state is State.CANCELLED
    assert not (tmp_path / "b" / ".manifests").exists()


def test_a_bad_object_stops_no_other_and_the_job_ends_as_failed(fleet: Fleet, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", random_files(120))
    objects = sorted((tmp_path / "a" / ".objects").rglob("?" * 55))
    objects[0].write_bytes(b"not what it was")
    objects[1].unlink()
    with fleet.orchestrator(), fleet.worker():
        ended = fleet.sync(
            "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot, "--json"
        )

    document = ended.document
    assert ended.code == 1
    assert document["state"] == "failed"
    assert (document["objects"]["copied"], document["objects"]["failed"]) == (119, 2)
    assert Counter(e["error"] for e in document["errors"]) == {"IntegrityError": 1, "ObjectMissing": 1}
    assert {e["address"][9:] for e in document["errors"]} == {path.name for path in objects[:2]}
    assert not (tmp_path / "b" / ".manifests").exists()
    assert not (tmp_path / "b" / objects[0].relative_to(tmp_path / "a")).exists()


@pytest.mark.slow
def test_a_store_that_goes_away_while_copying_is_waited_for(
    redis_url: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    (tmp_path / "s3" / "the-bucket").mkdir(parents=True)
    fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50", **s3_environment})
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=50))
    port = servers.free_port()
    url = f"s3://the-bucket/store?endpoint_url=http://127.0.0.1:{port}"
    with fleet.orchestrator(), redis.Redis.from_url(redis_url) as client:
        with servers.rclone_s3_server(tmp_path / "s3", port):
            job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), url), [snapshot]))
            until(lambda: len(waiting(client, COPY_QUEUE)) == 3, "the plan is handed out")
        with fleet.worker() as worker:
            until(lambda: "store not reached" in worker.logged(), "a batch meets the trouble")
            with servers.rclone_s3_server(tmp_path / "s3", port):
                status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert status.state is State.DONE, status
    assert (status.copied, status.failed) == (101, 0)


def test_nothing_secret_is_in_redis(fleet: Fleet, redis_url: str, tmp_path: Path) -> None:
    secret = "s3cr3t-" + uuid.uuid4().hex
    snapshot = make_store(tmp_path / "a", random_files(20))
    env = {"AWS_SECRET_ACCESS_KEY": secret, "AWS_ACCESS_KEY_ID": "AKIA" + secret}
    fleet = Fleet(redis_url, tmp_path, env)
    found: list[bytes] = []
    stop = threading.Event()

    def look() -> None:
        # No timeout: the server may be idle while the roles start.
        with redis.Redis.from_url(redis_url, socket_timeout=None) as client, client.monitor() as monitor:
            while not stop.is_set():
                found.append(monitor.next_command()["command"].encode())

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    with fleet.orchestrator(), fleet.worker() as worker:
        assert (
            fleet.sync("--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot).code == 0
        )
        assert secret not in worker.logged()
    stop.set()
    with redis.Redis.from_url(redis_url) as client:
        client.ping()
    watcher.join(PATIENCE_S)

    assert any(b"snapferry.copy_batch" in command for command in found)
    assert not any(secret.encode() in command for command in found)


def test_an_unreachable_broker_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", {"./x": b"x"})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        ended = Fleet(f"redis://:pass-word@127.0.0.1:{port}/0", tmp_path).sync(
            "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot
        )

    assert ended.code == 1
    assert ended.err.count("\n") == 1
    assert f"the broker at redis://127.0.0.1:{port}/0 cannot be used" in ended.err
    assert "pass-word" not in ended.err


def test_a_broker_that_accepts_and_never_answers_is_given_up(tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", {"./x": b"x"})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        ended = Fleet(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", tmp_path).sync(
            "--from", str(tmp_path / "a"), "--to", str(tmp_path / "b"), "--id", snapshot
        )

    assert (ended.code, ended.err.count("\n")) == (1, 1)


@pytest.mark.parametrize("role", ["worker", "orchestrator"])
def test_a_redis_that_may_evict_is_refused(forge: Forge, redis_url: str, tmp_path: Path, role: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            refused = forge.run([role, "--broker", redis_url])
            sync = ["sync", "--broker", redis_url, "--from", "/a", "--to", "/b", "--id", "0" * 64]
            client_refused = forge.run(sync)
        finally:
            client.config_set("maxmemory-policy", "noeviction")

    for ended in (refused, client_refused):
        assert ended.code != 0
        assert "maxmemory-policy allkeys-lru" in ended.err
        assert "Set it to noeviction" in ended.err
        assert "Traceback" not in ended.err


@pytest.mark.parametrize("role", ["worker", "orchestrator"])
def test_a_role_without_a_broker_is_one_line_and_exit_code_2(forge: Forge, role: str) -> None:
    ended = forge.run([role])

    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "no broker: set SNAPFERRY_BROKER_URL" in ended.err


def test_an_old_celery_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import celery

    from snapferry.workers.app import make_app
    from snapferry.workers.settings.environment import InvalidSettings

    monkeypatch.setattr(celery, "__version__", "5.6.3")

    with pytest.raises(InvalidSettings, match=r"Celery 5\.6\.3 can call a chord back before"):
        make_app(Settings(broker_url="redis://127.0.0.1:1/0"))
