"""Jobs that are paused or cancelled, also in the middle of a step."""

from __future__ import annotations

import time
from typing import Any

import pytest

from snapferry.orchestrator.driving import control, drive
from snapferry.orchestrator.driving.outcome import DriveOutcome, Result
from snapferry.orchestrator.driving.steps import plan as planning
from snapferry.orchestrator.driving.steps.requeue import STALL_S
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.workers.copying.delivery import Skipped
from snapferry.workers.ledger import State
from snapferry.workers.lifecycle import shutdown

from .fleet import Fleet


def test_a_paused_job_queues_nothing_and_what_was_queued_is_held(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0], 0)
    fleet.ledger.pause("job", paused=True)

    assert fleet.copy(fleet.queued[0], 1, 2) == [Skipped.PAUSED] * 2
    fleet.let_time_pass(STALL_S + 1)
    assert fleet.drive() == DriveOutcome(result=Result.PAUSED)
    assert len(fleet.queued) == 1

    fleet.ledger.pause("job", paused=False)
    assert fleet.drive() == DriveOutcome(requeued=2)
    assert fleet.queued[1].numbers == [1, 2], "the others are in the queue still"


def test_after_a_pause_what_was_held_goes_on_at_once(fleet: Fleet) -> None:
    fleet.drive()
    fleet.ledger.pause("job", paused=True)
    fleet.copy(fleet.queued[0], 1, 2)
    fleet.ledger.pause("job", paused=False)

    assert fleet.drive() == DriveOutcome(requeued=2)

    assert fleet.queued[1].numbers == [1, 2]


def test_a_job_that_is_paused_before_its_plan_is_planned_when_it_goes_on(fleet: Fleet) -> None:
    fleet.ledger.pause("job", paused=True)
    assert fleet.drive() == DriveOutcome(result=Result.PAUSED)
    paused = fleet.status
    assert paused.state is State.QUEUED
    fleet.ledger.pause("job", paused=False)

    fleet.copy_all()

    assert fleet.status.state is State.DONE


@pytest.mark.parametrize("wish", ["cancel", "pause", "end"])
def test_planning_stops_when_nobody_wants_it_any_more(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    """As in a manifest of hours: whatever is read or waited for calls `checkpoint`."""

    def plans_for_hours(*_: Any, **__: Any) -> Any:
        if wish == "cancel":
            fleet.ledger.cancel("job")
        elif wish == "pause":
            fleet.ledger.pause("job", paused=True)
        else:
            fleet.ledger.advance("job", State.FAILED)
        while True:
            checkpoint()
            time.sleep(0.001)

    with monkeypatch.context() as patched:
        patched.setattr(drive, "RENEW_S", 0.01)
        patched.setattr(planning, "prepare", plans_for_hours)
        outcome = fleet.drive()

    assert (
        outcome
        == {
            "cancel": DriveOutcome(result=Result.CANCELLED),
            "pause": DriveOutcome(result=Result.PAUSED),
            "end": DriveOutcome(result=Result.ALREADY_ENDED, state=State.FAILED),
        }[wish]
    )
    if wish == "pause":
        paused = fleet.status
        assert paused.state is State.PLANNING
        fleet.ledger.pause("job", paused=False)
        fleet.copy_all()
        assert fleet.status.state is State.DONE


def test_a_step_that_does_not_stop_is_let_go(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a read from an NFS server that is gone. Another orchestrator cancels the job meanwhile."""
    meanwhile = []

    def hangs(*_: Any, **__: Any) -> Any:
        fleet.ledger.cancel("job")
        deadline = time.monotonic() + 60
        while fleet.ledger.driven("job"):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        meanwhile.append(fleet.drive())
        checkpoint()

    monkeypatch.setattr(drive, "RENEW_S", 0.01)
    monkeypatch.setattr(control, "STUCK_S", 0.05)
    monkeypatch.setattr(planning, "prepare", hangs)
    ended = []
    monkeypatch.setattr(shutdown, "end_stuck_process", lambda: ended.append(True))

    assert fleet.drive() == DriveOutcome(result=Result.ALREADY_ENDED, state=State.CANCELLED)

    assert meanwhile == [DriveOutcome(result=Result.CANCELLED)]
    assert ended
    assert fleet.drives


def test_a_cancelled_job_writes_no_manifest_though_all_objects_are_there(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0])
    fleet.ledger.cancel("job")

    assert fleet.drive() == DriveOutcome(result=Result.CANCELLED)

    assert fleet.status.state is State.CANCELLED
    assert fleet.status.objects_settled == 21
    assert not fleet.published()


def test_a_job_is_cancelled_only_when_nothing_of_it_runs_any_more(fleet: Fleet) -> None:
    fleet.drive()
    message = fleet.message(fleet.queued[0], fleet.queued[0].batches[3])
    fleet.ledger.begin(message, "somebody#1@w")
    fleet.ledger.cancel("job")

    assert fleet.drive() == DriveOutcome(result=Result.CANCELLING, running=1)
    assert (fleet.status.state, fleet.status.cancelling, fleet.drives) == (
        State.COPYING,
        True,
        ["cancelling"],
    )
    fleet.ledger.release(message, "somebody#1@w")

    assert fleet.drive() == DriveOutcome(result=Result.CANCELLED)


def test_a_job_that_is_cancelled_before_its_plan_queues_nothing(fleet: Fleet) -> None:
    fleet.ledger.cancel("job")

    assert fleet.drive() == DriveOutcome(result=Result.ALREADY_ENDED, state=State.CANCELLED)

    assert fleet.queued == []
