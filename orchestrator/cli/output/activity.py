"""What a long read has done so far, on standard error: a status line on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from snapferry.orchestrator.cli.exit_codes import note
from snapferry.orchestrator.reporting.terminal import console, has_rich, is_live

# Seconds between two lines without a terminal, and between two changes of the status line.
LINE_EVERY_S: Final = 5.0
CHANGE_EVERY_S: Final = 0.1

Report = Callable[[str], None]
"""Called with what was done so far, as often as it changes."""


@contextmanager
def activity(*, silent: bool) -> Iterator[Report]:
    """Show what is reported inside the block, nothing if *silent*. Standard output must wait until the block ends."""
    if silent:
        yield lambda _: None
    elif is_live(sys.stderr) and has_rich():
        with console(stderr=True).status("reading") as status:
            yield _every(CHANGE_EVERY_S, status.update)
    else:
        yield _every(LINE_EVERY_S, note)


def _every(seconds: float, show: Report) -> Report:
    """Return *show*, called no more often than each *seconds*."""
    due = time.monotonic() + seconds

    def report(text: str) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + seconds
            show(text)

    return report
