"""Batches are counted once, and progress is true."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from snapferry.workers.ledger import (
    PLAN,
    Ledger,
)
from tests.unit.ledger.support import ALL, THREE, TWO, batch, counts, deliver, objects_in, settled


def test_a_batch_is_counted_once_however_often_it_is_delivered(ledger: Ledger) -> None:
    assert deliver(ledger, TWO)
    assert not deliver(ledger, TWO, needed=[])
    assert not deliver(ledger, TWO, failed=[0, 1])

    status = ledger.status("job")
    assert counts(status) == (2, 0, 0)
    assert (status.batches_done, status.bytes_copied, settled(status)) == (1, 5, (2, 5))
    assert (ledger.failures("job"), objects_in(ledger, "failed"), objects_in(ledger, "copied")) == (
        [],
        [],
        [0, 1],
    )
    assert ledger.failed_by_class("job") == {}


def test_of_many_deliveries_at_the_same_time_one_is_counted(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        counted = list(pool.map(lambda _: deliver(ledger, THREE, needed=[0, 2], failed=[2]), range(32)))

    assert sorted(counted) == [False] * 31 + [True]
    assert counts(ledger.status("job")) == (1, 1, 1)
    assert len(ledger.failures("job")) == 1


def test_when_all_batches_are_accounted_for_progress_equals_the_plan(ledger: Ledger) -> None:
    for message in ALL:
        deliver(ledger, message)

    status = ledger.status("job")
    assert settled(status) == (status.objects_total, status.bytes_total) == (6, 111)
    assert status.batches_done == status.batches_total == 3
    assert status.bytes_copied == 111
    assert ledger.unaccounted("job", PLAN, range(3)) == []


def test_the_batches_that_nobody_accounted_for_are_known_by_series_and_number(ledger: Ledger) -> None:
    assert ledger.unaccounted("job", PLAN, range(3)) == [0, 1, 2]

    deliver(ledger, THREE)
    deliver(ledger, batch(0, 1, series="heal-0-1"))

    assert ledger.unaccounted("job", PLAN, range(3)) == [0, 2]
    assert ledger.unaccounted("job", PLAN, range(1, 20)) == list(range(2, 20))
    assert ledger.unaccounted("job", PLAN, range(1, 2)) == []
    assert ledger.unaccounted("job", PLAN, range(0)) == []
    assert ledger.unaccounted("job", "heal-0-1", range(3)) == [1, 2]
    assert ledger.unaccounted("job", "heal-0-2", range(2)) == [0, 1]
