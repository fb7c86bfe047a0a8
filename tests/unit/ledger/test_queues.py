"""Tasks of a job in the queues of Celery."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from celery import Celery
from celery._state import _task_stack
from kombu import pools

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.driving.dispatch import queue_batches, queue_drive, queue_plan
from snapferry.orchestrator.planning.batches import Batch
from snapferry.workers.ledger import (
    PLAN,
    Ledger,
    State,
    UnknownJob,
)
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, Priority, lists, step
from snapferry.workers.settings.environment import Settings
from tests.queues import roots, waiting
from tests.unit.ledger.support import address, request


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """The real app on a real broker, of which the tests look at the queues."""
    app = make_fleet_app(Settings(broker_url=redis_url))
    yield app
    app.close()
    pools.reset()


def within_a_task(app: Celery, job_id: str, publish: Callable[[], None]) -> None:
    """Call *publish* as a task does whose root is the job."""
    task = app.tasks["snapferry.commit_snapshots"]
    task.push_request(id=str(uuid.uuid4()), root_id=job_id, args=(), kwargs={}, called_directly=False)
    _task_stack.push(task)
    try:
        publish()
    finally:
        _task_stack.pop()
        task.pop_request()


def new_job_id() -> str:
    return str(uuid.uuid4())


def batches_of(count: int) -> list[Batch]:
    return [Batch.of(number, {address(number): 1}, (number,)) for number in range(count)]


def test_a_job_that_waits_for_its_plan_is_in_the_queue_of_plans(
    app: Celery, ledger: Ledger, client: redis.Redis
) -> None:
    job_id = new_job_id()
    queue_plan(app, request(job_id))

    assert roots(client, PLAN_QUEUE) == [job_id]
    assert ledger.has_queued_task(PLAN_QUEUE, job_id)
    assert not ledger.has_queued_task(PLAN_QUEUE, new_job_id())
    assert not ledger.has_queued_task(COPY_QUEUE, job_id)


@pytest.mark.parametrize("inside", [False, True])
def test_a_look_at_a_job_is_of_the_job_wherever_it_is_queued(
    app: Celery, ledger: Ledger, client: redis.Redis, inside: bool
) -> None:
    """The reconciler has no task around it; a driver that cancels has one, maybe another job's."""
    job_id, other = new_job_id(), new_job_id()
    if inside:
        within_a_task(app, other, lambda: queue_drive(app, job_id, "why"))
    else:
        queue_drive(app, job_id, "why")

    assert roots(client, PLAN_QUEUE) == [job_id]
    assert ledger.has_queued_task(PLAN_QUEUE, job_id)
    assert not ledger.has_queued_task(PLAN_QUEUE, other)


@pytest.mark.parametrize("count", [1, 2, 90])
def test_a_job_whose_batches_wait_is_in_the_queue_of_copies(
    app: Celery, ledger: Ledger, client: redis.Redis, count: int
) -> None:
    job_id = new_job_id()
    within_a_task(
        app,
        job_id,
        lambda: queue_batches(
            app, request(job_id), batches_of(count), series=PLAN, of=count, snapshots="all"
        ),
    )

    assert roots(client, COPY_QUEUE) == [job_id] * count
    assert ledger.has_queued_task(COPY_QUEUE, job_id)
    assert not ledger.has_queued_task(COPY_QUEUE, new_job_id())
    assert not ledger.has_queued_task(PLAN_QUEUE, job_id)


def test_a_single_batch_behind_many_of_other_jobs_is_found(
    app: Celery, ledger: Ledger, client: redis.Redis
) -> None:
    first, busy, last = new_job_id(), new_job_id(), new_job_id()
    for job_id, count in ((first, 1), (busy, 75), (last, 1)):
        within_a_task(
            app,
            job_id,
            partial(
                queue_batches, app, request(job_id), batches_of(count), series=PLAN, of=count, snapshots="all"
            ),
        )

    assert [ledger.has_queued_task(COPY_QUEUE, job_id) for job_id in (first, busy, last)] == [True] * 3
    assert roots(client, COPY_QUEUE) == [first, *[busy] * 8, last, *[busy] * 67]
    for message in [waiting(client, COPY_QUEUE)[at] for at in (0, 9)]:
        client.lrem(lists(COPY_QUEUE)[step(Priority.NORMAL, 0)], 1, message)
    assert [ledger.has_queued_task(COPY_QUEUE, job_id) for job_id in (first, busy, last)] == [
        False,
        True,
        False,
    ]


def queue_of(client: redis.Redis) -> dict[str, list[Any]]:
    return {name: client.lrange(name, 0, -1) for name in lists(COPY_QUEUE)}


@pytest.mark.parametrize("priority", Priority)
def test_batches_that_wait_take_the_priority_that_their_job_is_given(
    app: Celery, ledger: Ledger, client: redis.Redis, priority: Priority
) -> None:
    job_id, other = new_job_id(), new_job_id()
    for each, earlier in ((other, Priority.HIGH), (job_id, Priority.NORMAL), (other, Priority.LOW)):
        asked = request(each).model_copy(update={"priority": earlier})
        ledger.create(asked)
        handing = partial(queue_batches, app, asked, batches_of(90), series=PLAN, of=90, snapshots="all")
        within_a_task(app, each, handing)
    before = waiting(client, COPY_QUEUE)
    of_job = [message for message in before if job_id in message]

    moved = ledger.prioritise(job_id, priority)

    after = waiting(client, COPY_QUEUE)
    assert moved == (State.QUEUED, 0 if priority is Priority.NORMAL else 90)
    assert ledger.spec(job_id).priority is priority
    assert ledger.status(job_id).priority == priority
    # Each is there once, in the order that it had among those of its job and of the others.
    assert [message for message in after if message in of_job] == of_job
    assert [message for message in after if message not in of_job] == [m for m in before if m not in of_job]
    assert Counter(after) == Counter(before)
    places = {m: name for name, messages in queue_of(client).items() for m in messages}
    assert {places[m] for m in of_job} == {lists(COPY_QUEUE)[step(priority, n)] for n in (0, 10, 64)}
    assert ledger.prioritise(job_id, priority) == (State.QUEUED, 0)


def test_a_task_that_waits_twice_is_moved_twice(app: Celery, ledger: Ledger, client: redis.Redis) -> None:
    job_id = new_job_id()
    ledger.create(request(job_id))
    handing = partial(queue_batches, app, request(job_id), batches_of(1), series=PLAN, of=1, snapshots="all")
    within_a_task(app, job_id, handing)
    (message,) = waiting(client, COPY_QUEUE)
    client.lpush(lists(COPY_QUEUE)[step(Priority.NORMAL, 0)], message)

    assert ledger.prioritise(job_id, Priority.LOW) == (State.QUEUED, 2)
    assert waiting(client, COPY_QUEUE) == [message, message]


def test_a_job_that_has_ended_keeps_its_priority_and_one_that_is_unknown_has_none(
    ledger: Ledger, client: redis.Redis
) -> None:
    ledger.create(request("ended"))
    ledger.advance("ended", State.FAILED)

    assert ledger.prioritise("ended", Priority.HIGH) == (State.FAILED, 0)
    assert ledger.status("ended").priority == "normal"
    with pytest.raises(UnknownJob):
        ledger.prioritise("nobody", Priority.HIGH)
    assert not client.exists("snapferry:job:nobody")
