"""Colours and live text: what the environment asks for, and what the stream is."""

from __future__ import annotations

import io

import pytest

from snapferry.orchestrator.reporting import terminal
from snapferry.workers.settings.environment import terminal_variables


class Stream(io.StringIO):
    def __init__(self, *, tty: bool) -> None:
        super().__init__()
        self.tty = tty

    def isatty(self) -> bool:
        return self.tty


@pytest.mark.parametrize(
    ("environ", "dumb", "colors"),
    [
        ({"TERM": "xterm"}, False, None),
        ({"TERM": "dumb"}, True, None),
        ({}, True, None),
        ({"TERM": "xterm", "NO_COLOR": "1"}, False, False),
        ({"TERM": "xterm", "NO_COLOR": ""}, False, None),
        ({"TERM": "xterm", "NO_COLOR": "0"}, False, False),
        ({"TERM": "xterm", "CLICOLOR": "0"}, False, False),
        ({"TERM": "xterm", "CLICOLOR": "1"}, False, None),
        ({"TERM": "xterm", "CLICOLOR_FORCE": "1"}, False, True),
        ({"TERM": "xterm", "CLICOLOR_FORCE": "0"}, False, None),
        ({"TERM": "xterm", "FORCE_COLOR": "3", "CLICOLOR": "0"}, False, True),
        ({"TERM": "xterm", "FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
    ],
)
def test_the_environment_says_whether_there_are_colours(
    environ: dict[str, str], dumb: bool, colors: bool | None
) -> None:
    assert terminal_variables(environ) == (dumb, colors)


@pytest.mark.parametrize(
    ("color", "environ", "tty", "expected"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_the_option_is_stronger_than_the_environment_and_that_than_the_stream(
    monkeypatch: pytest.MonkeyPatch, color: str, environ: dict[str, str], tty: bool, expected: bool
) -> None:
    variables = terminal_variables({"TERM": "xterm"} | environ)
    monkeypatch.setattr(terminal, "terminal_variables", lambda: variables)

    assert terminal.has_colors(Stream(tty=tty), color) is expected
