"""The figures of a job: what adds up, what is never whole, and what is not known."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.reporting import measures
from snapferry.orchestrator.reporting.measures import BatchState, ObjectState, SnapshotEnd
from snapferry.workers.ledger import JobStatus, RunningBatch, State, Waiting
from snapferry.workers.messages import Action
from tests.unit.test_progress import STATUS, running

COUNT = st.integers(-5, 2**70) | st.integers(0, 20)


@st.composite
def statuses(draw: st.DrawFn) -> JobStatus:
    """Return a status with any counters, as somebody may have written them into Redis."""
    names = [
        "objects_total", "objects_settled", "bytes_total", "bytes_settled", "copied", "present", "failed",
        "snapshots_total", "snapshots_published", "snapshots_trusted", "snapshots_failed", "batches_total",
        "batches_handed", "batches_done", "bytes_copied",
    ]  # fmt: skip
    counts: dict[str, Any] = {name: draw(COUNT) for name in names}
    return replace(STATUS, state=draw(st.sampled_from(State)), submitted_at=1.0, **counts)


@given(status=statuses(), at_work=COUNT)
def test_every_part_is_counted_once_and_none_is_negative(status: JobStatus, at_work: int) -> None:
    for counts, total in (
        (measures.object_counts(status), status.objects_total),
        (measures.snapshot_counts(status), status.snapshots_total),
        (measures.batch_counts(status, at_work), status.batches_total),
    ):
        assert sum(counts.values()) == max(0, total)
        assert min(counts.values()) >= 0


@given(status=statuses())
def test_what_a_page_shows_as_percent_is_a_percentage(status: JobStatus) -> None:
    # A record with negative counts is damaged, and may show anything that is no error.
    found = measures.percent(status)
    if min(status.objects_settled, status.bytes_settled, status.objects_total, status.bytes_total) >= 0:
        assert found >= 0
    if found == 100:
        assert not status.failed
        assert status.state not in (State.FAILED, State.CANCELLED)


def test_objects_of_a_running_job_are_in_five_places() -> None:
    status = running(copied=10, present=4, failed=1, objects_settled=40)

    assert measures.object_counts(status) == {
        ObjectState.COPIED: 10, ObjectState.PRESENT: 4, ObjectState.FAILED: 1, ObjectState.RUNNING: 25,
        ObjectState.LEFT: 60,
    }  # fmt: skip
    assert measures.snapshot_counts(running(snapshots_total=9, snapshots_published=4, snapshots_failed=2)) == {
        SnapshotEnd.GOOD: 4, SnapshotEnd.TRUSTED: 0, SnapshotEnd.FAILED: 2, SnapshotEnd.LEFT: 3,
    }  # fmt: skip
    batches = running(batches_total=9, batches_handed=6, batches_done=2)
    assert measures.batch_counts(batches, 3) == {
        BatchState.DONE: 2, BatchState.RUNNING: 3, BatchState.QUEUED: 1, BatchState.UNQUEUED: 3,
    }  # fmt: skip
    assert measures.batch_counts(replace(batches, state=State.CANCELLED), 3) == {
        BatchState.DONE: 2, BatchState.RUNNING: 0, BatchState.QUEUED: 0, BatchState.UNQUEUED: 7,
    }  # fmt: skip


WHOLE: dict[str, Any] = {"objects_settled": 100, "bytes_settled": 1000, "copied": 100, "present": 0}


@pytest.mark.parametrize(
    ("changed", "percent"),
    [
        (WHOLE, 100),
        (WHOLE | {"copied": 99, "failed": 1}, 99),
        (WHOLE | {"copied": 99, "failed": 1, "state": State.FAILED}, 99),
        (WHOLE | {"copied": 0, "failed": 100, "state": State.FAILED}, 0),
        (WHOLE | {"copied": 30, "present": 20, "failed": 50, "state": State.FAILED}, 50),
        (WHOLE | {"state": State.FAILED}, 99),
        (WHOLE | {"state": State.CANCELLED}, 99),
        (
            {
                "objects_settled": 60,
                "copied": 10,
                "present": 0,
                "bytes_settled": 600,
                "state": State.CANCELLED,
            },
            10,
        ),
        ({"objects_total": 0, "objects_settled": 0, "bytes_total": 0, "state": State.FAILED}, 0),
        ({"objects_total": 0, "objects_settled": 0, "bytes_total": 0, "state": State.DONE}, 100),
        ({"objects_total": 0, "objects_settled": 0, "bytes_total": 0}, 0),
    ],
)
def test_a_job_with_a_failure_is_never_whole(changed: dict[str, Any], percent: int) -> None:
    assert measures.percent(running(**changed)) == percent


def test_bytes_that_were_present_are_not_moved() -> None:
    assert measures.rate(running(bytes_settled=1000, bytes_copied=0)) == 0.0
    assert measures.rate(running(bytes_settled=1000, bytes_copied=500)) == pytest.approx(50, rel=0.1)
    moving = RunningBatch("1234", "plan:1", "one@host", 0, 0, moved=500)
    assert measures.rate(running(bytes_copied=500, running=(moving, moving))) == pytest.approx(150, rel=0.1)


def test_a_push_that_reads_for_checksums_has_the_speed_of_its_reading() -> None:
    hashing = RunningBatch("1234", "plan:1", "one@host", 0, 0, hashed=500)
    status = running(action=Action.PUSH, bytes_copied=0, bytes_hashed=500, running=(hashing, hashing))

    assert measures.rate(status) == pytest.approx(150, rel=0.1)
    assert status.bytes_moved == 0


def test_the_time_of_pauses_and_waits_counts_neither_for_the_speed_nor_for_the_time_left() -> None:
    """A job that ran for 10 of the last 1,000 seconds."""
    now = time.time()
    times = {"submitted_at": now - 1000, "started_at": now - 1000, "moved_at": now}
    ran = running(**times, halted_s=990.0)
    paused = running(**times, halted_s=900.0, paused=True, halted_at=now - 90)
    store = Waiting("s3://x", "no answer", now - 90)
    waits = running(**times, halted_s=900.0, waiting=store, halted_at=now - 90)

    assert measures.seconds_left(ran) == pytest.approx(30, rel=0.1)
    for status in (ran, paused, waits):
        assert measures.rate(status) == pytest.approx(measures.rate(running()), rel=0.1)


@pytest.mark.parametrize(
    "changed",
    [
        {"workers": ()},
        {"paused": True},
        {"cancelling": True},
        {"waiting": Waiting("s3://x", "no answer", 1.0)},
        {"moved_at": time.time() - 20, "submitted_at": time.time() - 30},
        {"state": State.COMMITTING},
        {"state": State.FAILED},
        {"objects_settled": 0, "bytes_settled": 0},
        # A few bytes took ten seconds: it had just begun.
        {"objects_settled": 1, "bytes_settled": 6, "bytes_total": 300_000},
        {"objects_settled": 1, "bytes_settled": 9_000_000, "bytes_total": 10**12},
    ],
)
def test_no_time_is_left_where_nothing_can_run(changed: dict[str, Any]) -> None:
    assert measures.seconds_left(running()) is not None
    assert measures.seconds_left(running(**changed)) is None


def test_the_time_left_of_a_long_job_is_known_after_some_megabytes() -> None:
    long = {"objects_settled": 1, "bytes_settled": 10_000_000, "bytes_total": 10**12}
    no_bytes = {"objects_settled": 1, "objects_total": 1000, "bytes_settled": 0, "bytes_total": 0}

    assert measures.seconds_left(running(**long)) == pytest.approx(10**6, rel=0.1)
    assert measures.seconds_left(running(**no_bytes)) is not None


def test_the_throughput_of_a_heal_counts_what_it_reads_to_check() -> None:
    status = replace(running(), bytes_copied=7, bytes_settled=100, copied=1, present=9, failed=2, running=())
    heal = replace(status, action=Action.HEAL)

    assert (measures.bytes_worked(status), measures.objects_moved(status)) == (7, 1)
    assert (measures.bytes_worked(heal), measures.objects_moved(heal)) == (107, 12)
    assert measures.rate(heal) > measures.rate(status) > 0
