"""
All sides in turn: ours, each peer, ours, each peer; and the checks that they made the same.

A *side* is one of those that do the same work: ours, the peers, and the floor, which does the least that anybody would
have to.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .measure import Command, Run, busy_seconds, cores, run
from .progress import say

OURS: Final = "ours"
FLOOR: Final = "floor"
# A command of ours that copies next to nothing.
START: Final = "start"
# The same work by a fleet that runs already, and a job of such a fleet that copies next to nothing.
FLEET: Final = "fleet"
SMALL_JOB: Final = "small job"
_STARTS: Final = (START, SMALL_JOB)


class Different(Exception):
    """Two sides did not make the same; what was measured is worth nothing."""


@dataclass(frozen=True)
class Start:
    """A command of ours that copies next to nothing, and the folder that it makes."""

    command: Command
    made: Path


@dataclass(frozen=True)
class Round:
    """One run of each side, one right after the other."""

    runs: Mapping[str, Run]
    others_share: float
    """What share of the machine's CPU time went to anything else while ours ran, 0.0 to 1.0."""

    @property
    def ours(self) -> Run:
        """The run of ours."""
        return self.runs[OURS]


def measure_rounds(
    number: int,
    sides: Mapping[str, Command],
    *,
    clean: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
    ran: Callable[[str], None] = lambda _: None,
    memory: bool = False,
    by_turns: bool = False,
    start: Start | None = None,
    small_job: Start | None = None,
) -> list[Round]:
    """
    Run *number* rounds of all *sides*; *clean* makes place before each, *check* looks at the results of the first.

    *ran* is called right after each run with the side that it was. *by_turns*: every second round runs the sides in the
    opposite order. *start* and *small_job* run first in each round, as sides of their own. What the last round made is
    left behind. Raises `CommandFailed`, and what *check* raises.
    """
    rounds = []
    for at in range(number):
        clean()
        runs: dict[str, Run] = {}
        shares: dict[str, float] = {}
        order = list(sides.items())
        if by_turns and at % 2:
            order.reverse()
        for side, first in ((SMALL_JOB, small_job), (START, start)):
            if first is not None:
                remove(first.made)
                order.insert(0, (side, first.command))
        for side, command in order:
            busy, started = busy_seconds(), time.monotonic()
            # Measuring memory takes time, which must not make the floor higher.
            found = runs[side] = run(command, memory=memory and side not in (FLOOR, *_STARTS))
            busy, elapsed = busy_seconds() - busy, time.monotonic() - started
            shares[side] = max(0.0, (busy - found.cpu_seconds) / elapsed / cores())
            say(f"  round {at + 1} of {number}: {side} {_words(found)}")
            if side not in _STARTS:
                ran(side)
        rounds.append(Round({side: runs[side] for side in (*sides, *_STARTS) if side in runs}, shares[OURS]))
        if at == 0:
            check()
    return rounds


def peers_in(rounds: Sequence[Round]) -> list[str]:
    """Return the sides that do the work with other programs, in their order."""
    return [side for side in rounds[0].runs if side not in (OURS, FLOOR, FLEET, *_STARTS)]


def seconds_of(rounds: Sequence[Round], side: str) -> tuple[float, ...]:
    """Return the wall time of a side in each round."""
    return tuple(one.runs[side].seconds for one in rounds)


def floor_of(rounds: Sequence[Round]) -> tuple[float, ...]:
    """Return the seconds of the floor's work in each round, without the start of its Python; () without a floor."""
    return tuple(one.runs[FLOOR].work_seconds for one in rounds if FLOOR in one.runs)


def start_of(rounds: Sequence[Round]) -> tuple[float, ...]:
    """Return the wall time of the start in each round; () where it was not measured."""
    return tuple(one.runs[START].seconds for one in rounds if START in one.runs)


def same_folders(one: Path, other: Path) -> None:
    """Raises `Different` unless both folders hold the same files with the same bytes, and hold any at all."""
    found = subprocess.run(["diff", "-rq", str(one), str(other)], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise Different(f"diff -r of both destinations: {(found.stdout + found.stderr)[:2000]}")
    if not any(path.is_file() for path in (one / ".manifests").rglob("*")):
        raise Different(f"no manifest in {one}")


def same_trees(one: Path, other: Path) -> None:
    """Raises `Different` unless both trees have the same files with the same bytes, all with the same modes."""
    found = subprocess.run(["diff", "-rq", str(one), str(other)], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise Different(f"diff -r of both trees: {(found.stdout + found.stderr)[:2000]}")
    paths = [path.relative_to(one) for path in one.rglob("*")]
    if not paths:
        raise Different(f"nothing in {one}")
    for path in (Path(), *paths):
        modes = [(root / path).stat().st_mode for root in (one, other)]
        if modes[0] != modes[1]:
            raise Different(f"{path} has mode {modes[0]:o} in {one}, and {modes[1]:o} in {other}")


def holds_all_of(one: Path, other: Path) -> None:
    """Raises `Different` unless *one* holds every file of *other*, with the same bytes, and there is a manifest."""
    manifests = 0
    for folder, _, names in os.walk(other):
        for name in names:
            path = Path(folder, name)
            inside = path.relative_to(other)
            manifests += inside.parts[0] == ".manifests"
            if not (one / inside).is_file() or (one / inside).read_bytes() != path.read_bytes():
                raise Different(f"{inside} of {other} is not the same in {one}")
    if not manifests:
        raise Different(f"no manifest in {other}")


def remove(*folders: Path) -> None:
    """Remove *folders*, those that exist."""
    for folder in folders:
        if folder.exists():
            shutil.rmtree(folder)


def _words(found: Run) -> str:
    memory = f" {found.pss_bytes / 1e6:.0f} MB" if found.pss_bytes else ""
    return f"{found.seconds:.2f} s (CPU {found.user_seconds:.2f} + {found.system_seconds:.2f} s){memory}"
