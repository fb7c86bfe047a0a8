"""What a terminal can show, and whether in colour: one rule for all commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

from snapferry.workers.extras import is_installed
from snapferry.workers.settings.environment import terminal_variables

if TYPE_CHECKING:
    # As in `console`.
    from rich.console import Console


def is_dumb() -> bool:
    """Return whether the terminal cannot move its cursor (``TERM=dumb``)."""
    return terminal_variables().dumb


def is_live(stream: TextIO) -> bool:
    """Return whether *stream* is a terminal on which text can be drawn over."""
    return stream.isatty() and not is_dumb()


def has_rich() -> bool:
    """Return whether Rich is installed, which draws bars and wraps tables. Without it, output is plain as in a file."""
    return is_installed("rich")


def has_colors(stream: TextIO, color: str = "auto") -> bool:
    """
    Return whether to write colours to *stream*; *color* is the value of ``--color``.

    With ``auto``: not if ``NO_COLOR`` is set; always if ``CLICOLOR_FORCE`` or ``FORCE_COLOR`` is; else on a terminal
    that is not dumb.
    """
    if color != "auto":
        return color == "always"
    wanted = terminal_variables().colors
    return is_live(stream) if wanted is None else wanted


def console(color: str = "auto", *, stderr: bool = False) -> Console:
    """Return a Rich console on standard output, or on standard error, with colours by `has_colors`."""
    # Most commands write without it, it is optional, and it is slow to import.
    from rich.console import Console

    colors = has_colors(sys.stderr if stderr else sys.stdout, color)
    forced = True if color == "always" else None
    return Console(stderr=stderr, no_color=not colors, force_terminal=forced, highlight=False)
