"""One orchestrator at a time drives a job."""

from __future__ import annotations

import pytest
import redis

from snapferry.workers.ledger import (
    LEASE_S,
    MAX_DRIVES,
    Ledger,
    State,
)
from tests.unit.ledger.support import JOB, ON_THE_WAY


def test_a_job_is_driven_by_one_and_a_second_one_makes_it_look_again_once(ledger: Ledger) -> None:
    assert ledger.start_driving("job", "one") == 1
    assert (ledger.driver("job"), ledger.driven("job")) == ("one", True)

    assert ledger.start_driving("job", "two") == 0
    assert ledger.start_driving("job", "three") == 0
    assert ledger.driver("job") == "one"

    assert ledger.stop_driving("job", "one")
    assert ledger.driver("job") == "one"
    assert not ledger.stop_driving("job", "one")
    assert (ledger.driver("job"), ledger.driven("job")) == ("", False)
    assert not ledger.neglected("job")[1]
    assert ledger.start_driving("job", "two") == 1


def test_whoever_asks_while_the_driver_looks_again_makes_it_look_once_more(ledger: Ledger) -> None:
    ledger.start_driving("job", "one")
    for _ in range(3):
        assert ledger.start_driving("job", "two") == 0
        assert ledger.stop_driving("job", "one")

    assert not ledger.stop_driving("job", "one")


def test_only_the_driver_parks_a_job(ledger: Ledger) -> None:
    ledger.start_driving("job", "one")

    assert not ledger.stop_driving("job", "two")

    assert ledger.driver("job") == "one"


def test_a_driver_that_fails_does_not_look_again_and_the_next_one_looks_for_all_who_asked(
    ledger: Ledger,
) -> None:
    """Its task comes again by itself; so nobody has to look after the job."""
    ledger.start_driving("job", "one")
    ledger.start_driving("job", "two")

    assert not ledger.stop_driving("job", "one", look_again=False)

    assert (ledger.driven("job"), ledger.neglected("job")[1]) == (False, False)
    assert ledger.start_driving("job", "three") == 1
    assert not ledger.stop_driving("job", "three")


def test_a_job_is_neglected_from_the_death_of_its_driver_until_another_drives_it_to_an_end(
    ledger: Ledger, client: redis.Redis
) -> None:
    assert not ledger.neglected("job")[1]
    ledger.start_driving("job", "one")
    assert not ledger.neglected("job")[1]

    client.delete(f"{JOB}:driver")

    standing, neglected = ledger.neglected("job")
    assert (standing.state, neglected) == (State.COPYING, True)
    assert not ledger.stop_driving("job", "one")
    assert ledger.neglected("job")[1]
    assert ledger.start_driving("job", "two") == 2
    assert not ledger.neglected("job")[1]
    ledger.stop_driving("job", "two")
    assert not ledger.neglected("job")[1]


def test_the_lease_of_a_driver_ends_by_itself_unless_it_is_kept(ledger: Ledger, client: redis.Redis) -> None:
    ledger.start_driving("job", "one")
    assert 0 < client.ttl(f"{JOB}:driver") <= LEASE_S

    client.expire(f"{JOB}:driver", 5)
    ledger.keep_driving("job", "two")
    assert client.ttl(f"{JOB}:driver") <= 5
    ledger.keep_driving("job", "one")
    assert 5 < client.ttl(f"{JOB}:driver") <= LEASE_S

    client.expire(f"{JOB}:driver", 5)
    ledger.start_driving("job", "two")
    assert ledger.stop_driving("job", "one")
    assert 5 < client.ttl(f"{JOB}:driver") <= LEASE_S


@pytest.mark.parametrize("state", ON_THE_WAY)
def test_no_step_of_a_driver_makes_its_lease_longer(
    ledger: Ledger, client: redis.Redis, state: State
) -> None:
    """Were it as long as the job's record, nobody would take over from a driver that died on another machine."""
    ledger.start_driving("job", "one")

    ledger.advance("job", state)
    ledger.set_fields("job", batches_handed=3)
    ledger.note_healing("job", 0, turn=1, batches=1)
    ledger.record_group("job", 0, {0: ["published"]})

    assert 0 < client.ttl(f"{JOB}:driver") <= LEASE_S


def test_a_driver_that_is_known_to_be_dead_is_replaced(ledger: Ledger) -> None:
    ledger.start_driving("job", "dead")

    assert ledger.start_driving("job", "two", instead_of="another") == 0
    assert ledger.start_driving("job", "two", instead_of="dead") == 2

    assert ledger.driver("job") == "two"
    ledger.keep_driving("job", "dead")
    assert not ledger.stop_driving("job", "dead")
    assert ledger.driver("job") == "two"
    assert not ledger.stop_driving("job", "two")


def test_drives_that_never_end_are_counted_and_one_that_ends_wipes_the_slate(ledger: Ledger) -> None:
    dead = ""
    for number in range(MAX_DRIVES + 1):
        holder = f"driver {number}"
        assert ledger.start_driving("job", holder, instead_of=dead) == number + 1
        dead = holder

    ledger.stop_driving("job", dead, look_again=False)

    for _ in range(2 * MAX_DRIVES):
        assert ledger.start_driving("job", "one") == 1
        ledger.stop_driving("job", "one")


def test_being_turned_away_is_no_drive_that_never_ended(ledger: Ledger) -> None:
    ledger.start_driving("job", "one")
    for _ in range(2 * MAX_DRIVES):
        assert ledger.start_driving("job", "two") == 0

    assert ledger.start_driving("job", "three", instead_of="one") == 2
