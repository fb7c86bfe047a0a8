"""States of a job: none goes back, and a final state stays."""

from __future__ import annotations

import pytest
import redis

from snapferry.workers.ledger import (
    Begun,
    Ledger,
    State,
)
from tests.unit.ledger.support import (
    FINAL,
    HEAL_NONE,
    ON_THE_WAY,
    ONE,
    THREE,
    TWO,
    deliver,
    found_missing,
    objects_in,
    outcome,
    request,
)


def test_a_cancel_is_seen_by_every_worker_and_does_not_end_a_job_that_was_begun(ledger: Ledger) -> None:
    assert not ledger.status("job").cancelling
    assert not ledger.progress(TWO, "one", objects=1, size_bytes=1)

    assert ledger.cancel("job") is State.COPYING
    assert ledger.cancel("job") is State.COPYING

    assert ledger.status("job").cancelling
    assert ledger.begin(TWO, "one") == Begun(stopped=True)
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert deliver(ledger, TWO)
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert ledger.status("job").state is State.COPYING
    assert ledger.open_jobs() == ["job"]


@pytest.mark.parametrize("paused", [False, True])
def test_a_job_that_nobody_began_is_cancelled_at_once(client: redis.Redis, paused: bool) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())
    ledger.pause("job", paused=paused)

    assert ledger.cancel("job") is State.CANCELLED

    status = ledger.status("job")
    assert status.state is State.CANCELLED
    assert status.ended_at >= status.submitted_at
    assert ledger.open_jobs() == []
    assert list(ledger.job_ids()) == ["job"]
    assert not ledger.advance("job", State.PLANNING)


@pytest.mark.parametrize("state", ON_THE_WAY)
def test_a_job_that_was_begun_is_only_asked_to_stop(client: redis.Redis, state: State) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())
    ledger.advance("job", state)

    assert ledger.cancel("job") is state
    assert ledger.status("job").ended_at == 0.0
    assert ledger.advance("job", State.CANCELLED)


@pytest.mark.parametrize("final", FINAL)
def test_a_job_that_has_ended_is_not_cancelled(ledger: Ledger, final: State) -> None:
    ledger.advance("job", final)
    ended = ledger.status("job")

    assert ledger.cancel("job") is final

    assert ledger.status("job") == ended


@pytest.mark.parametrize("final", FINAL)
def test_a_job_that_has_ended_wants_no_more_work_and_counts_none(ledger: Ledger, final: State) -> None:
    ledger.begin(TWO, "one")
    ledger.begin(THREE, "two")
    found_missing(ledger, TWO, [0, 1])
    ledger.progress(THREE, "two", objects=1, size_bytes=1)
    ledger.advance("job", final)
    ended = ledger.status("job")

    assert ledger.begin(ONE, "one") == Begun(stopped=True)
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert ledger.progress(THREE, "two", objects=3, size_bytes=6)
    assert not ledger.account(TWO, outcome(TWO, [0, 1], failed=[1]))
    assert not ledger.account(HEAL_NONE, outcome(HEAL_NONE, [0], failed=[0]))
    assert not ledger.set_fields("job", published=7)

    assert ledger.status("job") == ended
    assert (ledger.failures("job"), objects_in(ledger, "failed"), ledger.failed_by_class("job")) == (
        [],
        [],
        {},
    )


@pytest.mark.parametrize("final", FINAL)
def test_a_final_state_stays_with_its_reason_and_its_time(ledger: Ledger, final: State) -> None:
    assert ledger.advance("job", final, error="the reason")
    ended = ledger.status("job")

    for state in State:
        assert not ledger.advance("job", state, error="another reason", started_at=1.0, objects_total=99)

    assert ledger.status("job") == ended
    assert (ended.state, ended.error) == (final, "the reason")
    assert ended.ended_at >= ended.submitted_at


def test_a_step_that_comes_late_does_not_move_a_job_back(ledger: Ledger) -> None:
    assert ledger.advance("job", State.PLANNING, objects_total=99)
    assert ledger.advance("job", State.QUEUED, objects_total=99)
    status = ledger.status("job")

    assert status.state is State.COPYING
    assert status.objects_total == 6


def test_a_job_begins_when_it_is_first_planned(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())

    ledger.advance("job", State.PLANNING)
    began = ledger.status("job").started_at
    ledger.advance("job", State.PLANNING)

    assert began >= ledger.status("job").submitted_at
    assert ledger.status("job").started_at == began


def test_a_job_goes_back_from_committing_to_copying_to_heal_and_no_further(ledger: Ledger) -> None:
    ledger.advance("job", State.COMMITTING)
    ledger.advance("job", State.PLANNING)
    assert ledger.status("job").state is State.COMMITTING

    ledger.advance("job", State.COPYING)
    assert ledger.status("job").state is State.COPYING
