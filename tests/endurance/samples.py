"""What a long run measures of each process and of Redis, and whether it grows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

import redis

# What may change in a run without being growth, by the last word of a series' name: in the unit of the series, and as a
# share of its median.
_NOISE: Final = {
    "memory": (10.0, 0.08),
    "files": (6.0, 0.0),
    "threads": (4.0, 0.0),
    "keys": (60.0, 0.05),
    "temporary": (8.0, 0.0),
}

# The share of a run at its begin in which caches fill and libraries are loaded.
WARM_UP: Final = 0.3


@dataclass
class Series:
    """The values of one figure over a run: (seconds since the begin, value). Memory is in MB."""

    name: str
    places: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Verdict:
    """How much a figure grew from the end of the warm-up to the end of the run, and how much noise may be."""

    name: str
    first: float
    last: float
    growth: float
    allowed: float

    @property
    def grows(self) -> bool:
        """Whether the figure grows."""
        return self.growth > self.allowed


def judge(series: Series) -> Verdict:
    """Return the verdict about *series*, by the slope of Theil and Sen, which outliers do not change."""
    end = max(at for at, _ in series.places)
    places = [(at, value) for at, value in series.places if at >= end * WARM_UP]
    slope = _slope(places)
    span = places[-1][0] - places[0][0]
    noise, share = _NOISE[series.name.rsplit(" ", 1)[-1]]
    middle = median(value for _, value in places)
    return Verdict(series.name, places[0][1], places[-1][1], slope * span, max(noise, share * middle))


def _slope(places: Sequence[tuple[float, float]]) -> float:
    step = max(1, len(places) // 200)
    chosen = places[::step]
    slopes = [
        (later[1] - earlier[1]) / (later[0] - earlier[0])
        for index, earlier in enumerate(chosen)
        for later in chosen[index + 1 :]
        if later[0] > earlier[0]
    ]
    return median(slopes) if slopes else 0.0


def memory_mb(processes: Iterable[int]) -> float:
    """Return the memory of all *processes* together; pages that they share count once."""
    return sum(_pss_kb(process) for process in processes) / 1024


def _pss_kb(process: int) -> int:
    with suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1])
    return 0


def open_files(processes: Iterable[int]) -> int:
    """Return how many file descriptors *processes* have open."""
    return sum(_count(f"/proc/{process}/fd") for process in processes)


def threads(processes: Iterable[int]) -> int:
    """Return how many threads *processes* have."""
    return sum(_count(f"/proc/{process}/task") for process in processes)


def _count(folder: str) -> int:
    with suppress(OSError):
        return len(os.listdir(folder))
    return 0


def entries_below(folder: Path) -> int:
    """Return how many files and directories are below *folder*."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def lasting_keys(client: redis.Redis) -> int:
    """Return the keys in Redis that do not expire, and the members of the list of jobs that have no record."""
    found = [str(key) for key in client.scan_iter(count=5000)]
    jobs = {key.split(":")[2] for key in found if key.startswith("snapferry:job:")}
    with client.pipeline(transaction=False) as pipe:
        for key in found:
            pipe.ttl(key)
        lasting: int = sum(left == -1 for left in pipe.execute())
    listed: Any = client.zrange("snapferry:jobs", 0, -1)
    return lasting + len({*map(str, listed)} - jobs)
