"""A job's progress in words: what is settled, how fast, and what may be in its way."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import Any

import pytest

from snapferry.orchestrator.reporting import measures
from snapferry.orchestrator.reporting.progress import Lines, Silent, progress_text, view
from snapferry.orchestrator.reporting.progress.bar import Bar
from snapferry.orchestrator.reporting.text.format import span
from snapferry.orchestrator.reporting.text.status import status_lines
from snapferry.workers.copying.words import WORDS
from snapferry.workers.ledger import JobStatus, RunningBatch, State
from snapferry.workers.messages import Action

STATUS = JobStatus(
    job_id="1234",
    state=State.COPYING,
    paused=False,
    cancelling=False,
    dry_run=False,
    priority="normal",
    queue="",
    source="file:///a",
    destination="file:///b",
    first_snapshot="5e5e",
    error="",
    snapshots_total=1,
    snapshots_published=0,
    snapshots_trusted=0,
    snapshots_failed=0,
    objects_total=100,
    bytes_total=1000,
    batches_total=3,
    batches_handed=3,
    batches_done=1,
    objects_settled=20,
    bytes_settled=250,
    copied=10,
    present=10,
    failed=0,
    healed=0,
    deleted=0,
    bytes_copied=100,
    workers=("one@host",),
    submitted_at=0.0,
    started_at=0.0,
    moved_at=0.0,
    ended_at=0.0,
)


def running(**changed: Any) -> JobStatus:
    """Return a job that was begun ten seconds ago and moved just now."""
    now = time.time()
    times: dict[str, Any] = {"submitted_at": now - 11, "started_at": now - 10, "moved_at": now}
    return replace(STATUS, **(times | changed))


def test_one_snapshot_is_not_counted_and_several_are() -> None:
    one = progress_text(running())
    several = progress_text(running(snapshots_total=1200, snapshots_published=7, snapshots_failed=1))

    objects = "20 of 100 objects (10 copied, 10 present, 0 failed, 80 left)"
    assert one == f"copying: 25%, {objects}, 250 B of 1.0 kB, 10 B/s, 30 s left"
    assert several == f"copying: 25%, 8 of 1,200 snapshots, {objects}, 250 B of 1.0 kB, 10 B/s, 30 s left"


@pytest.mark.parametrize("action", Action)
def test_the_states_of_objects_add_up_to_all_of_them(action: Action) -> None:
    words = progress_text(running(action=action, copied=4, present=5, failed=3))
    inside = re.search(r"20 of 100 (?:object|file)s \((.*?)\)", words)

    assert inside is not None
    assert "3 failed" in inside[1]
    assert words.count("failed") == 1
    assert "8 in unfinished batches" in inside[1]
    shown = sum(map(int, re.findall(r"\d+", inside[1])))
    # Nothing that a verify looks at is copied.
    assert shown == 100 - (4 if not WORDS[action].changed else 0)


def test_a_paused_job_is_said_to_be_paused_and_has_no_time_left() -> None:
    words = progress_text(running(paused=True, moved_at=1.0))

    assert words.startswith("copying, paused: 25%")
    assert "left" not in words.rpartition(")")[2]


def test_a_job_without_a_plan_is_its_state() -> None:
    assert progress_text(running(state=State.PLANNING, objects_total=0)) == "planning"


def test_empty_objects_are_counted_where_there_are_no_bytes() -> None:
    assert progress_text(running(bytes_total=0, bytes_settled=0)).startswith(
        "copying: 20%, 20 of 100 objects"
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"state": State.QUEUED}, "waiting for an orchestrator (is one running?)"),
        (
            {"workers": (), "queue": "tape"},
            "waiting for a worker that serves --queue tape (is one running, and free?)",
        ),
        ({"workers": ()}, "waiting for a worker (is one running, and free?)"),
        ({}, "copying"),
        ({"workers": (), "paused": True}, "copying, paused"),
        ({"workers": (), "cancelling": True}, "copying, cancelling"),
        ({"state": State.COMMITTING, "workers": ()}, "committing"),
    ],
)
def test_a_job_of_which_nothing_moves_for_ten_seconds_has_a_hint(changed: dict[str, Any], said: str) -> None:
    ago = time.time() - 11

    assert progress_text(running(submitted_at=ago, moved_at=ago, **changed)).startswith(f"{said}: ")
    assert "waiting" not in progress_text(running(**changed))
    # A command knows that its own fleet runs.
    assert "waiting" not in progress_text(running(submitted_at=ago, moved_at=ago, **changed), "")


def quiet(worker: str, *, in_flight: int, for_s: float) -> RunningBatch:
    """Return a batch of which nothing has moved for so long."""
    return RunningBatch(
        "1234", f"plan:{worker}", f"{worker}@host", 0, 0, in_flight=in_flight, moved_at=time.time() - for_s
    )


def test_objects_that_hang_are_told_and_the_share_is_not_whole() -> None:
    ago = time.time() - 700
    hangs = quiet("one", in_flight=4, for_s=700)

    words = progress_text(
        running(
            moved_at=ago,
            submitted_at=ago,
            objects_total=63,
            objects_settled=59,
            bytes_settled=1000,
            running=(hangs,),
        )
    )

    assert words.startswith(
        "4 objects in flight without progress for 11 min at one@host: 99%, 59 of 63 objects"
    )
    assert "left" not in words.rpartition(")")[2]


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([("one", 3, 20.0)], "copying"),
        ([("one", 3, 90.0)], "3 objects in flight without progress for 1 min at one@host"),
        (
            [("one", 3, 90.0), ("two", 1, 3700.0), ("three", 5, 1.0)],
            "4 objects in flight without progress for 1 h at one@host and 1 other worker",
        ),
        ([("one", 0, 90.0)], "1 batch without progress for 1 min at one@host"),
    ],
)
def test_a_batch_that_hangs_is_told_though_others_move(runs: list[tuple[str, int, float]], said: str) -> None:
    hang = tuple(quiet(worker, in_flight=count, for_s=for_s) for worker, count, for_s in runs)

    assert progress_text(running(running=hang)).startswith(f"{said}: ")


@pytest.mark.parametrize(
    ("changed", "percent"),
    [
        ({"bytes_settled": 999, "objects_settled": 99}, 99),
        ({"bytes_settled": 1000, "objects_settled": 99}, 99),
        ({"bytes_settled": 1000, "objects_settled": 10}, 99),
        ({"bytes_settled": 290, "objects_settled": 99}, 29),
        ({"bytes_settled": 1000, "objects_settled": 100}, 100),
        ({"bytes_settled": 0, "bytes_total": 0, "objects_settled": 999, "objects_total": 1000}, 99),
    ],
)
def test_a_hundred_percent_means_that_every_object_is_settled(changed: dict[str, Any], percent: int) -> None:
    assert measures.percent(running(**changed)) == percent
    assert (measures.share(running(**changed)) == 1.0) == (percent == 100)


def test_no_time_left_is_never_said_of_a_job_that_goes_on() -> None:
    started = time.time() - 0.5
    words = progress_text(running(started_at=started, objects_settled=99, bytes_settled=999))

    assert words.endswith(", 1 s left")


def test_lines_come_now_and_then_and_not_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    lines = Lines()
    for clock[0] in (1.0, 5.0, 6.0, 10.0):
        lines.show(running())
    clock[0] = 20.0
    lines.show(running(state=State.DONE))

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("snapferry: copying: 25%") == 2
    assert said.err.count("\n") == 2


@pytest.mark.parametrize(
    ("color", "term", "kind"),
    [
        ("never", "xterm", Lines),
        ("auto", "xterm", Lines),
        ("always", "xterm", Bar),
        ("always", "dumb", Lines),
    ],
)
def test_what_shows_a_job_depends_on_where_it_is_shown(
    monkeypatch: pytest.MonkeyPatch, color: str, term: str, kind: type
) -> None:
    monkeypatch.setenv("TERM", term)

    assert isinstance(view(quiet=False, color=color)[0], kind)
    assert isinstance(view(quiet=True, color=color)[0], Silent)


def test_a_plan_that_grows_has_no_share_and_totals_that_are_at_least() -> None:
    status = replace(STATUS, snapshots_total=9, snapshots_planned=3)
    whole = replace(STATUS, snapshots_total=9, snapshots_planned=9)

    text = progress_text(status)

    assert "%" in progress_text(whole)
    assert "%" not in text
    assert f"{status.objects_settled:,} of at least {status.objects_total:,} objects" in text
    assert "at least" not in progress_text(whole)
    assert text.startswith("copying, still planning: ")
    lines = dict(line.split(maxsplit=1) for line in status_lines(status, {}) if " " in line)
    assert all(lines[name].startswith("at least ") for name in ("objects", "bytes", "batches"))
    assert "%" not in lines.get("done", "")
    assert measures.share(status) == measures.percent(status) == 0


def test_a_job_that_ended_before_its_plan_was_complete_is_resumed_and_not_retried() -> None:
    whole = replace(STATUS, state=State.FAILED, failed=1, batches_done=3, snapshots_total=9)
    part = replace(whole, snapshots_planned=3)

    assert whole.retryable
    assert not part.retryable
    assert part.resumable


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (59.6, "60 s"),
        (60, "1 min"),
        (119.9, "1 min 59 s"),
        (3599, "59 min 59 s"),
        (3600, "1 h"),
        (7199, "1 h 59 min"),
        (86400 + 3599, "1 d"),
        (3 * 86400 - 1, "2 d 23 h"),
    ],
)
def test_a_span_has_two_units_and_is_never_longer_than_it_is(seconds: float, said: str) -> None:
    assert span(seconds) == said
