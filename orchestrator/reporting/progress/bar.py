"""
The live bar of a job. Rich draws it; which parts it has depends on the width of the terminal.

Each line ends some cells before the edge: the ``^C`` that a terminal echoes would otherwise begin a new row, and the
bar would be drawn below itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.control import Control
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment
from rich.text import Text

from snapferry.orchestrator.reporting.measures import percent, share
from snapferry.orchestrator.reporting.nodes import Lack
from snapferry.orchestrator.reporting.terminal import console
from snapferry.orchestrator.reporting.text.status import stall_text, state_text
from snapferry.workers.ledger import JobStatus

from .line import SPARED, parts

# Cells at the end of each line that stay free, for the echo of Ctrl-C.
SPARE: Final = 3

SHORTEST_BAR: Final = 10
LONGEST_BAR: Final = 60

# Lines for the reason why a job makes no progress.
HINT_LINES: Final = 3


class Bar:
    """A live bar with share, objects, bytes, rate and time left. *live* is the context in which it is shown."""

    def __init__(self, color: str) -> None:
        self._shown = _JobBar()
        self.live: Any = Live(self._shown, console=console(color, stderr=True), refresh_per_second=8)

    def show(self, status: JobStatus, lacks: Lack = None) -> None:
        """Show *status* at the next refresh. *lacks* as for `stall_text`."""
        self._shown.status, self._shown.lacks = status, lacks


class _JobBar:
    """What Rich renders: the last status, in as many cells as the terminal has."""

    def __init__(self) -> None:
        self.status: JobStatus | None = None
        self.lacks: Lack = None
        # The widths of the lines that are on the terminal.
        self._drawn: list[int] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        yield from _erased(self._drawn, width)
        lines = self._lines(console, options, max(1, width - SPARE))
        self._drawn = [sum(segment.cell_length for segment in line) for line in lines]
        for line in lines:
            yield from line
            yield Segment.line()

    def _lines(self, console: Console, options: ConsoleOptions, room: int) -> list[list[Segment]]:
        status = self.status
        if status is None:
            return [_text("starting", room, console)]
        lines = [_bar_line(status, room, console, options)]
        if hint := stall_text(status, self.lacks):
            wrapped = Text(hint, style="yellow").wrap(console, max(1, room - 2))
            if len(wrapped) > HINT_LINES:
                wrapped[HINT_LINES - 1].append(" …")
            lines += [_text(Text("  ") + line, room, console) for line in wrapped[:HINT_LINES]]
        return lines


def _erased(drawn: list[int], width: int) -> Iterator[Segment]:
    """
    Yield what erases the rows that lines of *drawn* cells take beyond one each, on a terminal *width* cells wide.

    A terminal that has become narrower since has broken the lines. Rich has erased one row for each line.
    """
    extra = sum(-(-cells // width) - 1 for cells in drawn if cells)
    if extra > 0:
        yield Control(*[(ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)] * extra).segment


def _bar_line(status: JobStatus, room: int, console: Console, options: ConsoleOptions) -> list[Segment]:
    stage = _text(state_text(status), min(room, max(SHORTEST_BAR, room // 2)), console)
    used = sum(segment.cell_length for segment in stage)
    plain = bool(options.ascii_only)
    shown = parts(status, of="/")
    tail = _tail(status, list(shown.values()), plain=plain)
    for name in SPARED:
        if room - used - 1 - len(tail) >= SHORTEST_BAR:
            break
        shown.pop(name, None)
        tail = _tail(status, list(shown.values()), plain=plain)
    cells = min(LONGEST_BAR, room - used - 1 - len(tail))
    if cells < 1:
        return [*stage, *_text(tail, max(0, room - used), console)]
    return [*stage, Segment(" "), *_bar(status, cells, console, options), *_text(tail, len(tail), console)]


def _tail(status: JobStatus, shown: list[str], *, plain: bool) -> str:
    share = [f"{percent(status)}%"] if status.objects_total and not status.partly_planned else []
    return "".join(
        f"{' ' if not at else ', ' if plain else ' · '}{part}" for at, part in enumerate(share + shown)
    )


def _bar(status: JobStatus, cells: int, console: Console, options: ConsoleOptions) -> list[Segment]:
    bar = ProgressBar(
        total=1.0 if status.objects_total or status.state.final else None,
        completed=share(status),
        width=cells,
        complete_style="red" if status.failed else "bar.complete",
        finished_style="red" if status.failed else "bar.finished",
    )
    drawn = [segment for segment in console.render(bar, options.update(width=cells)) if segment.text != "\n"]
    # Rich draws the rest of a bar in another colour, and not at all without colours.
    rest = cells - sum(segment.cell_length for segment in drawn)
    return [*drawn, Segment(("." if options.ascii_only else "─") * rest)]


def _text(text: str | Text, room: int, console: Console) -> list[Segment]:
    """Return *text* in at most *room* cells."""
    if room < 1:
        return []
    cut = text.copy() if isinstance(text, Text) else Text(text)
    cut.truncate(room, overflow="ellipsis")
    cut.end = ""
    return list(cut.render(console))
