"""
A job on the terminal: a live bar where there is a terminal, a line now and then where there is none.

All of it goes to standard error; standard output is for results.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from workers.describe import size
from workers.ledger import JobStatus, State

# Seconds between two lines where there is no terminal.
LINE_EVERY_S = 5.0

# A job that nobody has taken for this long is worth a word.
PATIENCE_S = 10.0


class View(Protocol):
    """Shown each status of a job, in order."""

    def show(self, status: JobStatus) -> None:
        """Show *status*."""


class Silent:
    """Shows nothing."""

    def show(self, status: JobStatus) -> None:
        """Show nothing."""


class Lines:
    """One plain line now and then, for logs."""

    def __init__(self) -> None:
        self._due = time.monotonic() + LINE_EVERY_S

    def show(self, status: JobStatus) -> None:
        """Print a line if it is time for one."""
        now = time.monotonic()
        if now >= self._due and not status.state.final:
            self._due = now + LINE_EVERY_S
            print(f"snapferry: {in_words(status)}", file=sys.stderr, flush=True)


class Bar:
    """A live bar: share, objects, bytes, rate, time left."""

    def __init__(self, color: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True, no_color=color == "never", force_terminal=color == "always" or None)
        self.live: Any = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} % · {task.fields[counts]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            expand=True,
        )
        self._bar = self.live.add_task("queued", total=None, counts="")

    def show(self, status: JobStatus) -> None:
        """Move the bar."""
        share = _share(status)
        counts = ""
        if status.objects_total:
            counts = (
                f"{status.objects_settled:,}/{status.objects_total:,} objects"
                f" · {size(status.bytes_settled)}/{size(status.bytes_total)} · {_rate(status)}"
            )
        self.live.update(
            self._bar,
            description=_stage(status),
            completed=share,
            total=1.0 if status.objects_total else None,
            counts=counts,
        )


def view(*, quiet: bool, color: str) -> tuple[View, AbstractContextManager[Any]]:
    """Return what shows a job here, and a context to show it in."""
    if quiet:
        return Silent(), nullcontext()
    if color == "always" or sys.stderr.isatty():
        bar = Bar(color)
        return bar, bar.live
    return Lines(), nullcontext()


def in_words(status: JobStatus) -> str:
    """Return a job's progress in one line."""
    if not status.objects_total:
        return _stage(status)
    return (
        f"{_stage(status)}: {_share(status):.0%}, {status.objects_settled:,} of {status.objects_total:,} objects,"
        f" {size(status.bytes_settled)} of {size(status.bytes_total)}, {_rate(status)}{_left(status)}"
    )


def _stage(status: JobStatus) -> str:
    waited = time.time() - (status.started_at or status.submitted_at)
    if status.state is State.QUEUED and waited > PATIENCE_S:
        return "waiting for an orchestrator to take the job (is one running?)"
    if status.state is State.COPYING and not status.objects_settled and waited > PATIENCE_S:
        return "waiting for the first objects (is a worker running?)"
    return str(status.state)


def _share(status: JobStatus) -> float:
    """Return the settled share, 0.0 to 1.0: of the bytes, or of the objects where there are no bytes."""
    if status.bytes_total:
        return status.bytes_settled / status.bytes_total
    return status.objects_settled / status.objects_total if status.objects_total else 0.0


def _rate(status: JobStatus) -> str:
    elapsed = (status.ended_at or time.time()) - status.started_at
    return f"{size(status.bytes_settled / elapsed)}/s" if status.started_at and elapsed > 0 else ""


def _left(status: JobStatus) -> str:
    share = _share(status)
    if not 0.0 < share < 1.0:
        return ""
    elapsed = time.time() - status.started_at
    return f", {elapsed * (1 - share) / share:.0f} s left"
