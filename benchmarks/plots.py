"""
The plots in docs: small SVG files, to be read on a light page and on a dark one.

Without matplotlib everything but `draw` works.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "benchmarks"

# Grey that stands out from white as much as from black; the lines' colours are of middling brightness too.
_INK: Final = "#7d8590"
_COLOURS: Final = ("#2f81f7", "#e36209", "#2da44e", "#a371f7", "#d4a72c", "#db61a2", "#1b9aaa", "#8c6d46")

IDEAL: Final = "linear"


class Point(NamedTuple):
    """A place in a plot, on one of its lines; *note* is written beside it."""

    plot: str
    line: str
    x: float
    y: float
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """One plot: its *name* is that of its file."""

    name: str
    title: str
    x: str
    y: str
    scale: Literal["linear", "log"] = "linear"


THROUGHPUT: Final = Plot(
    "throughput",
    "Throughput against workers",
    "worker processes",
    "objects per second",
)
MEMORY: Final = Plot(
    "memory",
    "Memory of the largest process against object size",
    "size of the object (MB)",
    "peak resident memory (MB)",
    "log",
)
TIME: Final = Plot("time", "Time against number of objects", "objects of 4 KiB", "time (s)", "log")

PLOTS: Final = (THROUGHPUT, MEMORY, TIME)


def drawable(points: Iterable[Point]) -> list[Plot]:
    """Return the plots of which *points* has at least two places on a line."""
    return [plot for plot in PLOTS if any(len(line) > 1 for line in _lines(plot, points).values())]


def alt_text(plot: Plot, points: Iterable[Point]) -> str:
    """Return in words what a plot shows."""
    lines = (
        f"{name}: " + ", ".join(f"{_number(x)} → {_number(y)}" for x, y, _ in places)
        for name, places in _lines(plot, points).items()
        if name != IDEAL
    )
    return f"{plot.title}. {plot.x} → {plot.y}. {'; '.join(lines)}."


def draw(plot: Plot, points: Iterable[Point], file: Path) -> None:
    """Draw *plot* with its share of *points* into *file*; the same points give the same file. Needs matplotlib."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": plot.name,
        "font.family": "sans-serif",
        "font.size": 11,
        **dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK
        ),
    }
    with rc_context(settings):
        figure = Figure(figsize=(7, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.set(title=plot.title, xlabel=plot.x, ylabel=plot.y, xscale=plot.scale, yscale=plot.scale)
        lines = _lines(plot, points)
        looks = itertools.product(("-", ":"), _COLOURS)
        for name, places in lines.items():
            xs, ys, notes = zip(*places, strict=True)
            if name == IDEAL:
                axes.plot(xs, ys, label=name, color=_INK, linestyle="--", linewidth=1)
                continue
            style, colour = next(looks)
            axes.plot(
                xs, ys, label=name, color=colour, linestyle=style, marker="o", linewidth=2, markersize=5
            )
            for x, y, note in zip(xs, ys, notes, strict=True):
                if note:
                    axes.annotate(note, (x, y), xytext=(8, -12), textcoords="offset points", fontsize=9)
        axes.xaxis.set_major_formatter(lambda value, _: _number(value))
        axes.yaxis.set_major_formatter(lambda value, _: _number(value))
        if plot.scale == "linear":
            axes.set_xticks(sorted({x for places in lines.values() for x, _, _ in places}))
            axes.set_ylim(bottom=0)
        axes.grid(color=_INK, alpha=0.25, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=9 if len(lines) > len(_COLOURS) else 11)
        file.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


def _lines(plot: Plot, points: Iterable[Point]) -> dict[str, Sequence[tuple[float, float, str]]]:
    found: dict[str, list[tuple[float, float, str]]] = {}
    for point in points:
        if point.plot == plot.name:
            found.setdefault(point.line, []).append((point.x, point.y, point.note))
    return {name: sorted(places) for name, places in found.items()}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
