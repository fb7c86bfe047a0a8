"""Throughput over time as the points of a small drawing; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from .speed_history import Speed

WIDTH: Final = 600
HEIGHT: Final = 120

# So many columns: more is not seen, and costs bytes.
COLUMNS: Final = 120


@dataclass(frozen=True)
class Chart:
    """
    A line and the area below it, as SVG paths in a box of `WIDTH` x `HEIGHT`.

    *begin* and *end* are seconds since the epoch; *peak* is what the top means, in bytes or *objects* a second.
    """

    line: Markup
    area: Markup
    begin: float
    end: float
    peak: float
    objects: bool


def chart(speeds: Sequence[Speed]) -> Chart | None:
    """Return the chart of *speeds*, None of fewer than three. It is of objects where no bytes were moved."""
    if len(speeds) < 3:
        return None
    objects = not any(speed.size_bytes for speed in speeds)
    begin, end = speeds[0].begin, speeds[-1].end
    width = (end - begin) / COLUMNS
    sums, seconds = [0.0] * COLUMNS, [0.0] * COLUMNS
    for speed in speeds:
        value = speed.objects if objects else speed.size_bytes
        first = min(COLUMNS - 1, int((speed.begin - begin) / width))
        last = min(COLUMNS - 1, int((speed.end - begin) / width))
        for column in range(first, last + 1):
            # As much of the column as this stretch covers.
            share = min(speed.end, begin + (column + 1) * width) - max(speed.begin, begin + column * width)
            sums[column] += value * max(0.0, share)
            seconds[column] += max(0.0, share)
    values = [total / length if length else 0.0 for total, length in zip(sums, seconds, strict=True)]
    peak = max(values)
    if peak <= 0:
        return None
    step = WIDTH / (COLUMNS - 1)
    points = [f"{number * step:.1f} {HEIGHT * (1 - value / peak):.1f}" for number, value in enumerate(values)]
    line = "M" + "L".join(points)
    # Numbers and letters of this function's own: nothing to escape, and not to be cut.
    closed = f"{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"
    return Chart(Markup(line), Markup(closed), begin, end, peak, objects)  # noqa: S704  # nosec B704
