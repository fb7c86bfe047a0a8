"""What the next step of a job depends on."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import redis

from snapferry.workers.ledger import (
    Begun,
    Ledger,
    State,
)
from tests.unit.ledger.support import (
    HEAL_NONE,
    JOB,
    ONE,
    THREE,
    TWO,
    batch,
    deliver,
    outcome,
    request,
    run_out,
)


def test_the_standing_of_a_job_is_all_that_its_next_step_depends_on(ledger: Ledger) -> None:
    for message in (TWO, THREE, ONE, HEAL_NONE):
        ledger.begin(message, f"{message.series} {message.number}")
    ledger.release(THREE, "plan 1", again_in_s=4)
    deliver(ledger, ONE, failed=[0])
    ledger.release(ONE, "plan 2")
    run_out(ledger, "plan:0")
    ledger.note_healing("job", 0, turn=1, batches=2)
    ledger.note_healing("job", 3, turn=1, batches=5)
    ledger.note_healing("job", 3, turn=2, batches=1)
    ledger.set_fields("job", stalls=2, stalled_done=1)
    ledger.pause("job", paused=True)
    ledger.begin(batch(4, 1), "x")
    ledger.cancel("job")

    standing = ledger.standing("job")

    assert (standing.state, standing.paused, standing.cancelling) == (State.COPYING, True, True)
    assert (standing.handed, standing.done, standing.failed) == (3, 1, 1)
    assert (standing.expired, standing.overdue, standing.held) == (("plan:0",), (), ("plan:4",))
    assert (standing.leased, standing.running) == (2, 1)
    assert standing.heals == {0: (1, 2), 3: (2, 1)}
    assert (standing.stalls, standing.stalled_done) == (2, 1)


def test_a_new_job_stands_at_nothing(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())

    standing, neglected = ledger.neglected("job")

    assert (standing.state, standing.paused, standing.cancelling, neglected) == (
        State.QUEUED, False, False, False,
    )  # fmt: skip
    assert (standing.handed, standing.done, standing.failed, standing.leased, standing.running) == (0,) * 5
    assert (standing.expired, standing.overdue, standing.held, standing.heals) == ((), (), (), {})


MOVES: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.begin(TWO, "one"),
    lambda ledger: ledger.progress(THREE, "two", objects=2, size_bytes=1),
    lambda ledger: ledger.account(TWO, outcome(TWO, [])),
    lambda ledger: ledger.advance("job", State.COMMITTING),
    lambda ledger: ledger.set_fields("job", batches_handed=3),
    lambda ledger: ledger.pause("job", paused=True),
    lambda ledger: ledger.note_requeued("job", ["plan:0"]),
]

STANDS_STILL: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.begin(THREE, "another"),
    lambda ledger: ledger.progress(THREE, "two", objects=1, size_bytes=1),
    lambda ledger: ledger.account(ONE, outcome(ONE, [])),
    lambda ledger: ledger.status("job"),
    lambda ledger: ledger.start_driving("job", "me"),
]


@pytest.mark.parametrize(
    ("step", "moves"), [*((s, True) for s in MOVES), *((s, False) for s in STANDS_STILL)]
)
def test_a_job_is_idle_for_as_long_as_nothing_of_it_moves(
    ledger: Ledger, client: redis.Redis, step: Callable[[Ledger], object], moves: bool
) -> None:
    """A heart that beats is no movement: a lease says that a batch runs."""
    ledger.begin(THREE, "two")
    ledger.progress(THREE, "two", objects=1, size_bytes=1)
    deliver(ledger, ONE)
    client.hset(JOB, "moved_at", repr(time.time() - 1000))
    assert 999 < ledger.standing("job").idle_s < 1100

    step(ledger)

    assert (ledger.standing("job").idle_s < 100) == moves
    assert (ledger.status("job").moved_at > time.time() - 100) == moves


def test_batches_that_are_handed_out_again_have_neither_a_lease_nor_are_they_held(ledger: Ledger) -> None:
    ledger.begin(TWO, "dead")
    ledger.note_retry("job", "plan:2", 10)
    run_out(ledger, "plan:0", "plan:2")
    ledger.pause("job", paused=True)
    ledger.begin(THREE, "one")
    ledger.begin(batch(3, 1), "one")
    ledger.pause("job", paused=False)

    ledger.note_requeued("job", ["plan:0", "plan:1", "plan:2"])
    ledger.note_requeued("job", [])

    standing = ledger.standing("job")
    assert (standing.expired, standing.overdue, standing.held) == ((), (), ("plan:3",))
    assert standing.leased == 0
    assert ledger.begin(TWO, "one") == Begun(times=2)


def test_a_batch_that_was_begun_between_its_hand_out_and_the_note_of_it_keeps_its_lease(
    ledger: Ledger,
) -> None:
    """Batches are queued first and noted then: an idle worker begins one before its hand-out is noted."""
    ledger.begin(TWO, "dead")
    run_out(ledger, "plan:0")
    ledger.begin(TWO, "one")

    ledger.note_requeued("job", ["plan:0"])

    assert ledger.standing("job").running == 1
    assert ledger.begin(TWO, "two").holder == "one"
