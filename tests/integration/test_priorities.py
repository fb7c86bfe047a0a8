"""Whose batches come first, on a real fleet; and queues that only some workers serve."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.queues import COPY_QUEUE, Priority, copy_queue
from snapferry.workers.settings.environment import Settings
from tests.queues import roots, waiting
from tests.sample import make_store, random_files

from .processes import PATIENCE_S, Fleet, Started, snapferry, until


@pytest.fixture
def fleet(redis_url: str, tmp_path: Path) -> Fleet:
    return Fleet(redis_url, tmp_path)


@pytest.fixture
def jobs(redis_url: str) -> Jobs:
    return Jobs(Settings(broker_url=redis_url, batch_objects=1))


def submit(jobs: Jobs, folder: Path, name: str, files: int, **options: Any) -> str:
    snapshot = make_store(folder / name, random_files(files, seed=len(name)))
    return jobs.submit(
        JobSpec.of(
            StoreRef(url=f"file://{folder / name}"),
            StoreRef(url=f"file://{folder / f'{name}-copy'}"),
            [snapshot],
            **options,
        )
    )


def ran(worker: Started) -> list[str]:
    """Return the job of each batch that *worker* came to the end of, in order."""
    lines = [json.loads(line) for line in worker.logged().splitlines()]
    return [line["job"] for line in lines if line["message"].startswith("batch ended")]


def test_a_small_job_waits_for_no_more_than_what_runs(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    """All batches of the huge job are queued before those of the others; low, it waits for them as well."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, fleet.orchestrator():
        huge = submit(jobs, tmp_path, "huge", 99)
        until(lambda: len(waiting(client, COPY_QUEUE)) == 100, "the plan is handed out")
        small = submit(jobs, tmp_path, "small", 2)
        until(lambda: len(waiting(client, COPY_QUEUE)) == 103, "the plan is handed out")
        low = submit(jobs, tmp_path, "unimportant", 2, priority=Priority.LOW)
        until(lambda: len(waiting(client, COPY_QUEUE)) == 106, "the plan is handed out")
        high = submit(jobs, tmp_path, "urgent", 20, priority=Priority.HIGH)
        until(lambda: len(waiting(client, COPY_QUEUE)) == 127, "the plan is handed out")
        expected = [high] * 21 + [huge] * 8 + [small] * 3 + [huge] * 92 + [low] * 3
        assert roots(client, COPY_QUEUE) == expected
        with fleet.worker("worker", "-c", "1") as worker:
            ended = [jobs.wait(job_id, timeout_s=PATIENCE_S) for job_id in (high, small, huge, low)]
            assert ran(worker) == expected

    assert {status.state for status in ended} == {State.DONE}
    assert [status.ended_at for status in ended] == sorted(status.ended_at for status in ended)


@pytest.mark.slow
def test_a_job_is_given_another_priority_while_its_batches_wait_and_for_those_to_come(
    fleet: Fleet, redis_url: str, tmp_path: Path
) -> None:
    """A window of 40: most batches of the job are handed out after the change. Nothing of either job is lost."""
    jobs = Jobs(Settings(broker_url=redis_url, batch_objects=1, window_batches=40))
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, fleet.orchestrator():
        later = submit(jobs, tmp_path, "later", 99, priority=Priority.LOW)
        first = submit(jobs, tmp_path, "first", 99)
        until(lambda: len(waiting(client, COPY_QUEUE)) == 80, "both windows are full")
        assert roots(client, COPY_QUEUE) == [first] * 40 + [later] * 40

        raised = snapferry("priority", later[:8], "high", "--broker", redis_url)
        again = snapferry("priority", later, "high", "--json", "--broker", redis_url)
        assert roots(client, COPY_QUEUE) == [later] * 40 + [first] * 40
        with fleet.worker("worker", "-c", "1") as worker:
            ended = [jobs.wait(job_id, timeout_s=PATIENCE_S) for job_id in (later, first)]
            order = ran(worker)
        late = snapferry("priority", later, "low", "--broker", redis_url)

    assert (raised.code, raised.err) == (0, "")
    assert raised.out == f"job {later}: priority high; 40 queued batches moved\n"
    assert again.document["priority"] == "high"
    assert [(status.state, status.copied) for status in ended] == [(State.DONE, 100)] * 2
    assert Counter(order) == {later: 100, first: 100}
    # A worker that waits for nothing may take some of the other job while the next window is handed out.
    assert order[:40] == [later] * 40
    assert order[-60:] == [first] * 60
    assert (late.code, late.err) == (0, "")
    assert late.out == f"job {later} has already ended: it is done\n"


def test_a_job_that_resumes_another_has_the_priority_that_held_last(jobs: Jobs, tmp_path: Path) -> None:
    job = submit(jobs, tmp_path, "low", 1)
    jobs.prioritise(job, Priority.HIGH)
    jobs.cancel(job)

    again = jobs.resume(job)

    assert again is not None
    assert jobs.status(again).priority == "high"


def test_a_queue_is_served_by_the_workers_that_were_told_to(
    fleet: Fleet, jobs: Jobs, redis_url: str, tmp_path: Path
) -> None:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client, fleet.orchestrator():
        slow = submit(jobs, tmp_path, "slow", 4, queue="tape")
        other = submit(jobs, tmp_path, "other", 4)
        until(lambda: len(waiting(client, copy_queue("tape"))) == 5, "the plan is handed out")
        with fleet.worker():
            assert jobs.wait(other, timeout_s=PATIENCE_S).state is State.DONE
        assert len(waiting(client, copy_queue("tape"))) == 5
        assert jobs.status(slow).objects_settled == 0

        with fleet.worker("tape", "--queue", "tape"):
            assert jobs.wait(slow, timeout_s=PATIENCE_S).state is State.DONE


def test_what_a_queue_is_called_is_checked(redis_url: str, tmp_path: Path) -> None:
    stores = ["--from", str(tmp_path), "--to", str(tmp_path / "b"), "--id", "a" * 64, "--broker", redis_url]

    for command in (["submit", *stores], ["worker", "--broker", redis_url]):
        ended = snapferry(*command, "--queue", "a b")
        assert ended.code == 2
        assert "not 'a b'" in ended.err
