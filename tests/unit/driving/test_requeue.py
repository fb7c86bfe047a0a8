"""Lost batches are queued again, a bounded number of times."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.driving.outcome import DriveOutcome, Result
from snapferry.orchestrator.driving.steps.requeue import MAX_STALLS, STALL_S
from snapferry.workers.copying.delivery import MAX_STARTS
from snapferry.workers.ledger import GRACE_S, PLAN, State
from snapferry.workers.queues import parking_queue
from snapferry.workers.reachability.parked_jobs import ParkedJobs

from .fleet import Fleet, QueuedBatches


def test_batches_that_are_nowhere_are_queued_again_exactly(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 3)
    fleet.let_time_pass(STALL_S + 1)

    assert fleet.drive() == DriveOutcome(requeued=3)

    again = fleet.queued[1]
    assert (again.series, again.numbers) == (PLAN, [1, 2, 4])
    assert again.batches == [fleet.queued[0].batches[number] for number in (1, 2, 4)]
    fleet.copy(again)
    assert fleet.drive() == DriveOutcome(result=Result.DONE, published=1)


def test_a_batch_whose_worker_died_is_queued_again_as_soon_as_its_lease_is_over(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 1, 2)
    fleet.ledger.begin(fleet.message(fleet.queued[0], fleet.queued[0].batches[3]), "dead#1@w")
    assert fleet.drive() == DriveOutcome()
    fleet.ledger._redis.zadd("snapferry:job:job:leases", {"plan:3": 1})

    assert fleet.drive() == DriveOutcome(requeued=1)
    assert fleet.drive() == DriveOutcome()

    assert fleet.queued[1].numbers == [3]


def test_a_parked_batch_whose_queue_no_worker_knows_is_found_by_the_workers_again(fleet: Fleet) -> None:
    """A failover of Redis lost the record of the queue, which was written before the message."""
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 1, 2, 3)
    fleet.ledger.client.lpush(parking_queue("", "job"), '{"headers": {"root_id": "job"}}')
    fleet.let_time_pass(STALL_S + 1)

    for _ in range(2):
        assert fleet.drive() == DriveOutcome()

    (parked,) = ParkedJobs(fleet.ledger.client).all()
    assert (parked.job_id, parked.queue) == ("job", "")
    assert (parked.source, parked.destination) == (fleet.spec.source, fleet.spec.destination)


def test_what_is_left_in_the_parking_queue_of_an_ended_job_is_removed(fleet: Fleet) -> None:
    queue = parking_queue("", "job")
    fleet.drive()
    fleet.ledger.client.lpush(queue, '{"headers": {"root_id": "job"}}')

    fleet.copy(fleet.queued[0])
    assert fleet.drive().result is Result.DONE

    assert ParkedJobs(fleet.ledger.client).unparked_queues(60) == [queue]


def test_a_batch_that_waits_for_its_retry_is_not_lost(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 1, 2, 3)
    fleet.ledger.note_retry("job", "plan:4", 60)
    fleet.let_time_pass(STALL_S + 1)

    assert fleet.drive() == DriveOutcome()


def test_a_batch_that_nobody_tries_again_is_queued_again_a_bounded_number_of_times(
    fleet: Fleet,
) -> None:
    """Its worker gave it back to be tried again, and the message is lost; or no worker can read it."""
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 1, 2, 3)
    for _ in range(MAX_STALLS):
        fleet.ledger.note_retry("job", "plan:4", 10)
        fleet.let_time_pass(10 + GRACE_S + 1)
        assert fleet.drive() == DriveOutcome(requeued=1)
        assert fleet.queued[-1].numbers == [4]
    fleet.ledger.note_retry("job", "plan:4", 10)
    fleet.let_time_pass(10 + GRACE_S + 1)

    outcome = fleet.drive()

    assert (outcome.result, outcome.abandoned, outcome.unpublished) == (Result.FAILED, 1, 1)

    assert fleet.status.state is State.FAILED
    assert fleet.status.failed == len(fleet.queued[0].batches[4].objects)


def test_batches_that_never_end_end_the_job(fleet: Fleet) -> None:
    fleet.drive()
    for _ in range(MAX_STALLS):
        fleet.let_time_pass(STALL_S + 1)
        assert fleet.drive() == DriveOutcome(requeued=5)
    assert len(fleet.queued) == 1 + MAX_STALLS

    fleet.let_time_pass(STALL_S + 1)
    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.failed == fleet.status.objects_settled == fleet.status.objects_total
    reason = f"its batch was queued {1 + MAX_STALLS} times and no worker began it; see the workers' logs"
    assert {failed.failure.detail for failed in fleet.ledger.failures("job")} == {reason}
    assert not fleet.published()


def test_a_stall_after_some_progress_is_counted_from_one(fleet: Fleet) -> None:
    """A fleet that is killed over and over, and gets one batch done each time, comes to the end all the same."""
    fleet.submit(fleet.snapshot, batch_objects=1)
    fleet.drive()
    turns = 0
    while not fleet.published():
        turns += 1
        assert turns <= 22
        fleet.copy(QueuedBatches(PLAN, 0, fleet.queued[-1].batches[:1]))
        fleet.let_time_pass(STALL_S + 1)
        fleet.drive()

    assert turns == 21 > MAX_STALLS


@pytest.mark.parametrize("times", [1, 7])
def test_a_worker_that_dies_in_its_batch_is_no_stall(fleet: Fleet, times: int) -> None:
    """Its lease runs out after as long as it takes to believe that nothing of a job moves."""
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 1, 2, 3)
    last = fleet.message(fleet.queued[0], fleet.queued[0].batches[4])
    for turn in range(times):
        fleet.ledger.begin(last, f"dead#{turn}@w")
        fleet.let_time_pass(STALL_S + 1)
        assert fleet.drive() == DriveOutcome(requeued=1)

    assert fleet.ledger.standing("job").stalls == 0
    fleet.copy(fleet.queued[0], 4)
    assert fleet.drive() == DriveOutcome(result=Result.DONE, published=1)


def test_a_batch_that_ends_every_worker_is_given_up(fleet: Fleet) -> None:
    """Even the worker that would give it up."""
    fleet.drive()
    fleet.copy(fleet.queued[0], 0, 1, 2, 3)
    last = fleet.message(fleet.queued[0], fleet.queued[0].batches[4])
    for turn in range(MAX_STARTS + 2):
        fleet.ledger.begin(last, f"dead#{turn}@w", instead_of=f"dead#{turn - 1}@w")
    fleet.let_time_pass(STALL_S + 1)

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.failed == len(last.sizes)
