"""
Draw the samples of a soak: `python -m tests.endurance.plot soak.json docs/images/soak.svg`. Needs matplotlib.

Each figure is drawn as a share of its median after the warm-up, so that growth shows in all of them alike.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from .samples import WARM_UP

_INK = "#7d8590"


def draw(samples: dict[str, list[list[float]]], file: Path) -> None:
    """Draw *samples*, name -> places, into *file*: memory above, file descriptors, threads and keys below."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "soak", **dict.fromkeys(inks, _INK)}
    with rc_context(settings):
        figure = Figure(figsize=(7, 6), layout="constrained")
        longest = max(at for places in samples.values() for at, _ in places) / 60
        above, below = figure.subplots(2, 1, sharex=True)
        for name, places in samples.items():
            end = max(at for at, _ in places)
            middle = median(value for at, value in places if at >= end * WARM_UP)
            if not middle:
                continue
            axes = above if name.endswith(" memory") else below
            minutes = [at / 60 for at, _ in places]
            axes.plot(minutes, [value / middle for _, value in places], label=name, linewidth=1.2)
        above.set(title="Memory, as a share of its median", ylim=(0, 1.6))
        below.set(title="Files, threads and keys, as a share of their median", xlabel="minutes", ylim=(0, 2))
        for axes in (above, below):
            axes.axvline(WARM_UP * longest, color=_INK, linestyle="--", linewidth=0.8)
            axes.grid(color=_INK, alpha=0.25, linewidth=0.6)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, fontsize=7, ncols=3, loc="lower right")
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
