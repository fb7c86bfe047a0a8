"""The driving of a job from its request to its end."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from snapferry.orchestrator.driving.drive import drive_job
from snapferry.orchestrator.driving.outcome import DriveOutcome, PlanSize, Result
from snapferry.orchestrator.planning import prepare
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from snapferry.stores.runtime.liveness import identity
from snapferry.workers.copying.delivery import run_batch
from snapferry.workers.ledger import MAX_DRIVES, PLAN, State
from snapferry.workers.messages import (
    encode_addresses,
)
from tests.sample import tree

from .fleet import Fleet, snapshots


def test_a_job_is_planned_copied_and_published(fleet: Fleet) -> None:
    assert fleet.drive() == DriveOutcome(planned=PlanSize(1, 21, 20 * 512, 5), queued=5)
    planned = fleet.status
    fleet.copy(fleet.queued[0])
    assert planned.state is State.COPYING
    assert not fleet.published()

    assert fleet.drive() == DriveOutcome(result=Result.DONE, published=1)

    assert fleet.status.state is State.DONE
    assert tree(fleet.destination) == tree(fleet.source)


def test_the_plan_holds_every_object_once(fleet: Fleet) -> None:
    fleet.drive()

    (queued,) = fleet.queued
    addresses = [address for batch in queued.batches for address in batch.objects]
    with open_store(str(fleet.source)).read_manifest(fleet.snapshot) as manifest:
        assert addresses == sorted(manifest.objects())
    assert (fleet.status.objects_total, fleet.status.batches_total) == (21, 5)
    assert (queued.series, queued.turn) == (PLAN, 0)


def test_only_so_many_batches_are_queued_at_once_and_the_rest_follows(fleet: Fleet) -> None:
    fleet.submit(fleet.snapshot, window_batches=2)
    fleet.drive()
    assert [queued.numbers for queued in fleet.queued] == [[0], [1]]

    fleet.copy(fleet.queued[1])
    fleet.drive()
    assert [queued.numbers for queued in fleet.queued] == [[0], [1], [2]]
    fleet.copy(fleet.queued[0])
    fleet.copy_all()

    assert [queued.numbers for queued in fleet.queued] == [[0], [1], [2], [3], [4]]
    assert fleet.status.state is State.DONE


def test_a_drive_that_comes_early_writes_nothing_and_queues_nothing_again(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 3)

    assert fleet.drive() == DriveOutcome()

    assert not fleet.published()
    assert len(fleet.queued) == 1


@pytest.mark.parametrize("times", [2, 3])
def test_a_drive_at_any_time_changes_nothing(fleet: Fleet, times: int) -> None:
    for _ in range(times):
        fleet.drive()
    assert len(fleet.queued) == 1
    fleet.copy(fleet.queued[0])
    fleet.drive()
    ended = fleet.status

    assert fleet.drive() == DriveOutcome(result=Result.ALREADY_ENDED, state=State.DONE)

    assert fleet.status == ended
    assert ended.copied == 21


def test_another_orchestrator_plans_the_same(fleet: Fleet) -> None:
    """What is remembered of a plan is a help and nothing else."""
    ids = snapshots(fleet, 6)
    fleet.submit(*ids, window_batches=2)
    fleet.drive()
    while not fleet.status.state.final:
        prepare.forget("job")
        for queued in list(fleet.queued):
            fleet.copy(queued)
        fleet.drive()

    assert fleet.status.state is State.DONE
    assert fleet.published() == sorted(ids)
    assert fleet.status.copied == fleet.status.objects_total == 21 + 6 * 4


def test_a_retry_copies_just_what_failed_and_publishes_what_becomes_whole(fleet: Fleet) -> None:
    ids = snapshots(fleet, 5)
    bad = [random.Random(1000 + n).randbytes(100 + n) for n in (1, 3)]
    for data in bad:
        fleet.remove(digest(data), at=fleet.source)
    fleet.submit(*ids)
    fleet.copy_all()
    assert fleet.status.snapshots_failed == 2
    for data in bad:
        open_store(str(fleet.source)).put_object(digest(data), data)
    first = fleet.spec
    retry = first.model_copy(
        update={"job_id": "again", "retries": "job", "snapshots": encode_addresses([ids[1], ids[3]])}
    )
    fleet.ledger.create(retry)
    app: Any = None

    drive_job(app, fleet.ledger, "again")
    (queued,) = fleet.queued[-1:]
    assert sorted(a for batch in queued.batches for a in batch.objects) == sorted(map(digest, bad))
    for batch in queued.batches:
        message = fleet.message(queued, batch).model_copy(update={"job_id": "again"})
        task: Any = SimpleNamespace(request=SimpleNamespace(retries=0, hostname="w"))
        run_batch(task, message, fleet.ledger)
    drive_job(app, fleet.ledger, "again")

    assert fleet.ledger.status("again").state is State.DONE
    assert fleet.ledger.status("again").objects_total == 2
    assert fleet.published() == sorted(ids)


def test_what_is_present_is_not_copied_again_but_looked_at(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 1)
    fleet.submit(fleet.snapshot)

    fleet.copy_all()

    assert (fleet.status.copied, fleet.status.present) == (11, 10)
    assert fleet.status.state is State.DONE


def test_a_drive_while_another_runs_is_left_to_that_one_and_made_up_for(fleet: Fleet) -> None:
    fleet.drive()
    assert fleet.ledger.start_driving("job", f"{identity()}#another") == 1
    fleet.copy(fleet.queued[0])

    assert fleet.drive() == DriveOutcome(result=Result.BUSY)
    assert not fleet.published()

    assert fleet.ledger.stop_driving("job", f"{identity()}#another"), "it is told to look again"


def test_the_place_of_an_orchestrator_that_died_on_this_machine_is_taken_at_once(fleet: Fleet) -> None:
    machine = identity().split("-")[0]
    fleet.ledger.start_driving("job", f"{machine}-999999999-abc#1")

    assert fleet.drive().queued == 5


def test_a_job_that_takes_its_orchestrators_down_is_given_up(fleet: Fleet) -> None:
    machine = identity().split("-")[0]
    for number in range(MAX_DRIVES):
        fleet.ledger.start_driving(
            "job", f"{machine}-999999999-abc#{number}", instead_of=fleet.ledger.driver("job")
        )

    outcome = fleet.drive()

    assert outcome == DriveOutcome(result=Result.FAILED, reason=fleet.status.error)
    assert fleet.status.state is State.FAILED
    assert f"its orchestrator died {MAX_DRIVES} times" in fleet.status.error
    assert fleet.queued == []
