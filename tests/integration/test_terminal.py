"""What a user sees on a real terminal: the bar, once, on any width; or plain lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from snapferry.orchestrator.reporting.progress.bar import SPARE
from tests.sample import make_store, random_files
from tests.terminal import OnTerminal, on_terminal

from .processes import environment, program

BARS = re.compile("[━╸╺─]{10,}")


def slow_sync(tmp_path: Path) -> list[str]:
    """Return a command that copies for minutes unless it is interrupted."""
    snapshot = make_store(tmp_path / "a", random_files(40, size=100_000))
    stores = ["--from", str(tmp_path / "a"), "--to", f"file://{tmp_path}/b"]
    return [*program(), "sync", *stores, "--id", snapshot, "-j", "1", "--limit-rate", "50k"]


def bars(running: OnTerminal) -> list[str]:
    return [line for line in running.screen.lines if BARS.search(line)]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_the_bar_is_there_once_through_a_resize_and_ctrl_c(tmp_path: Path, no_color: str) -> None:
    env = environment({"NO_COLOR": no_color, "TERM": "xterm-256color"})
    with on_terminal(slow_sync(tmp_path), columns=80, env=env) as running:
        running.until(lambda: any("objects" in bar for bar in bars(running)), "a bar with figures")
        assert len(bars(running)) == 1
        assert max(map(len, running.screen.lines)) <= 80 - SPARE

        running.resize(50)
        running.until(
            lambda: len(found := bars(running)) == 1 and len(found[0]) <= 50 - SPARE, "one bar of 50 columns"
        )

        running.press(b"\x03")
        assert running.wait() == 130

    assert len(bars(running)) == 1
    assert sum("interrupted" in line for line in running.screen.lines) == 1
    assert running.screen.styled == (not no_color)


def test_a_terminal_that_cannot_draw_gets_plain_lines_while_the_job_runs(tmp_path: Path) -> None:
    with on_terminal(slow_sync(tmp_path), columns=60, env=environment({"TERM": "dumb"})) as running:
        running.until(lambda: "objects" in "".join(running.screen.lines), "a line with figures")
        running.press(b"\x03")
        assert running.wait() == 130

    assert b"\x1b" not in running.raw
    assert "interrupted" in "".join(running.screen.lines)
