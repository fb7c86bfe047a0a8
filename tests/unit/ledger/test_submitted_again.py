"""A job that Redis lost is submitted again under its id, while a worker still runs a batch of the first one."""

from __future__ import annotations

import time

import pytest

from snapferry.stores.hashing import digest
from snapferry.workers.ledger import Directive, Ledger, State
from tests.unit.ledger.support import THREE, TWO, batch, counts, objects_in, outcome, request, settled

HOLDER = "m-1-a#0@w@h"


@pytest.fixture
def submitted(ledger: Ledger) -> str:
    """When the first job was submitted, as a run of its batches knows it; Redis has lost that job."""
    begun = ledger.begin(TWO, HOLDER)
    assert ledger.begin(THREE, HOLDER).submitted == begun.submitted != ""
    ledger.client.flushall()
    # Two submissions never have one time.
    time.sleep(0.01)
    ledger.create(request())
    ledger.advance("job", State.COPYING, objects_total=4, bytes_total=111, batches_total=2, batches_handed=2)
    return begun.submitted


def test_a_batch_of_the_first_job_does_not_count_for_the_second(ledger: Ledger, submitted: str) -> None:
    ledger.note_missing(TWO, list(TWO.objects()), submitted=submitted)
    ledger.note_missing(THREE, list(THREE.objects())[1:], submitted=submitted)

    assert not ledger.account(TWO, outcome(TWO, [0, 1]), submitted=submitted)
    assert not ledger.account(THREE, outcome(THREE, [0], failed=[0]), submitted=submitted)

    status = ledger.status("job")
    assert (counts(status), settled(status), status.failed) == ((0, 0, 0), (0, 0), 0)
    assert ledger.unaccounted("job", "plan", range(2)) == [0, 1]
    assert objects_in(ledger, "copied") == objects_in(ledger, "failed") == []


def test_a_run_of_the_first_job_stops(ledger: Ledger, submitted: str) -> None:
    assert ledger.progress(TWO, HOLDER, objects=1, size_bytes=2, submitted=submitted) is Directive.STOP
    assert settled(ledger.status("job")) == (0, 0)


def test_files_of_the_first_job_are_not_those_of_the_second(ledger: Ledger, submitted: str) -> None:
    files = {file: (digest(b"bytes"), 5) for file in TWO.objects()}

    ledger.note_files(TWO, files, submitted=submitted)
    assert b"".join(ledger.files("job")) == b""

    ledger.note_files(TWO, files, submitted=ledger.begin(TWO, HOLDER).submitted)
    assert b"".join(ledger.files("job")) != b""


def test_a_run_of_the_second_job_counts(ledger: Ledger, submitted: str) -> None:
    again = batch(0, 2, 3)
    begun = ledger.begin(again, HOLDER)
    assert begun.submitted not in ("", submitted)

    ledger.note_missing(again, list(again.objects()), submitted=begun.submitted)
    directive = ledger.progress(again, HOLDER, objects=1, size_bytes=2, submitted=begun.submitted)
    assert directive is Directive.CONTINUE
    assert ledger.account(again, outcome(again, [0, 1]), submitted=begun.submitted)
    assert counts(ledger.status("job")) == (2, 0, 0)
