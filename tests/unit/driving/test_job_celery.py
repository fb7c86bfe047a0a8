"""The root id of a job's tasks, whoever queues them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from snapferry.orchestrator.driving import dispatch
from snapferry.orchestrator.planning.batches import Batch
from snapferry.stores.hashing import digest
from snapferry.workers.broker.job_celery import JobCelery, job_of
from snapferry.workers.messages import JobSpec

from .fleet import Fleet

JOB = str(uuid.UUID(int=7))
OTHER = str(uuid.UUID(int=8))


@pytest.fixture
def app() -> Iterator[Celery]:
    name = f"memory://{uuid.uuid4().hex}"
    made = JobCelery("here", broker="memory://", backend="cache+memory://", set_as_current=False)
    made.conf.update(task_default_queue=name, task_ignore_result=True)
    yield made
    made.close()


def sent(app: Celery) -> list[dict[str, Any]]:
    """Return the headers of all messages in the queue of *app*, and take them."""
    found = []
    with (
        app.connection_for_read() as connection,
        connection.SimpleQueue(app.conf.task_default_queue) as queue,
    ):
        while queue.qsize():
            message = queue.get_nowait()
            message.ack()
            found.append(message.headers)
    return found


def roots(app: Celery) -> list[tuple[str, str | None, str | None]]:
    return [(headers["task"], headers["root_id"], headers["parent_id"]) for headers in sent(app)]


def test_a_commit_called_as_errback_belongs_to_its_job(
    app: Celery, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Celery itself gives it the id of the callback that never ran, which no page of Flower has."""
    spec: JobSpec = fleet.spec.model_copy(update={"job_id": JOB})
    callbacks: list[Any] = []

    def chord(header: list[Any], *, app: Celery) -> Any:
        assert (len(header), app) == (1, queued_by)
        return callbacks.append

    queued_by = app
    monkeypatch.setattr(dispatch, "chord", chord)
    batch = Batch.of(0, {digest(b"0"): 1}, (0,))
    dispatch.queue_batches(app, spec, [batch], series="plan", of=1, snapshots="95ff19…")

    try:
        raise ValueError("a part of the chord failed")
    except ValueError as error:
        app.backend.chord_error_from_stack(callbacks[0], error)

    assert roots(app) == [("snapferry.commit_snapshots", JOB, JOB)]


def test_the_message_of_a_batch_is_made_when_it_is_queued(
    app: Celery, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the first batches run while messages of others are made, and only one of them is in memory."""
    spec: JobSpec = fleet.spec.model_copy(update={"job_id": JOB})
    batches = [Batch.of(number, {digest(b"%d" % number): 1}, (number,)) for number in range(3)]
    queued_before: list[int] = []
    queued: list[int] = []
    send, make = Celery.send_task, dispatch.batch_message

    def made(*arguments: Any) -> Any:
        queued_before.append(len(queued))
        return make(*arguments)

    def sent_task(self: Celery, name: str, args: Any = None, *rest: Any, **options: Any) -> Any:
        if name == "snapferry.copy_batch":
            queued.append(args[0]["number"])
        return send(self, name, args, *rest, **options)

    monkeypatch.setattr(dispatch, "batch_message", made)
    monkeypatch.setattr(Celery, "send_task", sent_task)
    monkeypatch.setattr(type(app.backend), "apply_chord", lambda *_, **__: None)
    dispatch.queue_batches(app, spec, batches, series="plan", of=3, snapshots="95ff19…")

    assert (queued_before, queued) == ([0, 1, 2], [0, 1, 2])


def test_the_first_task_is_the_root_and_all_others_are_its_children(app: Celery, fleet: Fleet) -> None:
    spec: JobSpec = fleet.spec.model_copy(update={"job_id": JOB})
    dispatch.queue_plan(app, spec)
    dispatch.queue_drive(app, JOB, "it did not move")
    app.send_task("snapferry.copy_batch", ({"job_id": JOB},), root_id=OTHER, parent_id=OTHER)

    assert roots(app) == [
        ("snapferry.plan_job", JOB, None),
        ("snapferry.look_after_job", JOB, JOB),
        ("snapferry.copy_batch", JOB, JOB),
    ]


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("snapferry.run_mirror", [JOB]),
        ("theirs", [JOB]),
        ("snapferry.copy_batch", None),
        ("snapferry.copy_batch", []),
        ("snapferry.copy_batch", {"job_id": JOB}),
        ("snapferry.copy_batch", [{}]),
        ("snapferry.copy_batch", [{"job_id": 3}]),
        ("snapferry.commit_snapshots", ["not an id"]),
        ("snapferry.commit_snapshots", [[JOB]]),
    ],
)
def test_any_other_task_is_left_alone(name: str, args: Any) -> None:
    assert job_of(name, args) == ""
