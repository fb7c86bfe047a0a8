"""Leases of batches: one holder at a time."""

from __future__ import annotations

import time

import pytest
import redis

from snapferry.workers.ledger import (
    GRACE_S,
    LEASE_S,
    Begun,
    Ledger,
    State,
)
from tests.unit.ledger.support import HEAL_NONE, JOB, ONE, THREE, TWO, deliver, lease_of, run_out


def test_begins_are_counted_until_the_batch_is_accounted_for(ledger: Ledger) -> None:
    """Each beginning is that of a worker whose predecessor is known to be dead."""
    holders = ["one", "two", "three"]
    times = [
        ledger.begin(TWO, holder, instead_of=dead).times
        for holder, dead in zip(holders, ["", *holders], strict=False)
    ]
    assert times == [1, 2, 3]
    assert ledger.begin(THREE, "one").times == 1
    assert not ledger.begin(HEAL_NONE, "one").accounted

    deliver(ledger, TWO)

    assert ledger.begin(TWO, "one") == Begun(accounted=True)
    assert not ledger.begin(THREE, "one").accounted


def test_a_batch_that_is_begun_belongs_to_its_holder_and_to_no_one_else(ledger: Ledger) -> None:
    assert ledger.begin(TWO, "one") == Begun(times=1)

    assert ledger.begin(TWO, "two") == Begun(holder="one")
    assert ledger.begin(TWO, "two", instead_of="three").holder == "one"
    assert ledger.begin(THREE, "two").holder == ""
    assert ledger.begin(HEAL_NONE, "two").holder == ""


def test_the_lease_of_a_dead_holder_is_taken_over_and_its_beginning_stays_counted(ledger: Ledger) -> None:
    ledger.begin(TWO, "dead")

    assert ledger.begin(TWO, "two", instead_of="dead") == Begun(times=2)

    assert ledger.begin(TWO, "three", instead_of="dead").holder == "two"


def test_a_beginning_whose_answer_was_lost_and_is_asked_for_again_counts_once(ledger: Ledger) -> None:
    for _ in range(20):
        assert ledger.begin(TWO, "one").times == 1
    ledger.release(TWO, "one")

    assert ledger.begin(TWO, "two").times == 1


def test_a_lease_that_is_given_back_leaves_no_beginning_behind(ledger: Ledger) -> None:
    for holder in ("one", "two", "three"):
        assert ledger.begin(TWO, holder).times == 1
        ledger.release(TWO, holder)


def test_only_the_holder_can_give_a_lease_back_and_only_once(ledger: Ledger) -> None:
    ledger.begin(TWO, "dead")
    ledger.begin(TWO, "one", instead_of="dead")

    ledger.release(TWO, "dead")
    ledger.release(TWO, "dead", again_in_s=8)
    assert ledger.begin(TWO, "two").holder == "one"
    ledger.release(TWO, "one")
    ledger.release(TWO, "one")

    assert ledger.begin(TWO, "two").times == 2


def test_a_lease_runs_out_unless_its_holder_reports(ledger: Ledger, client: redis.Redis) -> None:
    ledger.begin(TWO, "one")
    assert LEASE_S - 5 < lease_of(ledger) <= LEASE_S

    client.zadd(f"{JOB}:leases", {"plan:0": time.time() + 5})
    ledger.progress(TWO, "another", objects=0, size_bytes=0)
    assert lease_of(ledger) <= 5
    ledger.progress(TWO, "one", objects=0, size_bytes=0)
    assert LEASE_S - 5 < lease_of(ledger) <= LEASE_S

    run_out(ledger, "plan:0")
    assert ledger.standing("job").expired == ("plan:0",)
    assert ledger.begin(TWO, "two").times == 2
    ledger.progress(TWO, "one", objects=0, size_bytes=0)
    ledger.release(TWO, "one")
    assert ledger.begin(TWO, "three").holder == "two"
    assert ledger.standing("job").expired == ()


def test_a_report_does_not_give_a_lease_to_a_batch_that_has_none(ledger: Ledger) -> None:
    ledger.progress(TWO, "one", objects=1, size_bytes=1)

    assert (ledger.standing("job").leased, ledger.standing("job").expired) == (0, ())


def test_a_batch_that_waits_for_its_retry_is_leased_to_nobody_and_anybody_may_begin_it(
    ledger: Ledger,
) -> None:
    ledger.begin(TWO, "one")
    ledger.release(TWO, "one", again_in_s=8)

    standing = ledger.standing("job")
    assert (standing.leased, standing.running, standing.expired) == (1, 0, ())
    assert 8 + GRACE_S - 5 < lease_of(ledger) <= 8 + GRACE_S
    assert ledger.status("job").workers == ()
    assert ledger.begin(TWO, "two") == Begun(times=1)
    assert (ledger.standing("job").leased, ledger.standing("job").running) == (1, 1)
    assert ledger.begin(TWO, "three").holder == "two"


def test_a_batch_whose_next_try_never_came_is_overdue_and_its_worker_is_not_taken_for_dead(
    ledger: Ledger,
) -> None:
    ledger.begin(TWO, "one")
    ledger.release(TWO, "one", again_in_s=8)
    ledger.note_retry("job", "plan:1", 8)
    ledger.begin(ONE, "dead")
    run_out(ledger, "plan:0", "plan:1", "plan:2")

    standing = ledger.standing("job")

    assert (standing.expired, sorted(standing.overdue)) == (("plan:2",), ["plan:0", "plan:1"])
    assert (standing.leased, standing.running) == (0, 0)
    assert ledger.begin(TWO, "two") == Begun(times=1)
    ledger.note_requeued("job", ["plan:1", "plan:2"])
    assert (ledger.standing("job").expired, ledger.standing("job").overdue) == ((), ())


def test_a_batch_that_nobody_can_run_waits_without_having_been_begun(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.note_retry("job", "plan:0", 10)

        standing = ledger.standing("job")
        assert (standing.leased, standing.running, standing.expired) == (1, 0, ())
        assert 10 + GRACE_S - 5 < lease_of(ledger) <= 10 + GRACE_S
        ledger.client.zadd(f"{JOB}:leases", {"plan:0": time.time() + 1})

    assert ledger.begin(TWO, "one") == Begun(times=1)


def test_waiting_takes_no_lease_away_from_its_holder(ledger: Ledger) -> None:
    ledger.begin(TWO, "one")

    ledger.note_retry("job", "plan:0", 1000)

    assert lease_of(ledger) <= LEASE_S
    assert ledger.begin(TWO, "two").holder == "one"


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_a_job_that_wants_no_more_work_has_nothing_to_wait_for(ledger: Ledger, how: str) -> None:
    ledger.cancel("job")
    if how == "failed":
        ledger.advance("job", State.FAILED)

    ledger.note_retry("job", "plan:0", 10)

    assert ledger.standing("job").leased == 0


def test_a_worker_that_was_ended_holds_no_lease_and_its_start_says_nothing_about_the_batch(
    ledger: Ledger,
) -> None:
    ledger.begin(TWO, "here-1-a#0@one@host")

    ledger.revoke_lease("job", "plan:0", "two@host")
    assert ledger.begin(TWO, "another").holder == "here-1-a#0@one@host", "it is not that worker's"

    ledger.revoke_lease("job", "plan:0", "one@host")
    assert ledger.standing("job").expired == ("plan:0",)
    ledger.revoke_lease("job", "plan:0", "one@host")
    begun = ledger.begin(TWO, "another")
    assert (begun.times, begun.lost) == (1, 1)
    assert begun.interrupted, "what it left at the destination is looked for"
    ledger.revoke_lease("job", "plan:0", "one@host")
    assert ledger.standing("job").running == 1
    ledger.revoke_lease("job", "plan:7", "one@host")
    assert ledger.standing("job").running == 1


def test_a_worker_that_is_being_killed_cannot_renew_a_lease_that_is_over(ledger: Ledger) -> None:
    """A thread of it may beat once more before the process is gone."""
    ledger.begin(TWO, "here-1-a#0@one@host")
    ledger.revoke_lease("job", "plan:0", "one@host")

    ledger.progress(TWO, "here-1-a#0@one@host", objects=1, size_bytes=1)

    assert ledger.standing("job").expired == ("plan:0",)
    ledger.release(TWO, "here-1-a#0@one@host")
    assert ledger.begin(TWO, "another").interrupted, "what it left at the destination is looked for"
