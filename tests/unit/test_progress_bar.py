"""The live bar of a job, as a user sees it on terminals of several widths."""

from __future__ import annotations

import io
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.live import Live

from snapferry.orchestrator.reporting.progress.bar import HINT_LINES, SHORTEST_BAR, SPARE, _JobBar
from snapferry.workers.ledger import JobStatus, State, Waiting
from tests.terminal import Screen

from .test_progress import running

LARGE: dict[str, Any] = {
    "objects_total": 20_000_000,
    "objects_settled": 9_999_999,
    "bytes_total": 10**13,
    "bytes_settled": 5 * 10**12,
    "bytes_copied": 5 * 10**12,
    "snapshots_total": 12_345,
    "snapshots_published": 6_789,
}


def drawn(status: JobStatus, columns: int, *, no_color: bool = False) -> list[str]:
    """Return the lines of the bar on a terminal that is *columns* wide."""
    file = io.StringIO()
    console = Console(
        file=file, width=columns, force_terminal=True, color_system="standard", no_color=no_color
    )
    bar = _JobBar()
    bar.status = status
    console.print(bar, end="")
    screen = Screen(columns)
    screen.feed(file.getvalue().replace("\n", "\r\n").encode())
    return screen.lines


@pytest.mark.parametrize("columns", [40, 60, 80, 120, 200])
@pytest.mark.parametrize("changed", [{}, LARGE], ids=["small", "large"])
def test_a_bar_share_and_time_left_fit_on_every_terminal(columns: int, changed: dict[str, Any]) -> None:
    [line] = drawn(running(**changed), columns)

    assert len(line) <= columns - SPARE
    assert line.startswith("copying ")
    assert line.count("━") + line.count("╸") + line.count("╺") >= SHORTEST_BAR
    assert f"{25 if not changed else 50}%" in line
    assert line.endswith(" left")


def test_a_wider_terminal_has_more_parts() -> None:
    counts = [drawn(running(**LARGE), columns)[0].count("·") for columns in (40, 60, 80, 100, 150)]

    assert counts == sorted(counts)
    assert counts[0] < counts[-1]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_failed_objects_are_counted(columns: int) -> None:
    assert "3 failed" in drawn(running(failed=3), columns)[0]
    assert "failed" not in drawn(running(), columns)[0]


@pytest.mark.parametrize("columns", [40, 80])
def test_without_colours_the_figures_stay_where_they_are(columns: int) -> None:
    [colored], [plain] = drawn(running(), columns), drawn(running(), columns, no_color=True)

    assert plain.index("25%") == colored.index("25%")
    assert plain.count("─") > plain.count("━") > 0


def test_why_a_job_stands_still_is_whole_below_the_bar() -> None:
    waiting = Waiting("s3://backup/store", "Could not connect to the endpoint", time.time() - 20)

    lines = drawn(running(waiting=waiting), 60)

    assert len(lines) > 1
    assert "Could not connect to the endpoint" in " ".join(line.strip() for line in lines[1:])


@given(
    st.integers(1, 250),
    st.sampled_from(State),
    st.booleans(),
    st.sampled_from(["", "x" * 500, "ä 漢字 \t" * 40]),
    st.sampled_from([{}, LARGE, {"objects_total": 0, "objects_settled": 0}]),
)
def test_no_line_is_ever_wider_than_its_terminal(
    columns: int, state: State, paused: bool, reason: str, changed: dict[str, Any]
) -> None:
    waiting = Waiting("s3://b", reason, time.time()) if reason else None

    lines = drawn(running(state=state, paused=paused, waiting=waiting, **changed), columns)

    assert all(len(line) <= max(1, columns - SPARE) for line in lines)
    assert len(lines) <= 1 + HINT_LINES


@pytest.mark.parametrize("columns", [(100, 50), (100, 33), (80, 20), (40, 120), (120, 40)])
def test_a_terminal_that_becomes_narrower_shows_the_bar_once(columns: tuple[int, int]) -> None:
    before, after = columns
    waiting = Waiting("s3://backup/store", "Could not connect to the endpoint", time.time() - 20)
    status = running(waiting=waiting, **LARGE)
    file = io.StringIO()
    console = Console(file=file, width=before, force_terminal=True, color_system="standard")
    screen = Screen(before)
    screen.feed(b"$ snapferry sync\r\n")

    def shown() -> None:
        screen.feed(file.getvalue().replace("\n", "\r\n").encode())
        file.seek(0)
        file.truncate()

    bar = _JobBar()
    bar.status = status
    live = Live(bar, console=console, auto_refresh=False)
    with live:
        live.refresh()
        shown()
        screen.resize(after)
        console.width = after
        live.refresh()
        shown()
        assert screen.lines[0] == "$ snapferry sync"[:after]
        assert sum("%" in line for line in screen.lines) == 1
        assert sum("copying" in line for line in screen.lines) == 1
