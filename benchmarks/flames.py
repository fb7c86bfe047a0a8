"""
Draw what the processes of a command did, one above the other.

Without matplotlib everything but `draw` works.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# As in `plots`: to be seen on a light page and on a dark one.
_INK: Final = "#7d8590"
_RUNNING: Final = "#2f81f7"
_TASK: Final = "#2da44e"
_OF_OURS: Final = "#e36209"
_OF_OTHERS: Final = "#d4a72c"

# The drawing is this many characters wide.
_CHARACTERS: Final = 125
# The name of a task at the very end needs room.
_ROOM: Final = 1.06
# Imports that are deeper or shorter are not drawn.
_MOST_ROWS: Final = 9
_SHORTEST_MS: Final = 1.0
# Less than this many characters say nothing.
_SHORTEST_NAME: Final = 3


@dataclass
class Lane:
    """One process: what it did, in milliseconds since the start of the command."""

    name: str
    begin_ms: float
    end_ms: float
    imports: list[tuple[str, float, float, int]] = field(default_factory=list)
    """Module, begin, end, and how many of these imports it is within."""
    tasks: list[tuple[str, float, float]] = field(default_factory=list)
    running: list[tuple[float, float, float]] = field(default_factory=list)
    """Begin, end, and the cores that it had on average."""

    @property
    def cpu_ms(self) -> float:
        return sum((end - begin) * cores for begin, end, cores in self.running)


def draw(lanes: Sequence[Lane], file: Path) -> None:
    """Draw *lanes* into *file*: below how much each ran, above it its imports, or its tasks. Needs matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "start",
        "font.family": "sans-serif",
        "font.size": 9,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
        ),
    }
    with rc_context(settings):
        rows = sum(map(_rows, lanes)) + len(lanes)
        figure = Figure(figsize=(9, 0.24 * rows + 1), layout="constrained")
        axes = figure.add_subplot()
        whole = max(lane.end_ms for lane in lanes)
        ticks, base = [], 0.0
        for lane in reversed(lanes):
            _draw(axes, lane, base, whole / _CHARACTERS)
            ticks.append((base + 0.4, lane.name))
            base += _rows(lane) + 1
        axes.set_yticks([at for at, _ in ticks], labels=[name for _, name in ticks])
        axes.set(xlabel="milliseconds since the start", xlim=(0, _ROOM * whole))
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.grid(axis="x", color=_INK, alpha=0.25, linewidth=0.6)
        axes.set_axisbelow(True)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _rows(lane: Lane) -> int:
    """Return how many rows of bars *lane* has."""
    return 1 + max([int(bool(lane.tasks)), *(depth + 1 for *_, depth in _drawn(lane))])


def _drawn(lane: Lane) -> list[tuple[str, float, float, int]]:
    return [
        (name, begin, end, depth)
        for name, begin, end, depth in lane.imports
        if depth < _MOST_ROWS and end - begin >= _SHORTEST_MS
    ]


def _draw(axes: Any, lane: Lane, base: float, character_ms: float) -> None:
    axes.broken_barh([(lane.begin_ms, lane.end_ms - lane.begin_ms)], (base, 0.8), facecolor=_INK, alpha=0.15)
    if lane.running:
        begins = [begin for begin, _, _ in lane.running]
        tops = [base + 0.8 * min(1.0, cores) for _, _, cores in lane.running]
        end = lane.running[-1][1]
        axes.fill_between(
            [*begins, end], base, [*tops, tops[-1]], step="post", facecolor=_RUNNING, linewidth=0
        )

    def bar(name: str, begin: float, end: float, at: float, colour: str, *, whole: bool = False) -> None:
        axes.broken_barh(
            [(begin, end - begin)], (at, 0.92), facecolor=colour, edgecolor="white", linewidth=0.3, alpha=0.8
        )
        room = len(name) if whole else int((end - begin) / character_ms)
        if room > _SHORTEST_NAME:
            shown = name if len(name) <= room else name[: room - 1] + "…"
            axes.text(begin + 1, at + 0.42, shown, va="center", fontsize=7, color="black", clip_on=True)

    for name, begin, end, depth in _drawn(lane):
        colour = _OF_OURS if name.startswith("snapferry") else _OF_OTHERS
        bar(name.rpartition("snapferry.")[2], begin, end, base + 1 + depth, colour)
    for name, begin, end in lane.tasks:
        bar(name, begin, end, base + 1, _TASK, whole=True)
