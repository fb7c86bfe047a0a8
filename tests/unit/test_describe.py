"""Words for people."""

from __future__ import annotations

import pytest

from snapferry.stores.hashing import digest
from snapferry.stores.text.format import size
from snapferry.workers.copying.describe import (
    describe_batch,
    describe_job,
    describe_outcome,
    describe_snapshots,
    short,
)
from snapferry.workers.messages import BatchMessage, StoreRef, encode_addresses
from snapferry.workers.outcome import BatchOutcome, Failure

A = digest(b"a")


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (999.7, "1.0 kB"),
        (1000, "1.0 kB"),
        (1_249, "1.2 kB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (1_000_000, "1.0 MB"),
        (1_500_000_000, "1.5 GB"),
        (2 * 10**12, "2.0 TB"),
        (3 * 10**15, "3.0 PB"),
        (2**64 - 1, "18446.7 PB"),
    ],
)
def test_a_size_has_the_unit_that_keeps_it_short(size_bytes: float, words: str) -> None:
    assert size(size_bytes) == words


def test_an_id_is_shown_by_its_head() -> None:
    assert short(A) == A[:8]


@pytest.mark.parametrize(
    ("count", "words"),
    [(None, "every snapshot"), (0, "no snapshot"), (1, "ffffff…"), (2, "ffffff… and 1 more")],
)
def test_snapshots_are_named_by_the_head_of_the_first_and_a_count_of_the_others(
    count: int | None, words: str
) -> None:
    assert describe_snapshots("f" * 64 if count else "", count) == words


def test_a_job_says_which_it_is_and_what_it_brings() -> None:
    assert describe_job("0123456789abcdef", "f" * 64, 3) == "job 01234567 · ffffff… and 2 more"
    assert describe_job("0123456789abcdef", "", None) == "job 01234567 · every snapshot"


def batch(series: str, number: int) -> BatchMessage:
    here = StoreRef(url="s3://a?profile=hunter2")
    return BatchMessage(
        job_id="0123456789abcdef", series=series, number=number, source=here, destination=here,
        addresses=encode_addresses([A] * 3), sizes=(1, 2, 3_000_000), positions=(0,),
    )  # fmt: skip


def test_a_batch_says_whose_it_is_which_of_how_many_and_how_large() -> None:
    words = describe_batch(batch("plan", 4), "ffffff… and 2 more", 9)

    assert words == "job 01234567 · ffffff… and 2 more · batch 5/9 · 3 objects · 3.0 MB"
    assert "· healing batch 1/2 ·" in describe_batch(batch("heal-7-2", 0), "ffffff…", 2)


def test_a_batch_in_words_names_no_store() -> None:
    """Flower shows these words to whoever may look at it."""
    assert "s3" not in describe_batch(batch("plan", 0), "ffffff…", 1)


def test_an_outcome_says_failed_loudly_and_only_if_something_did() -> None:
    failure = Failure(A, "ObjectMissing", "memory://a", "not there", transient=False)

    assert describe_outcome(BatchOutcome(copied=2, present=1, bytes_copied=5000), 1.26) == (
        "2 copied, 1 present, 5.0 kB in 1.3 s"
    )
    assert "1 FAILED" in describe_outcome(BatchOutcome(failures=[failure]), 0.0)
