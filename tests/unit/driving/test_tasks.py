"""The orchestrator's tasks: which errors are retried, and which end the job."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from celery.exceptions import Retry
from kombu.exceptions import OperationalError

from snapferry.orchestrator.driving import drive
from snapferry.orchestrator.driving.drive import drive_job
from snapferry.orchestrator.driving.outcome import DriveOutcome, Result
from snapferry.orchestrator.driving.steps import window
from snapferry.orchestrator.driving.store_outage import may_wait_for
from snapferry.orchestrator.planning import prepare
from snapferry.orchestrator.tasks import BROKER_RETRY_S, MAX_BROKER_RETRIES, MAX_RETRIES, run_drive
from snapferry.stores.address import manifest_key
from snapferry.stores.errors import AccessDenied, ClockWrong, StoreUnavailable
from snapferry.workers.copying.requeue import STEP_ASIDE_S, UNREADABLE_S
from snapferry.workers.ledger import MAX_DRIVES, Ledger, State, UnknownJob
from snapferry.workers.lifecycle.orchestrator_roster import OrchestratorRoster
from snapferry.workers.messages import (
    VERSION,
)
from tests.unit.bound_task import BoundTask

from .fleet import Fleet, snapshots


def driven(fleet: Fleet, step: Any, *, retries: int = 0) -> DriveOutcome:
    return run_drive(BoundTask(retries), fleet.ledger, "job", step)


def failing(error: Exception) -> Any:
    def step() -> str:
        raise error

    return step


def from_kombu(cause: Exception) -> OperationalError:
    error = OperationalError(str(cause))
    error.__cause__ = cause
    return error


BROKER_TROUBLE = [
    from_kombu(redis.ConnectionError("Error 111 connecting to the broker")),
    from_kombu(OSError("broken pipe")),
    redis.ConnectionError("Connection refused"),
    redis.TimeoutError("Timeout reading from socket"),
    redis.BusyLoadingError("Redis is loading the dataset in memory"),
]


@pytest.mark.parametrize(("retries", "pause"), [(0, 2), (1, 4), (2, 8)])
def test_a_step_whose_store_gives_no_answer_is_tried_again(fleet: Fleet, retries: int, pause: int) -> None:
    with pytest.raises(Retry) as raised:
        driven(fleet, failing(StoreUnavailable("s3://b", "", "timed out")), retries=retries)

    assert raised.value.when == pause
    assert fleet.status.state is State.QUEUED


@pytest.mark.parametrize(
    ("retries", "error"),
    [
        (MAX_RETRIES, StoreUnavailable("s3://b", "", "timed out")),
        (0, AccessDenied("s3://b", "", "no permission")),
    ],
)
def test_a_step_that_cannot_go_on_ends_the_job_with_its_reason(
    fleet: Fleet, retries: int, error: AccessDenied | StoreUnavailable
) -> None:
    driven(fleet, failing(error), retries=retries)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error == f"{type(error).__name__}: {error}"


@pytest.mark.parametrize(
    ("orchestrators", "waits_at_start", "error", "waits"),
    [
        (1, False, ClockWrong, False),
        (2, False, ClockWrong, True),
        (1, True, ClockWrong, True),
        (2, True, AccessDenied, False),
    ],
)
def test_a_job_that_begins_where_the_clock_is_wrong_is_left_to_another_orchestrator(
    fleet: Fleet, orchestrators: int, waits_at_start: bool, error: type[AccessDenied], waits: bool
) -> None:
    for number in range(orchestrators):
        OrchestratorRoster(fleet.ledger.client).announce(f"o{number}")
    spec = fleet.spec.model_copy(update={"waits_at_start": waits_at_start})

    assert may_wait_for(fleet.ledger, spec, error("s3://b", "", "403")) is waits


def test_a_surprise_ends_the_job_too_and_goes_on_to_the_log(fleet: Fleet) -> None:
    with pytest.raises(ZeroDivisionError):
        driven(fleet, failing(ZeroDivisionError("a bug")))

    assert fleet.status.state is State.FAILED
    assert "unexpected ZeroDivisionError: a bug" in fleet.status.error


def test_a_step_of_an_unknown_job_does_nothing(fleet: Fleet) -> None:
    app: Any = None

    outcome = run_drive(BoundTask(), fleet.ledger, "other", lambda: drive_job(app, fleet.ledger, "other"))

    assert outcome == DriveOutcome(result=Result.UNKNOWN)
    with pytest.raises(UnknownJob):
        fleet.ledger.status("other")
    assert fleet.ledger._redis.keys("*other*") == []


def test_a_job_of_another_version_is_handed_back_and_fails_only_when_nothing_of_it_moves(
    fleet: Fleet,
) -> None:
    text = fleet.spec.model_dump_json().replace(f'"version":{VERSION}', f'"version":{VERSION + 1}')
    fleet.ledger._redis.hset("snapferry:job:job", "request", text)

    with pytest.raises(Retry) as raised:
        driven(fleet, fleet.drive)

    assert (raised.value.when, fleet.status.state) == (STEP_ASIDE_S, State.QUEUED)
    assert fleet.ledger.driver("job") == ""

    fleet.ledger._redis.hset("snapferry:job:job", "moved_at", time.time() - UNREADABLE_S - 1)
    driven(fleet, fleet.drive)

    assert fleet.status.state is State.FAILED
    assert "another version" in fleet.status.error


@pytest.mark.parametrize("trouble", BROKER_TROUBLE, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("retries", [0, MAX_RETRIES, MAX_BROKER_RETRIES, 1000])
def test_a_step_whose_broker_is_away_is_tried_again_and_uses_up_no_try(
    fleet: Fleet, trouble: Exception, retries: int
) -> None:
    with pytest.raises(Retry) as raised:
        driven(fleet, failing(trouble), retries=retries)

    # `Task` fails if a message with another count of retries is queued.
    assert raised.value.when == BROKER_RETRY_S
    assert fleet.status.state is State.QUEUED


def test_a_broker_that_refuses_for_good_ends_the_job_in_the_end(fleet: Fleet) -> None:
    reason = "this user has no permissions to run the 'lpush' command"
    refused = from_kombu(redis.exceptions.NoPermissionError(reason))
    with pytest.raises(Retry):
        driven(fleet, failing(refused), retries=MAX_BROKER_RETRIES - 1)
    waiting = fleet.status
    assert waiting.state is State.QUEUED

    with pytest.raises(OperationalError):
        driven(fleet, failing(refused), retries=MAX_BROKER_RETRIES)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error == f"the broker did not accept the job's tasks: {refused}"


def test_a_broker_that_is_away_when_a_step_begins_is_waited_for_as_well(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Ledger, "start_driving", lambda *_: failing(redis.ConnectionError("refused"))())

    with pytest.raises(Retry) as raised:
        driven(fleet, fleet.drive)

    assert raised.value.when == BROKER_RETRY_S
    assert fleet.queued == []


def test_a_plan_whose_tasks_the_broker_took_in_part_queues_them_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Retry):
        patch.setattr(window, "queue_batches", lambda *_, **__: failing(OperationalError("away"))())
        driven(fleet, fleet.drive)

    assert driven(fleet, fleet.drive, retries=1) == DriveOutcome(queued=5)

    fleet.copy(fleet.queued[0])
    assert driven(fleet, fleet.drive) == DriveOutcome(result=Result.DONE, published=1)


@pytest.mark.parametrize(
    "trouble",
    [StoreUnavailable("s3://b", "", "timed out"), OperationalError("away")],
    ids=["store", "broker"],
)
def test_a_step_that_ends_without_success_is_no_sign_of_a_deadly_one(
    fleet: Fleet, trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = drive._drive_once
    monkeypatch.setattr(drive, "_drive_once", lambda *_: failing(trouble)())
    for _ in range(2 * MAX_DRIVES):
        with pytest.raises(Retry):
            driven(fleet, fleet.drive)
    monkeypatch.setattr(drive, "_drive_once", once)

    assert driven(fleet, fleet.drive).queued == 5


def test_a_source_that_changed_so_that_the_plan_is_lost_ends_the_job_with_that_reason(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    fleet.submit(*ids)
    fleet.drive()
    (fleet.source / manifest_key(ids[1])).unlink()
    prepare.forget("job")

    driven(fleet, fleet.drive)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("the source changed while the job ran: ")
    assert ids[1] in fleet.status.error


def test_a_source_without_the_snapshot_fails_the_job_and_makes_no_destination(fleet: Fleet) -> None:
    (fleet.source / manifest_key(fleet.snapshot)).unlink()

    driven(fleet, fleet.drive)

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("ManifestMissing: ")
    assert fleet.queued == []
    assert not fleet.destination.exists()
