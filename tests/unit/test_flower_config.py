"""What Flower's pages show of a task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.utils.saferepr import saferepr
from flower.views.tasks import TASK_COLUMNS

from snapferry.orchestrator import flower_config
from snapferry.orchestrator.flower_config import format_task
from snapferry.orchestrator.flower_views import (
    COPY_BATCH,
    FAILED_SHOWN,
    REASONS_SHOWN,
    fleet_queues,
    lead_to_failed,
)
from snapferry.orchestrator.jobs import Jobs
from snapferry.orchestrator.tasks import JobFailed
from snapferry.workers.broker.connection import client
from snapferry.workers.copying.settle import ObjectsFailed
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, lists, parking_queue
from snapferry.workers.settings.environment import Settings

WORDS = (
    '49 copied, it\'s "told" as 1 FAILED · object 95ff19ab… at file:///a: not what it was (IntegrityError)'
)


def shown(state: str, *, result: str | None = None, exception: str | None = None) -> Any:
    task = SimpleNamespace(state=state, result=result, exception=exception, traceback="Traceback (most …")
    return format_task(task)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (saferepr("498 copied, it's done"), "498 copied, it's done"),
        ("None", "None"),
        (None, None),
        ("('a', 1)", "('a', 1)"),
        ("'cut off in the mid...", "'cut off in the mid..."),
    ],
)
def test_a_result_is_shown_without_the_marks_of_python(result: str | None, words: str | None) -> None:
    assert shown("SUCCESS", result=result).result == words


@pytest.mark.parametrize("kind", [ObjectsFailed, JobFailed, RuntimeError])
def test_what_our_errors_say_is_shown_alone(kind: type[Exception]) -> None:
    task = shown("FAILURE", exception=repr(kind(WORDS)))

    assert (task.exception, task.result, task.traceback) == (WORDS, WORDS, None)


def test_an_error_of_another_kind_keeps_its_name_and_its_traceback() -> None:
    task = shown("FAILURE", exception=repr(ValueError("no good")))

    assert (task.exception, task.traceback) == ("ValueError: no good", "Traceback (most …")


@pytest.mark.parametrize("exception", [None, "", "None", "KeyError", "Terminated(15"])
def test_what_is_no_call_is_left_as_it_is(exception: str | None) -> None:
    assert shown("FAILURE", exception=exception).exception == exception


def test_the_reason_of_a_retry_that_went_well_in_the_end_says_so() -> None:
    task = shown("SUCCESS", result="'50 copied'", exception="RuntimeError('timed out')")

    assert (task.result, task.exception) == ("50 copied", "in the end it was done; before: timed out")


def test_every_column_is_one_that_flower_has() -> None:
    """Flower leaves out what it does not know without a word."""
    assert set(flower_config.tasks_columns.split(",")) <= set(TASK_COLUMNS)
    assert "uuid" in flower_config.tasks_columns, "which leads to the page of a task"


def failed(number: int, *, name: str = COPY_BATCH, what: str = "batch") -> Any:
    """Return a task that failed, as pages show it."""
    return SimpleNamespace(
        uuid=number,
        name=name,
        timestamp=float(number),
        args=f"job 1234 · 5e5e… · {what} {number}",
        exception=f"reason {number}",
    )


def test_the_first_task_of_a_job_leads_to_the_tasks_that_failed_the_latest_first() -> None:
    first = SimpleNamespace(result="2 batches queued", children=())

    lead_to_failed(first, [failed(number) for number in range(FAILED_SHOWN + 2)])

    assert [child.uuid for child in first.children] == list(range(FAILED_SHOWN + 1, 1, -1))
    assert str(FAILED_SHOWN + 2) in first.result
    assert len(first.result.splitlines()) == 3 + REASONS_SHOWN + 1


def test_causes_are_before_consequences_and_each_has_its_reason() -> None:
    first = SimpleNamespace(result="2 batches queued", children=())

    lead_to_failed(first, [failed(1), failed(2), failed(3, name="snapferry.commit_snapshots", what="commit")])

    assert [child.uuid for child in first.children] == [2, 1, 3]
    assert first.result.splitlines()[-3:] == ["batch 2: reason 2", "batch 1: reason 1", "commit 3: reason 3"]


def test_the_first_task_of_a_job_without_failures_stays_as_it_is() -> None:
    first = SimpleNamespace(result="2 batches queued", children=())

    lead_to_failed(first, [])

    assert (first.result, first.children) == ("2 batches queued", ())


def test_the_queues_of_the_fleet_are_those_of_open_jobs_and_those_where_batches_wait(redis_url: str) -> None:
    jobs, ref = Jobs(Settings(broker_url=redis_url)), StoreRef(url="file:///a")
    assert fleet_queues(jobs) == {PLAN_QUEUE, COPY_QUEUE}
    specs = [
        JobSpec(source=ref, destination=ref, everything=True, queue=name) for name in ("", "tape", "tape")
    ]
    parked = [parking_queue(spec.queue, jobs.submit(spec)) for spec in specs]
    client(redis_url).rpush(lists(parked[1])[3], "a batch")

    assert fleet_queues(jobs) == {PLAN_QUEUE, COPY_QUEUE, f"{COPY_QUEUE}.tape", parked[1]}
