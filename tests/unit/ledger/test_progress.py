"""Progress of running batches: never back, never twice."""

from __future__ import annotations

import time

import pytest
import redis

from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES
from snapferry.workers.ledger import (
    Ledger,
)
from snapferry.workers.outcome import BatchOutcome
from tests.unit.ledger.support import (
    JOB,
    THREE,
    TWO,
    batch,
    counts,
    deliver,
    found_missing,
    objects_in,
    outcome,
    settled,
)


def test_progress_inside_a_batch_counts_until_the_batch_is_accounted_for(ledger: Ledger) -> None:
    ledger.progress(TWO, "one", objects=1, size_bytes=2)
    assert settled(ledger.status("job")) == (1, 2)

    deliver(ledger, TWO)
    assert settled(ledger.status("job")) == (2, 5)


def test_bytes_that_a_running_batch_moves_count_until_the_batch_is_accounted_for(
    ledger: Ledger, client: redis.Redis
) -> None:
    for batch_, holder in ((TWO, "a@one"), (THREE, "b@two")):
        ledger.begin(batch_, holder)
    ledger.progress(TWO, "a@one", objects=1, size_bytes=5, moved=2)
    ledger.progress(THREE, "b@two", objects=0, size_bytes=0, moved=1)
    ledger.progress(THREE, "b@two", objects=1, size_bytes=6, moved=4)
    status = ledger.status("job")
    assert {run.worker: run.moved for run in status.running} == {"one": 2, "two": 4}
    assert (status.bytes_moved, status.bytes_copied) == (6, 0)

    deliver(ledger, TWO, needed=[0])
    ledger.release(TWO, "a@one")
    status = ledger.status("job")
    assert (status.bytes_moved, status.bytes_copied) == (2 + 4, 2)

    # As a worker of an earlier version reports.
    client.hset(f"{JOB}:moves", "plan:1", f"{time.time():.3f} 2 1 6")
    status = ledger.status("job")
    assert (status.bytes_moved, status.running[0].in_flight, status.running[0].moved) == (2, 2, 0)
    ledger.progress(THREE, "b@two", objects=1, size_bytes=6, moved=5)
    assert ledger.status("job").bytes_moved == 2 + 5


def test_bytes_that_are_read_for_checksums_count_beside_those_that_are_moved(ledger: Ledger) -> None:
    ledger.begin(TWO, "a@one")
    ledger.progress(TWO, "a@one", objects=0, size_bytes=2, moved=1, hashed=5)
    status = ledger.status("job")
    assert (status.bytes_checked, status.bytes_hashed, status.bytes_moved) == (5, 0, 1)

    ledger.account(TWO, BatchOutcome(present=len(TWO.sizes), bytes_hashed=7))
    ledger.release(TWO, "a@one")
    status = ledger.status("job")
    assert (status.bytes_checked, status.bytes_hashed, status.bytes_moved) == (7, 7, 0)


def test_another_delivery_of_a_batch_does_not_take_progress_back_or_count_twice(ledger: Ledger) -> None:
    ledger.progress(THREE, "one", objects=2, size_bytes=5)
    ledger.progress(THREE, "one", objects=1, size_bytes=1)
    assert settled(ledger.status("job")) == (2, 5)

    deliver(ledger, THREE)
    ledger.progress(THREE, "one", objects=2, size_bytes=5)
    assert settled(ledger.status("job")) == (3, 6)


def test_what_is_healed_is_no_progress_of_the_plan(ledger: Ledger) -> None:
    heal = batch(0, 50, 50, series="heal-0-1")
    ledger.progress(heal, "one", objects=1, size_bytes=50)
    deliver(ledger, heal)

    status = ledger.status("job")
    assert settled(status) == (0, 0)
    assert (status.healed, status.batches_done, status.bytes_copied) == (2, 0, 100)
    assert (counts(status), objects_in(ledger, "copied")) == ((0, 0, 0), [])


def test_sums_of_many_large_sizes_are_exact(ledger: Ledger) -> None:
    large = batch(0, *[2**48] * 1000)

    assert ledger.account(large, BatchOutcome(copied=1000, bytes_copied=2**53 - 1))

    status = ledger.status("job")
    assert (status.bytes_settled, status.bytes_copied) == (1000 * 2**48, 2**53 - 1)


def test_sums_of_all_that_a_batch_of_the_largest_objects_found_missing_are_exact(ledger: Ledger) -> None:
    """The script counts in floating point, which is exact up to 2**53."""
    large = batch(0, *[LARGEST_PLANNED_BYTES] * 999, LARGEST_PLANNED_BYTES - 1)
    assert sum(large.sizes) < 2**53
    found_missing(ledger, large, range(1000))
    found_missing(ledger, large, [999])

    ledger.account(large, outcome(large, needed=[999]))

    status = ledger.status("job")
    assert counts(status) == (1000, 0, 0)
    assert status.bytes_copied == sum(large.sizes)


def test_progress_inside_a_batch_of_the_largest_objects_is_exact(ledger: Ledger) -> None:
    largest = 1000 * LARGEST_PLANNED_BYTES - 1
    assert largest < 2**53

    for size_bytes in (1, largest, largest - 1):
        ledger.progress(THREE, "one", objects=1, size_bytes=size_bytes)

    assert settled(ledger.status("job")) == (1, largest)
    ledger.progress(THREE, "one", objects=1, size_bytes=2**53 - 1)
    assert settled(ledger.status("job")) == (1, 2**53 - 1)


@pytest.mark.parametrize("first", range(9))
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 24, 100])
def test_of_a_batch_that_lacks_everything_just_its_own_places_are_noted(
    ledger: Ledger, first: int, count: int
) -> None:
    """Neighbours share a byte: those whose positions are noted keep them, and those that are not get none."""
    before, after = first - 2, first + count + 1
    for number, place in enumerate(place for place in (before, after) if place >= 0):
        found_missing(ledger, batch(number, 1, first=place), [0])

    found_missing(ledger, batch(7, *[1] * count, first=first), range(count))

    around = {place for place in (before, after) if place >= 0}
    assert objects_in(ledger, "copied") == sorted({*range(first, first + count), *around})
