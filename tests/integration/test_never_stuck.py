"""
No job is stuck for good: each way in which Celery or a machine can lose work is done to a real fleet.

The names of the ways are those of what is known of Celery 5.7 on Redis: a part
of a chord that is never counted, a callback that is never sent, a chord that
was published in part, a chord whose keys are gone, a queue that is gone.
"""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.driving.reconcile import QUEUED_S, ROUND_S
from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.opening import open_store
from snapferry.workers.broker.transport import UNACKED
from snapferry.workers.ledger import LEASE_S, JobStatus, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.queues import COPY_QUEUE, lists
from snapferry.workers.settings.environment import Settings
from tests.queues import waiting
from tests.sample import assert_published_means_complete, make_store, random_files, tree
from tests.servers import S3Server

from .own_redis import own_redis
from .processes import PATIENCE_S, Fleet, finished, until
from .slow_bucket import slow_bucket

SOONER = """
import snapferry.orchestrator.driving.steps.requeue, snapferry.orchestrator.driving.reconcile
snapferry.orchestrator.driving.steps.requeue.STALL_S = snapferry.orchestrator.driving.reconcile.STALL_S = 3.0
"""

# Celery with the settings that the project does not use, because of what they do.
WITH_STORED_RESULTS = """
import snapferry.workers.app
_configuration = snapferry.workers.app._configuration
snapferry.workers.app._configuration = lambda *a: _configuration(*a) | {"task_ignore_result": False, %s}
"""


def once(marker: Path, act: str) -> str:
    """Return Python for a function ``once()`` that acts the first time that any process calls it."""
    return f"""
import os, pathlib, signal
def once():
    try:
        os.close(os.open({str(marker)!r}, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    {act}
    return True
"""


KILL_SELF = "os.kill(os.getpid(), signal.SIGKILL)"
KILL_ALL = "os.kill(os.getppid(), signal.SIGKILL); os.kill(os.getpid(), signal.SIGKILL)"

BEFORE_COUNTING = """
import snapferry.workers.broker.result_backend as r
count = r.PatientRedisBackend.on_chord_part_return
def patched(self, request, *args, **kwargs):
    if request.group and once():
        return None
    return count(self, request, *args, **kwargs)
r.PatientRedisBackend.on_chord_part_return = patched
"""

BEFORE_THE_CALLBACK = """
import celery.canvas as c
apply_async = c.Signature.apply_async
def patched(self, *args, **kwargs):
    if self.task == "snapferry.commit_snapshots":
        once()
    return apply_async(self, *args, **kwargs)
c.Signature.apply_async = patched
c.Signature.delay = lambda self, *a, **k: self.apply_async(a, k)
"""

WHILE_PUBLISHING = """
import itertools
import celery.canvas as c
apply_async, published = c.Signature.apply_async, itertools.count(1)
def patched(self, *args, **kwargs):
    if self.task == "snapferry.copy_batch" and next(published) == 4:
        once()
    return apply_async(self, *args, **kwargs)
c.Signature.apply_async = patched
"""


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Fleet:
    return Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"})


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url, batch_objects=50))


def submit(jobs: Jobs, tmp_path: Path, count: int = 400) -> str:
    """Submit the copy of a new snapshot of so many files, from a to b."""
    snapshot = make_store(tmp_path / "a", random_files(count))
    return jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))


def assert_done(status: JobStatus, tmp_path: Path, count: int = 400) -> None:
    assert status.state is State.DONE, status
    assert status.copied + status.present == status.objects_settled == count + 1
    assert {p: d for p, d in tree(tmp_path / "b").items() if ".tmp-" not in p} == tree(tmp_path / "a")
    assert_published_means_complete(open_store(str(tmp_path / "b")))


def test_a_part_whose_process_is_killed_before_it_is_counted_runs_again(
    fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    before = once(tmp_path / "once", KILL_SELF) + BEFORE_COUNTING
    with fleet.orchestrator(), fleet.worker(before=before):
        status = jobs.wait(submit(jobs, tmp_path), timeout_s=PATIENCE_S)

    assert (tmp_path / "once").exists()
    assert_done(status, tmp_path)


@pytest.mark.slow
def test_a_part_that_is_never_counted_is_missed(fleet: Fleet, jobs: Jobs, tmp_path: Path) -> None:
    """Its result is stored, its process dies, Celery takes it for done and acknowledges it (hang A)."""
    before = WITH_STORED_RESULTS % "" + once(tmp_path / "once", KILL_SELF) + BEFORE_COUNTING
    stored = WITH_STORED_RESULTS % ""
    with fleet.orchestrator(before=stored) as orchestrator, fleet.worker(before=before):
        # Redis hands its message out again after half an hour; this waits for less.
        status = jobs.wait(submit(jobs, tmp_path), timeout_s=PATIENCE_S)
        assert "its chord did not call back" in orchestrator.logged()

    assert (tmp_path / "once").exists()
    assert_done(status, tmp_path)


@pytest.mark.slow
def test_a_part_that_deduplication_skips_is_missed(redis_url: str, tmp_path: Path) -> None:
    """Its worker is killed, and the next one takes its stored result for the whole of it (hang B)."""
    env = {"SNAPFERRY_BATCH_OBJECTS": "50", "SNAPFERRY_VISIBILITY_TIMEOUT": "5"}
    fleet = Fleet(redis_url, tmp_path, env)
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=50, visibility_timeout=5))
    deduplicating = WITH_STORED_RESULTS % '"worker_deduplicate_successful_tasks": True'
    killed = deduplicating + once(tmp_path / "once", KILL_SELF) + BEFORE_COUNTING
    with fleet.orchestrator(before=deduplicating) as orchestrator:
        job_id = submit(jobs, tmp_path)
        with fleet.worker("one", "-P", "solo", before=killed) as one:
            until((tmp_path / "once").exists, "the worker kills itself")
            one.process.wait(PATIENCE_S)
        with fleet.worker("two", before=deduplicating):
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
        assert "drive queued: " in orchestrator.logged()

    assert_done(status, tmp_path)


@pytest.mark.slow
def test_a_callback_that_is_never_sent_is_missed(fleet: Fleet, jobs: Jobs, tmp_path: Path) -> None:
    """The worker that claimed the sending dies, and the part comes again while its claim stands (hang C)."""
    before = once(tmp_path / "once", KILL_SELF) + BEFORE_THE_CALLBACK
    with fleet.orchestrator() as orchestrator, fleet.worker(before=before):
        status = jobs.wait(submit(jobs, tmp_path), timeout_s=PATIENCE_S)
        assert "its chord did not call back" in orchestrator.logged()

    assert (tmp_path / "once").exists()
    assert_done(status, tmp_path)


@pytest.mark.slow
def test_an_orchestrator_that_dies_while_it_hands_out_is_replaced(
    fleet: Fleet, jobs: Jobs, tmp_path: Path
) -> None:
    """Three of nine batches are queued, and no chord waits for them. Its own message is lost for half an hour."""
    before = once(tmp_path / "once", KILL_ALL) + WHILE_PUBLISHING
    with fleet.worker():
        job_id = submit(jobs, tmp_path)
        with fleet.orchestrator(before=before) as dying:
            until((tmp_path / "once").exists, "the orchestrator kills itself")
            dying.process.wait(PATIENCE_S)
        with fleet.orchestrator() as orchestrator:
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
            assert "its orchestrator is gone" in orchestrator.logged()

    assert_done(status, tmp_path)


@pytest.mark.slow
def test_a_chord_whose_keys_are_gone_is_missed(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    """They expire when a part takes, or waits, for longer than they are kept."""
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        fleet.orchestrator() as orchestrator,
    ):
        job_id = submit(jobs, tmp_path)
        until(lambda: len(waiting(client, COPY_QUEUE)) == 9, "the plan is handed out")
        keys = list(client.scan_iter("celery-taskset-meta-*"))
        assert keys
        client.delete(*keys)
        with fleet.worker():
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
        assert "its chord did not call back" in orchestrator.logged()

    assert_done(status, tmp_path)


def test_of_a_queue_that_is_lost_exactly_the_missing_batches_are_handed_out_again(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        fleet.orchestrator(before=SOONER) as orchestrator,
    ):
        job_id = submit(jobs, tmp_path, 1000)
        until(lambda: len(waiting(client, COPY_QUEUE)) == 21, "the plan is handed out")
        kept = waiting(client, COPY_QUEUE)[:5]
        client.delete(*lists(COPY_QUEUE))
        client.lpush(COPY_QUEUE, *kept)
        with fleet.worker() as worker:
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
            ran = worker.batches_run()
        requeued = [
            line for line in orchestrator.logged().splitlines() if "lost batches queued again" in line
        ]
        assert any('"batches":16' in line for line in requeued)

    assert ran == 21
    assert_done(status, tmp_path, 1000)


@pytest.mark.slow
def test_a_job_that_nobody_can_finish_ends_with_the_reason(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    """Whatever is queued is lost, over and over."""
    sooner = (
        SOONER
        + "snapferry.orchestrator.driving.reconcile.ROUND_S = 1\n"
        + "snapferry.orchestrator.driving.reconcile.QUEUED_S = 2\n"
    )
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, fleet.orchestrator(before=sooner):
        job_id = submit(jobs, tmp_path)
        status = jobs.wait(job_id, lambda _: client.delete(*lists(COPY_QUEUE)) and None, timeout_s=100)

    assert status.state is State.FAILED
    assert status.failed == status.objects_settled == status.objects_total
    assert jobs.retry(job_id)
    assert not (tmp_path / "b" / ".manifests").exists()


@pytest.mark.slow
def test_a_chord_that_an_outage_poisoned_is_made_up_for(tmp_path: Path) -> None:
    """With Celery's own result backend, a part that ends while Redis is away kills its chord."""
    stock = 'import snapferry.workers.app\nsnapferry.workers.app._BACKEND = "celery.backends.redis:RedisBackend"\n'
    slow = "import time, snapferry.workers.copying.tasks as t\nrun = t.run_batch\n"
    slow += (
        "def patched(*a):\n    words = run(*a)\n    time.sleep(1)\n    return words\nt.run_batch = patched\n"
    )
    with own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server:
        fleet = Fleet(server.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"})
        jobs = Jobs(Settings(broker_url=server.url, batch_objects=50))
        with fleet.orchestrator(), fleet.worker(before=stock + slow):
            job_id = submit(jobs, tmp_path)
            until(lambda: jobs.status(job_id).batches_done >= 2, "batches are copied")
            server.kill()
            time.sleep(3)
            server.start()
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert_done(status, tmp_path)


# A worker whose batches all wait for their retry when they come for the first time.
RETRIES_FIRST = """
import pathlib, snapferry.workers.copying.tasks as t
from snapferry.workers.copying.requeue import retry as queue_retry
run, folder = t.run_batch, pathlib.Path({folder!r})
def patched(task, batch, ledger, *more):
    if task.request.retries:
        return run(task, batch, ledger, *more)
    holder = f"x#0@{{task.request.hostname}}"
    ledger.begin(batch, holder)
    retry = queue_retry(task, {pause}, "not now")
    ledger.release(batch, holder, again_in_s={pause})
    (folder / f"waits-{{batch.number}}").touch()
    raise retry
t.run_batch = patched
"""


@pytest.mark.slow
def test_batches_that_waited_for_their_retry_when_redis_died_run_all_the_same(tmp_path: Path) -> None:
    """Celery drops them with its connection, so the worker must not go on to say that it has them."""
    folder = tmp_path / "marks"
    folder.mkdir()
    with own_redis(tmp_path / "redis", "--port", "{port}", "--appendonly", "yes") as server:
        fleet = Fleet(server.url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50"})
        jobs = Jobs(Settings(broker_url=server.url, batch_objects=50))
        before = RETRIES_FIRST.format(folder=str(folder), pause=20)
        with fleet.orchestrator(), fleet.worker(before=before):
            job_id = submit(jobs, tmp_path)
            until(lambda: len(list(folder.glob("waits-*"))) == 9, "all batches wait for their retry")
            server.kill()
            time.sleep(1)
            server.start()
            status = jobs.wait(job_id, timeout_s=300)

    assert_done(status, tmp_path)


DIES_WHILE_IT_PUTS_BACK = """
import os, signal, sys
from kombu.transport.redis import QoS
from snapferry.workers.app import make_app
from snapferry.workers.settings.environment import Settings
QoS.restore_by_tag = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
app = make_app(Settings(broker_url=sys.argv[1]))
with app.connection_for_read() as connection:
    connection.default_channel.qos.restore_visible(interval=1)
"""


def test_a_process_that_dies_while_it_puts_messages_back_stops_that_for_seconds(redis_url: str) -> None:
    """Its lock stays: until it expires, what other dead workers had taken waits, too."""
    with redis.Redis.from_url(redis_url) as client:
        client.delete(f"{UNACKED}_mutex")
        client.zadd(f"{UNACKED}_index", {"a tag": 1})
        died = finished([sys.executable, "-c", DIES_WHILE_IT_PUTS_BACK, redis_url])

        assert died.code == -signal.SIGKILL, died.err
        assert 0 < client.ttl(f"{UNACKED}_mutex") <= 20
        client.delete(f"{UNACKED}_mutex", f"{UNACKED}_index")


@pytest.mark.slow
def test_a_dead_machine_costs_at_most_a_minute(
    redis_url: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    """It dies in the middle of an object, half an hour before Redis would hand its message out again."""
    files = {"./large": bytes(range(256)) * 16384, **random_files(20)}
    snapshot = make_store(tmp_path / "a", files)
    slow = next(p for p in (tmp_path / "a" / ".objects").rglob("?" * 55) if p.stat().st_size > 10**6)
    with slow_bucket(tmp_path / "a", str(slow.relative_to(tmp_path / "a"))) as bucket:
        url = f"s3://bucket?endpoint_url={bucket.endpoint}"
        fleet = Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50", **s3_environment})
        jobs = Jobs(Settings(broker_url=redis_url, batch_objects=50))
        with fleet.orchestrator(), fleet.worker("one", "-c", "1") as one:
            job_id = jobs.submit(JobSpec.of(*store_pair(url, str(tmp_path / "b")), [snapshot]))
            until(lambda: bucket.running == 1, "the object is on its way")
            until(lambda: jobs.status(job_id).workers, "the job says who runs it")
            assert jobs.status(job_id).workers[0].startswith("one@")
            one.kill_all()
            with fleet.worker("two"):
                until(lambda: bucket.gets == 2, "another worker has begun it")
                bucket.hurry.set()
                status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    # All that is waited for, one after the other, with a round that has just missed it.
    assert LEASE_S + QUEUED_S + 2 * ROUND_S <= 60
    assert status.state is State.DONE
    assert {p: d for p, d in tree(tmp_path / "b").items() if ".tmp-" not in p} == tree(tmp_path / "a")


def test_a_cancelled_object_of_hours_is_let_go_within_seconds(
    redis_url: str, s3_environment: dict[str, str], tmp_path: Path
) -> None:
    files = {"./large": bytes(range(256)) * 65536}
    snapshot = make_store(tmp_path / "a", files)
    (large,) = (tmp_path / "a" / ".objects").rglob("?" * 55)
    with slow_bucket(tmp_path / "a", str(large.relative_to(tmp_path / "a")), pause_s=0.5) as bucket:
        url = f"s3://bucket?endpoint_url={bucket.endpoint}"
        fleet = Fleet(redis_url, tmp_path, dict(s3_environment))
        jobs = Jobs(Settings(broker_url=redis_url))
        with fleet.orchestrator(), fleet.worker("one", "-c", "1"):
            job_id = jobs.submit(JobSpec.of(*store_pair(url, str(tmp_path / "b")), [snapshot]))
            until(lambda: jobs.status(job_id).bytes_settled, "the object is on its way")
            jobs.cancel(job_id)
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)
            assert bucket.gets == 1, "it was not begun again"

    assert status.state is State.CANCELLED
    assert status.bytes_settled < len(files["./large"]), "it was let go before its end"
    assert not status.workers
    assert tree(tmp_path / "b") == {}


@pytest.mark.slow
def test_a_cancelled_upload_in_parts_is_aborted(redis_url: str, moto_s3: S3Server, tmp_path: Path) -> None:
    snapshot = make_store(tmp_path / "a", {"./large": bytes(range(256)) * 65536 * 2})
    (large,) = (tmp_path / "a" / ".objects").rglob("?" * 55)
    bucket = moto_s3.make_bucket()
    with slow_bucket(tmp_path / "a", str(large.relative_to(tmp_path / "a"))) as source:
        fleet = Fleet(redis_url, tmp_path, dict(moto_s3.environment))
        jobs = Jobs(Settings(broker_url=redis_url))
        with fleet.orchestrator(), fleet.worker("one", "-c", "1"):
            stores = store_pair(f"s3://bucket?endpoint_url={source.endpoint}", moto_s3.url(bucket, "store"))
            job_id = jobs.submit(JobSpec.of(*stores, [snapshot]))

            def uploads() -> list[Any]:
                found: list[Any] = moto_s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
                return found

            until(uploads, "an upload in parts has begun")
            jobs.cancel(job_id)
            status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert status.state is State.CANCELLED
    assert uploads() == []
    assert moto_s3.client.list_objects_v2(Bucket=bucket)["KeyCount"] == 0
