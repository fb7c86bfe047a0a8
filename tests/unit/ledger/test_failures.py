"""The list of failures: bounded, with exact counts."""

from __future__ import annotations

import pytest

from snapferry.workers.ledger import (
    FAILURES_KEPT,
    Ledger,
)
from snapferry.workers.ledger.steps import accounting
from snapferry.workers.outcome import BatchOutcome, Failure
from tests.unit.ledger.support import ONE, THREE, address, batch, deliver, objects_in


def test_failed_objects_are_kept_with_all_that_is_known_of_them(ledger: Ledger) -> None:
    failure = Failure(address(5), "AccessDenied", "s3://bucket", 'no "permission" für 概要', transient=False)

    ledger.account(ONE, BatchOutcome(failures=[failure]), attempts=4, worker="copier@here")

    (failed,) = ledger.failures("job")
    assert (failed.failure, failed.attempts, failed.worker) == (failure, 4, "copier@here")


def test_the_list_of_failures_is_bounded_and_their_count_is_exact(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounting, "FAILURES_KEPT", 7)

    for number in range(4):
        assert deliver(ledger, batch(number, *[1] * 5, first=5 * number), failed=range(5))
    deliver(ledger, batch(9, *[1] * 50, first=1000), failed=range(50))

    assert ledger.status("job").failed == 70
    assert [failed.failure.detail for failed in ledger.failures("job")] == [
        f"failure {n}" for n in [0, 1, 2, 3, 4, 0, 1]
    ]
    assert objects_in(ledger, "failed") == [*range(20), *range(1000, 1050)]
    assert ledger.failed_by_class("job") == {"ObjectMissing": 70}


def test_a_batch_of_failures_only_fits_into_one_script_call(ledger: Ledger) -> None:
    everything = batch(0, *[1] * 10_000)

    assert deliver(ledger, everything, failed=range(10_000))

    assert ledger.status("job").failed == 10_000
    assert len(ledger.failures("job")) == FAILURES_KEPT
    assert objects_in(ledger, "failed") == list(range(10_000))


def test_failures_are_counted_by_their_class(ledger: Ledger) -> None:
    errors = ["ObjectMissing", "IntegrityError", "ObjectMissing"]
    ends = [
        Failure(found, error, "/a", "", transient=False)
        for found, error in zip(THREE.objects(), errors, strict=True)
    ]

    ledger.account(THREE, BatchOutcome(failures=ends))

    assert ledger.failed_by_class("job") == {"ObjectMissing": 2, "IntegrityError": 1}
