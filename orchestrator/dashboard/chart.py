"""Throughput over time as an SVG path; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from .throughput_history import Throughput

WIDTH: Final = 600
HEIGHT: Final = 120

# Columns of the chart; more would not be visible.
COLUMNS: Final = 120


@dataclass(frozen=True)
class Chart:
    """
    A line and the area below it, as SVG paths in a box of `WIDTH` x `HEIGHT`.

    *begin* and *end* are seconds since the epoch; *peak* is the value at the top, in bytes per second, or in objects
    per second if *objects*.
    """

    line: Markup
    area: Markup
    begin: float
    end: float
    peak: float
    objects: bool


def chart(past: Sequence[Throughput], columns: int = COLUMNS) -> Chart | None:
    """
    Return the chart of *past* throughput, None of fewer than three values; of objects if there are no bytes.

    Each of *columns* is a mean. As many as there are values, if these are equally long, show each value as it is.
    """
    if len(past) < 3:
        return None
    objects = not any(each.size_bytes for each in past)
    begin, end = past[0].begin, past[-1].end
    width = (end - begin) / columns
    sums, seconds = [0.0] * columns, [0.0] * columns
    for each in past:
        value = each.objects if objects else each.size_bytes
        first = min(columns - 1, int((each.begin - begin) / width))
        last = min(columns - 1, int((each.end - begin) / width))
        for column in range(first, last + 1):
            # The part of the column that this value covers, in seconds.
            share = min(each.end, begin + (column + 1) * width) - max(each.begin, begin + column * width)
            sums[column] += value * max(0.0, share)
            seconds[column] += max(0.0, share)
    values = [total / length if length else 0.0 for total, length in zip(sums, seconds, strict=True)]
    peak = max(values)
    if peak <= 0:
        return None
    step = WIDTH / (columns - 1)
    points = [f"{number * step:.1f} {HEIGHT * (1 - value / peak):.1f}" for number, value in enumerate(values)]
    line = "M" + "L".join(points)
    # Numbers and letters that this function wrote itself: nothing to escape.
    closed = f"{line}L{WIDTH} {HEIGHT}L0 {HEIGHT}Z"
    return Chart(Markup(line), Markup(closed), begin, end, peak, objects)  # noqa: S704  # nosec B704
