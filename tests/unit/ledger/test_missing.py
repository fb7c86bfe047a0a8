"""Objects that runs of a batch found missing, and objects that could not be copied."""

from __future__ import annotations

import pytest
import redis

from snapferry.workers.ledger import (
    Ledger,
)
from tests.unit.ledger.support import JOB, THREE, batch, counts, deliver, found_missing, objects_in, outcome


@pytest.mark.parametrize("needed", [[], [1], [0, 1, 2]])
def test_an_object_that_could_not_be_healed_is_failed_and_no_longer_copied_or_present(
    ledger: Ledger, needed: list[int]
) -> None:
    deliver(ledger, THREE, needed)

    heal = batch(0, 2, 3, series="heal-0-1", at=[3, 4])
    deliver(ledger, heal, failed=[0, 1])

    status = ledger.status("job")
    assert counts(status) == (len(set(needed) - {1, 2}), 1 - len(set(needed) - {1, 2}), 2)
    assert objects_in(ledger, "failed") == [3, 4]
    assert objects_in(ledger, "copied") == [2 + at for at in needed if at == 0]


def test_an_object_that_fails_in_several_turns_of_healing_is_one_failed_object(ledger: Ledger) -> None:
    deliver(ledger, THREE)

    for turn in (1, 2, 3):
        deliver(ledger, batch(0, 2, 3, series=f"heal-0-{turn}", at=[3, 4]), failed=[1])

    status = ledger.status("job")
    assert (counts(status), status.healed) == ((2, 0, 1), 3)
    assert ledger.failed_by_class("job") == {"ObjectMissing": 1}


def test_what_another_delivery_copied_counts_as_copied_though_this_one_found_it_present(
    ledger: Ledger,
) -> None:
    """The first delivery copied two of three objects and died; the second found those and copied the third."""
    found_missing(ledger, THREE, [0, 1, 2])
    found_missing(ledger, THREE, [2])

    ledger.account(THREE, outcome(THREE, needed=[2]))

    status = ledger.status("job")
    assert counts(status) == (3, 0, 0)
    assert status.bytes_copied == 6


def test_what_several_deliveries_found_missing_is_counted_object_by_object(ledger: Ledger) -> None:
    """Two of them found one object missing each, and not the same one: that makes two copied, not one."""
    found_missing(ledger, THREE, [0])
    found_missing(ledger, THREE, [2])
    found_missing(ledger, THREE, [2, 0])

    ledger.account(THREE, outcome(THREE, needed=[]))

    status = ledger.status("job")
    assert (counts(status), objects_in(ledger, "copied")) == ((2, 1, 0), [2, 4])
    assert status.bytes_copied == 1 + 3


def test_what_an_earlier_delivery_found_missing_and_the_last_one_cannot_copy_is_failed(
    ledger: Ledger,
) -> None:
    found_missing(ledger, THREE, [0, 1])

    deliver(ledger, THREE, needed=[1, 2], failed=[1, 2])

    assert (counts(ledger.status("job")), objects_in(ledger, "copied")) == ((1, 0, 2), [2])
    assert objects_in(ledger, "failed") == [3, 4]


def test_a_batch_that_found_all_present_and_was_delivered_once_copied_nothing(ledger: Ledger) -> None:
    deliver(ledger, THREE, needed=[])

    assert (counts(ledger.status("job")), objects_in(ledger, "copied")) == ((0, 3, 0), [])


def test_what_a_late_delivery_finds_missing_changes_nothing_once_the_batch_is_accounted_for(
    ledger: Ledger, client: redis.Redis
) -> None:
    """It looked before another job brought the objects, and says so after they were counted as present."""
    deliver(ledger, THREE, needed=[0], failed=[0])

    found_missing(ledger, THREE, [0, 1])

    assert counts(ledger.status("job")) == (0, 2, 1)
    assert objects_in(ledger, "copied") == []
    assert client.hgetall(f"{JOB}:needed") == {}
