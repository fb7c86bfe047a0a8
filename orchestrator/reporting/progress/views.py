"""The views of a job's progress, and which one suits the terminal."""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, Protocol

from snapferry.orchestrator.reporting.nodes import Lack
from snapferry.orchestrator.reporting.terminal import has_rich, is_dumb, is_live
from snapferry.workers.ledger import JobStatus

from .line import progress_text

# Seconds between two lines without a live terminal.
LINE_EVERY_S: Final = 5.0


class View(Protocol):
    """Shows each status of a job, in order."""

    def show(self, status: JobStatus, lacks: Lack = None) -> None:
        """Show *status*. *lacks* as for `stall_text`."""


class Silent:
    """Shows nothing."""

    def show(self, status: JobStatus, lacks: Lack = None) -> None:
        """Show nothing."""


class Lines:
    """A plain line every `LINE_EVERY_S` seconds, for logs and for terminals that cannot move their cursor."""

    def __init__(self) -> None:
        self._due = time.monotonic() + LINE_EVERY_S

    def show(self, status: JobStatus, lacks: Lack = None) -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        if now >= self._due and not status.state.final:
            self._due = now + LINE_EVERY_S
            print(f"snapferry: {progress_text(status, lacks)}", file=sys.stderr, flush=True)


def view(*, quiet: bool, color: str) -> tuple[View, AbstractContextManager[Any]]:
    """Return the view for this terminal, and a context in which to use it."""
    if quiet:
        return Silent(), nullcontext()
    if (is_live(sys.stderr) or (color == "always" and not is_dumb())) and has_rich():
        # Rich is not loaded where no bar is drawn.
        from .bar import Bar

        bar = Bar(color)
        return bar, bar.live
    return Lines(), nullcontext()
