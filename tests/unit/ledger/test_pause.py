"""Paused jobs: their batches are held until the job is resumed."""

from __future__ import annotations

import json
import time

import pytest
import redis

from snapferry.workers.ledger import (
    Begun,
    Directive,
    Ledger,
    State,
)
from tests.unit.ledger.support import FINAL, HEAL_NONE, JOB, THREE, TWO, deliver, settled


def test_a_batch_of_a_paused_job_is_not_begun_and_is_held(ledger: Ledger) -> None:
    assert ledger.pause("job", paused=True) is State.COPYING

    assert ledger.begin(TWO, "one") == Begun(paused=True)
    assert ledger.begin(TWO, "two") == Begun(paused=True)
    assert ledger.begin(HEAL_NONE, "one") == Begun(paused=True)

    standing = ledger.standing("job")
    assert ledger.status("job").paused
    assert standing.paused
    assert sorted(standing.held) == ["heal-0-1:0", "plan:0"]
    assert (standing.leased, standing.running, standing.expired) == (0, 0, ())


def test_what_runs_when_a_job_is_paused_is_accounted_for(ledger: Ledger) -> None:
    ledger.begin(TWO, "one")
    ledger.pause("job", paused=True)

    assert ledger.progress(TWO, "one", objects=1, size_bytes=2) is Directive.HOLD
    assert deliver(ledger, TWO)
    ledger.release(TWO, "one")

    assert settled(ledger.status("job")) == (2, 5)
    assert (ledger.standing("job").held, ledger.standing("job").leased) == ((), 0)
    assert ledger.begin(TWO, "two") == Begun(accounted=True)


def test_a_batch_that_another_runs_when_its_job_is_paused_is_not_held_as_well(ledger: Ledger) -> None:
    """A second delivery of it: were it held, it would be handed out again although it runs."""
    ledger.begin(TWO, "one")
    ledger.pause("job", paused=True)

    begun = ledger.begin(TWO, "two")

    assert ledger.standing("job").held == ()
    assert begun == Begun(holder="one")


def test_a_job_that_goes_on_begins_its_batches_and_holds_them_no_longer(ledger: Ledger) -> None:
    ledger.pause("job", paused=True)
    ledger.pause("job", paused=True)
    ledger.begin(TWO, "one")
    ledger.begin(THREE, "one")

    assert ledger.pause("job", paused=False) is State.COPYING

    assert not ledger.status("job").paused
    assert sorted(ledger.standing("job").held) == ["plan:0", "plan:1"]
    assert ledger.begin(TWO, "one") == Begun(times=1)
    assert ledger.standing("job").held == ("plan:1",)
    ledger.note_requeued("job", ["plan:1"])
    assert ledger.standing("job").held == ()


def begun(client: redis.Redis, seconds: float, **fields: float) -> None:
    """Let the pause, and what moved last, be so many *seconds* ago, and other *fields* of the record as well."""
    for name, before in {"paused_at": seconds, "moved_at": seconds, **fields}.items():
        client.hset(JOB, name, time.time() - before)


def test_the_time_of_pauses_adds_up_from_the_start_of_the_job(ledger: Ledger, client: redis.Redis) -> None:
    ledger.pause("job", paused=True)
    assert ledger.status("job").halted_at == pytest.approx(time.time(), abs=5)
    # A second request does not begin another pause.
    begun(client, 100, started_at=40)
    ledger.pause("job", paused=True)
    assert ledger.status("job").halted_at == pytest.approx(time.time() - 100, abs=5)
    ledger.pause("job", paused=False)
    status = ledger.status("job")
    assert (status.paused, status.halted_at) == (False, 0.0)
    assert status.halted_s == pytest.approx(40, abs=5)

    ledger.pause("job", paused=True)
    begun(client, 20)
    ledger.pause("job", paused=False)
    ledger.pause("job", paused=False)
    assert ledger.status("job").halted_s == pytest.approx(60, abs=5)


def test_a_pause_before_the_start_of_a_job_does_not_count(ledger: Ledger, client: redis.Redis) -> None:
    client.hdel(JOB, "started_at")
    ledger.pause("job", paused=True)
    begun(client, 100)

    ledger.pause("job", paused=False)

    assert ledger.status("job").halted_s == pytest.approx(0, abs=5)


def test_what_is_in_flight_when_a_job_is_paused_counts_as_running(
    ledger: Ledger, client: redis.Redis
) -> None:
    ledger.begin(TWO, "one")
    ledger.pause("job", paused=True)
    begun(client, 100, started_at=110)

    ledger.progress(TWO, "one", objects=1, size_bytes=2)

    assert ledger.status("job").halted_at == pytest.approx(time.time(), abs=5)
    ledger.pause("job", paused=False)
    assert ledger.status("job").halted_s == pytest.approx(0, abs=5)


@pytest.mark.parametrize("outdated", [{}, {"paused_at": 900.0}])
def test_the_time_of_a_pause_by_an_earlier_version_is_known(
    ledger: Ledger, client: redis.Redis, outdated: dict[str, float]
) -> None:
    """It notes only that the job is paused, and when the record changed. What it resumes keeps the time of a pause."""
    client.hdel(JOB, "paused_at")
    now = time.time()
    client.hset(JOB, mapping={"paused": "1", "moved_at": now - 30, "started_at": now - 1000})
    for name, ago in outdated.items():
        client.hset(JOB, name, now - ago)

    assert ledger.status("job").halted_at == pytest.approx(now - 30, abs=5)
    ledger.pause("job", paused=False)
    assert ledger.status("job").halted_s == pytest.approx(30, abs=5)


@pytest.mark.parametrize("field", ["waits", "step_waits"])
def test_a_wait_that_a_pause_ends_does_not_count_against_the_speed_either(
    ledger: Ledger, client: redis.Redis, field: str
) -> None:
    ledger.pause("job", paused=True)
    begun(client, 10, started_at=100)
    record = {"store": "s3://b", "reason": "no answer", "since": time.time() - 60}
    client.hset(JOB, field, json.dumps(record))
    assert ledger.status("job").halted_at == pytest.approx(time.time() - 60, abs=5)

    ledger.pause("job", paused=False)

    status = ledger.status("job")
    assert (status.waiting, status.halted_at) == (None, 0.0)
    assert status.halted_s == pytest.approx(60, abs=5)


@pytest.mark.parametrize("damaged", ["", "[]", "3", "{", '{"since": "x"}', '{"since": null}'])
def test_a_job_with_a_damaged_wait_can_be_resumed(ledger: Ledger, client: redis.Redis, damaged: str) -> None:
    ledger.pause("job", paused=True)
    begun(client, 10, started_at=100)
    client.hset(JOB, mapping={"waits": damaged, "step_waits": damaged})

    ledger.pause("job", paused=False)

    assert not ledger.status("job").paused
    assert ledger.status("job").halted_s == pytest.approx(10, abs=5)


def test_a_paused_job_can_be_cancelled(ledger: Ledger) -> None:
    ledger.pause("job", paused=True)

    ledger.cancel("job")

    assert ledger.begin(TWO, "one") == Begun(stopped=True)
    assert ledger.standing("job").held == ()


@pytest.mark.parametrize("final", FINAL)
@pytest.mark.parametrize("paused", [True, False])
def test_a_job_that_has_ended_is_not_paused_any_more(ledger: Ledger, final: State, paused: bool) -> None:
    ledger.pause("job", paused=not paused)
    ledger.advance("job", final)
    ended = ledger.status("job")

    assert ledger.pause("job", paused=paused) is final

    assert ledger.status("job") == ended
