"""
The progress of a job: a live bar on a terminal, else a line every few seconds.

Progress goes to standard error; standard output is for results.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from snapferry.stores.text.format import counted, size
from snapferry.workers.copying.words import WORDS
from snapferry.workers.ledger import JobStatus

from .measures import percent, rate, share
from .text.status import stall_text, state_text, time_left_text

# Seconds between two lines without a terminal.
LINE_EVERY_S = 5.0


class View(Protocol):
    """Shows each status of a job, in order."""

    def show(self, status: JobStatus) -> None:
        """Show *status*."""


class Silent:
    """Shows nothing."""

    def show(self, status: JobStatus) -> None:
        """Show nothing."""


class Lines:
    """A plain line every `LINE_EVERY_S` seconds, for logs."""

    def __init__(self) -> None:
        self._due = time.monotonic() + LINE_EVERY_S

    def show(self, status: JobStatus) -> None:
        """Print a line if one is due."""
        now = time.monotonic()
        if now >= self._due and not status.state.final:
            self._due = now + LINE_EVERY_S
            print(f"snapferry: {progress_text(status)}", file=sys.stderr, flush=True)


class Bar:
    """A live bar with share, objects, bytes, rate and time left."""

    def __init__(self, color: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        console = Console(stderr=True, no_color=color == "never", force_terminal=color == "always" or None)
        self.live: Any = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[percent]:>3} % · {task.fields[counts]}"),
            # Without a minimum width, a narrow terminal cuts this column off.
            TextColumn("{task.fields[left]}", table_column=Column(min_width=11)),
            console=console,
            expand=True,
        )
        self._bar = self.live.add_task("queued", total=None, percent=0, counts="", left="")

    def show(self, status: JobStatus) -> None:
        """Move the bar."""
        self.live.update(
            self._bar,
            description=_stage(status),
            completed=share(status),
            total=1.0 if status.objects_total else None,
            percent=percent(status),
            left=time_left_text(status),
            counts=" · ".join(_counts(status, "/")),
        )


def view(*, quiet: bool, color: str) -> tuple[View, AbstractContextManager[Any]]:
    """Return the view for this terminal, and a context in which to use it."""
    if quiet:
        return Silent(), nullcontext()
    if color == "always" or sys.stderr.isatty():
        bar = Bar(color)
        return bar, bar.live
    return Lines(), nullcontext()


def progress_text(status: JobStatus) -> str:
    """Return the progress of a job in one line."""
    if not status.objects_total:
        return _stage(status)
    parts = [f"{percent(status)}%", *_counts(status, " of ")]
    parts += [left] if (left := time_left_text(status)) else []
    return f"{_stage(status)}: {', '.join(parts)}"


def _stage(status: JobStatus) -> str:
    return stall_text(status) or state_text(status)


def _counts(status: JobStatus, of: str) -> list[str]:
    """Return what is done of how much, with *of* between the two; snapshots only if there are several."""
    if not status.objects_total:
        return []
    snapshots = f"{status.snapshots_settled:,}{of}{counted(status.snapshots_total, 'snapshot')}"
    objects = counted(status.objects_total, WORDS[status.action].unit)
    speed = rate(status)
    return [
        *([snapshots] if status.snapshots_total > 1 else []),
        f"{status.objects_settled:,}{of}{objects}",
        f"{size(status.bytes_settled)}{of}{size(status.bytes_total)}",
        *([f"{size(speed)}/s"] if speed else []),
    ]
