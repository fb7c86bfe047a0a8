"""What an operator's buttons in Flower do to a job: nothing is lost, nothing is published in part, none is stuck."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import JobStatus, Ledger, State
from snapferry.workers.messages import JobSpec
from snapferry.workers.queues import COPY_QUEUE, lists
from snapferry.workers.settings.environment import Settings
from tests.sample import assert_published_means_complete, make_store, random_files, tree

from .flowers import Flower, flower
from .processes import PATIENCE_S, Fleet, until
from .slow_bucket import slow_bucket
from .test_never_stuck import SOONER, once

STALL_S = 3.0

# A worker that says sooner what it holds.
TELLS_SOONER = "import snapferry.workers.lifecycle.rate_limited_tasks as h; h.REPORT_EVERY_S = 1"


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path, s3_environment: dict[str, str]) -> Fleet:
    return Fleet(redis_url, tmp_path, {"SNAPFERRY_BATCH_OBJECTS": "50", **s3_environment})


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    # An object of more than a megabyte travels alone, before the others.
    return Jobs(Settings(broker_url=redis_url, batch_objects=50, batch_bytes=10**6))


def assert_done(status: JobStatus, tmp_path: Path, objects: int) -> None:
    assert status.state is State.DONE, status
    assert status.copied + status.present == status.objects_settled == objects
    assert {p: d for p, d in tree(tmp_path / "b").items() if ".tmp-" not in p} == tree(tmp_path / "a")
    assert_published_means_complete(open_store(str(tmp_path / "b")))


def waiting(redis_url: str) -> list[str]:
    """Return the ids of the tasks in the queue of copies."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        messages: list[Any] = [one for name in lists(COPY_QUEUE) for one in client.lrange(name, 0, -1)]
    return [json.loads(message)["headers"]["id"] for message in messages]


def states(pages: Flower) -> dict[str, str]:
    return {task["uuid"]: task["state"] for task in pages.tasks()}


def test_batches_that_are_revoked_or_terminated_are_handed_out_again(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    """One worker is busy with an object that comes slowly; two batches in the queue are revoked, then it is ended."""
    files = {"./large": bytes(range(256)) * 65536, **random_files(200)}
    snapshot = make_store(tmp_path / "a", files)
    slow = next(p for p in (tmp_path / "a" / ".objects").rglob("?" * 55) if p.stat().st_size > 10**6)
    with (
        slow_bucket(tmp_path / "a", str(slow.relative_to(tmp_path / "a")), 0.2) as bucket,
        flower(redis_url, tmp_path, "--control") as pages,
        fleet.orchestrator(before=SOONER) as orchestrator,
        fleet.worker("one", "-c", "1") as one,
    ):
        url = f"s3://bucket?endpoint_url={bucket.endpoint}"
        job_id = jobs.submit(JobSpec.of(*store_pair(url, str(tmp_path / "b")), [snapshot]))
        until(lambda: bucket.running == 1 and len(waiting(redis_url)) >= 3, "one batch runs, others wait")
        revoked = waiting(redis_url)[:2]
        for task_id in revoked:
            pages.post(f"/api/task/revoke/{task_id}")
        (running,) = until(lambda: pages.tasks(name="snapferry.copy_batch", state="STARTED"), "it is shown")
        pages.post(f"/api/task/revoke/{running['uuid']}", terminate="true")
        until(lambda: states(pages).get(running["uuid"]) == "REVOKED", "the running task is shown as revoked")
        assert not (tmp_path / "b" / ".manifests").exists()
        bucket.hurry.set()
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)
        until(lambda: all(states(pages).get(one) == "REVOKED" for one in revoked), "so are the others")
        discarded = one.logged().count("Discarding revoked task")

    assert_done(status, tmp_path, 202)
    assert discarded == 2
    requeued = [line for line in orchestrator.logged().splitlines() if "lost batches queued again" in line]
    assert any('"batches":2' in line or '"batches":3' in line for line in requeued)


@pytest.mark.slow
def test_a_batch_that_is_terminated_every_time_ends_its_objects_as_failed_and_the_job_says_so(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    """As if somebody pressed the button at each beginning: the child is gone by the signal that Flower sends."""
    snapshot = make_store(tmp_path / "a", random_files(100))
    terminated = """
import os, signal
import snapferry.workers.copying.actions as t
import snapferry.workers.copying.delivery as d
d.MAX_STARTS = 2
run = t.copy_batch
def patched(source, destination, objects, *args, **kwargs):
    if min(objects) < "4":
        os.kill(os.getpid(), signal.SIGTERM)
    return run(source, destination, objects, *args, **kwargs)
t.copy_batch = patched
"""
    with fleet.orchestrator(before=SOONER), fleet.worker(before=terminated):
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        failed = Ledger(client, expires_s=3600).failures(job_id)
    assert status.state is State.FAILED
    assert "the manifest was not written" in status.error
    assert not (tmp_path / "b" / ".manifests").exists()
    assert "was it terminated each time?" in failed[0].failure.detail


@pytest.mark.slow
def test_a_rate_limit_delays_and_loses_nothing_and_lifting_it_is_felt_at_once(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(150))
    with (
        flower(redis_url, tmp_path, "--control") as pages,
        fleet.orchestrator(before=SOONER) as orchestrator,
        fleet.worker(before=TELLS_SOONER) as worker,
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
    ):
        ledger = Ledger(client, expires_s=3600)

        def limit(rate: str) -> None:
            where = {"workername": pages.worker("worker"), "ratelimit": rate}
            pages.post("/api/task/rate-limit/snapferry.copy_batch", **where)

        limit("1/h")
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        # The first begins at once. The worker holds two of the others, which are then in no queue and run nowhere.
        until(lambda: ledger.standing(job_id).done == 1 and len(waiting(redis_url)) == 1, "two are held")
        with redis.Redis.from_url(redis_url, decode_responses=True) as queue:
            # What is in a queue is not lost either way: leave only what is held.
            queue.delete(*lists(COPY_QUEUE))
        until(lambda: ledger.standing(job_id).idle_s > 3 * STALL_S, "long enough to be taken for lost")
        standing = ledger.standing(job_id)
        assert (standing.leased, standing.running) == (2, 0)
        assert "no activity" not in orchestrator.logged()
        limit("0")
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)
        assert "rate limit changed: 2 batches requeued" in worker.logged()

    assert_done(status, tmp_path, 151)


@pytest.mark.slow
def test_a_worker_that_is_shut_down_or_told_to_leave_the_queue_ends_its_batches_first(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(1000))
    with (
        flower(redis_url, tmp_path, "--control") as pages,
        fleet.orchestrator(),
        fleet.worker("one") as one,
        fleet.worker("two"),
    ):
        name, other = pages.worker("one"), pages.worker("two")
        job_id = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        until((tmp_path / "b" / ".objects").is_dir, "copying has begun")
        pages.post(f"/api/worker/queue/cancel-consumer/{other}", queue=COPY_QUEUE)
        pages.post(f"/api/worker/shutdown/{name}")
        assert one.process.wait(PATIENCE_S) == 0
        pages.post(f"/api/worker/queue/add-consumer/{other}", queue=COPY_QUEUE)
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    assert_done(status, tmp_path, 1001)


@pytest.mark.parametrize("which", ["soft", "hard"])
@pytest.mark.slow
def test_a_batch_that_a_time_limit_ends_is_handed_out_again(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path, which: str
) -> None:
    """The limit is there from the start: one that is set later is felt only once the worker has connected anew."""
    snapshot = make_store(tmp_path / "a", {"./large": bytes(range(256)) * 65536, **random_files(20)})
    slow = next(p for p in (tmp_path / "a" / ".objects").rglob("?" * 55) if p.stat().st_size > 10**6)
    limits = {"soft": {"soft_time_limit": 2}, "hard": {"time_limit": 2}}[which]
    limited = "import snapferry.workers.app\n_configuration = snapferry.workers.app._configuration\n"
    limited += "snapferry.workers.app._configuration = lambda *a: _configuration(*a) | {'task_annotations': "
    limited += f"{{'snapferry.copy_batch': {limits}}}}}\n"
    with (
        slow_bucket(tmp_path / "a", str(slow.relative_to(tmp_path / "a")), 0.2) as bucket,
        flower(redis_url, tmp_path) as pages,
        fleet.orchestrator(before=SOONER),
        fleet.worker(before=limited) as worker,
    ):
        url = f"s3://bucket?endpoint_url={bucket.endpoint}"
        job_id = jobs.submit(JobSpec.of(*store_pair(url, str(tmp_path / "b")), [snapshot]))
        until(lambda: f"{which.title()} time limit (2" in worker.logged(), "the limit is met")
        bucket.hurry.set()
        (failed,) = until(lambda: pages.tasks(state="FAILURE"), "it is shown")
        status = jobs.wait(job_id, timeout_s=PATIENCE_S)

    # The exception of a hard limit is shown wrapped, by Celery.
    assert "TimeLimitExceeded" in failed["exception"] + failed["traceback"]
    assert_done(status, tmp_path, 22)


@pytest.mark.slow
def test_a_plan_that_is_revoked_or_terminated_is_made_up_for(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    snapshot = make_store(tmp_path / "a", random_files(100))
    hangs = once(tmp_path / "once", "__import__('time').sleep(600)")
    hangs += "from dataclasses import replace\nfrom snapferry.orchestrator.driving.actions import STEPS\n"
    hangs += "steps = STEPS['copy']\ndef patched(*a):\n    once()\n    return steps.prepare(*a)\n"
    hangs += "STEPS['copy'] = replace(steps, prepare=patched)\n"
    with (
        flower(redis_url, tmp_path, "--control") as pages,
        fleet.orchestrator("-c", "1", before=SOONER + hangs),
        fleet.worker(),
    ):
        pages.worker("orchestrator")
        first = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "b")), [snapshot]))
        until(lambda: states(pages).get(first) == "STARTED", "the first job's plan is being made, and hangs")
        # The second waits behind it.
        second = jobs.submit(JobSpec.of(*store_pair(str(tmp_path / "a"), str(tmp_path / "c")), [snapshot]))
        pages.post(f"/api/task/revoke/{second}")
        pages.post(f"/api/task/revoke/{first}", terminate="true")
        ended = [jobs.wait(job_id, timeout_s=PATIENCE_S) for job_id in (first, second)]
        assert states(pages)[first] == states(pages)[second] == "REVOKED"

    assert [status.state for status in ended] == [State.DONE, State.DONE]
    assert tree(tmp_path / "a") == tree(tmp_path / "b") == tree(tmp_path / "c")
