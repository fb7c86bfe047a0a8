"""A worker that shuts down requeues at once what it cannot end in time, and nothing else."""

from __future__ import annotations

import mmap
import time
from typing import Any, cast

import pytest
import redis

from snapferry.workers.copying.batch_report import BatchReport
from snapferry.workers.copying.transfer import WorkerStopping
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.messages import BatchMessage
from tests.unit.ledger.support import batch, request


@pytest.fixture
def ledger(redis_url: str) -> Ledger:
    found = Ledger(redis.Redis.from_url(redis_url, decode_responses=True), expires_s=3600)
    found.create(request())
    found.advance("job", State.COPYING, objects_total=6, batches_total=1, batches_handed=1)
    return found


def report(ledger: Ledger, message: BatchMessage, *, since_s: float) -> BatchReport:
    """Return the report of a batch that has run for so long."""
    found = BatchReport(message, ledger, "m-1-a#0@w@h", cast("Any", None), lambda _: None)
    found._began -= since_s
    return found


@pytest.mark.parametrize(
    ("left_s", "sizes", "copied", "since_s", "hopeless"),
    [
        (None, [1000], 100, 10, False),
        (100.0, [1000], 100, 10, False),
        (20.0, [1000], 100, 10, True),
        (0.0, [1000], 999, 10, True),
        (20.0, [1000], 900, 10, False),
        (20.0, [1000, 1], 100, 10, False),
        (20.0, [1000], 0, 10, False),
        (20.0, [1000], 10, 1, False),
        (20.0, [1000], 1000, 10, False),
    ],
    ids=[
        "not told to stop", "enough time", "too little time", "no time", "nearly done", "several objects",
        "speed unknown", "just begun", "done",
    ],
)  # fmt: skip
def test_only_a_single_object_that_cannot_end_in_time_is_requeued_early(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, left_s: float | None, sizes: list[int], copied: int,
    since_s: float, hopeless: bool,
) -> None:  # fmt: skip
    found = report(ledger, batch(0, *sizes), since_s=since_s)
    found.advance(0, copied, copied)
    monkeypatch.setattr(shutdown, "requeues_in_s", lambda: left_s)

    if hopeless:
        with pytest.raises(WorkerStopping):
            found.check()
    else:
        found.check()


def test_the_processes_of_a_pool_read_when_their_worker_requeues(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shutdown.requeues_in_s() is None
    shared = mmap.mmap(-1, 16)
    monkeypatch.setattr(shutdown, "_shared", shared)
    assert shutdown.requeues_in_s() is None
    shared[1] = 1
    assert shutdown.requeues_in_s() is None, "the time is not written yet"
    shutdown._DEADLINE.pack_into(shared, shutdown._DEADLINE_AT, time.monotonic() + 50)
    left_s = shutdown.requeues_in_s()
    assert left_s is not None
    assert 40 < left_s <= 50
    shutdown._DEADLINE.pack_into(shared, shutdown._DEADLINE_AT, time.monotonic() - 50)
    assert shutdown.requeues_in_s() == 0.0
