"""Both sides in turn: ours, the peer, ours, the peer; and the check that both made the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .measure import Command, Run, run


class Different(Exception):
    """The two sides did not make the same; what was measured is worth nothing."""


@dataclass(frozen=True)
class Pair:
    """One run of each side, one right after the other."""

    ours: Run
    peer: Run
    others_share: float
    """What share of the machine's CPU time went to anything else while ours ran, 0.0 to 1.0."""


def measure_pairs(
    number: int,
    ours: Command,
    peer: Command,
    *,
    clean: Callable[[], None] = lambda: None,
    check: Callable[[], None] = lambda: None,
    ran: Callable[[str], None] = lambda _: None,
    memory: bool = False,
) -> list[Pair]:
    """
    Run *number* pairs; *clean* makes place before each of them, *check* looks at the results of the first.

    *ran* is called right after each run with the side that it was: ``"ours"`` or ``"peer"``.

    Raises `CommandFailed`, and what *check* raises.
    """
    pairs = []
    for at in range(number):
        clean()
        busy, started = _busy_seconds(), time.monotonic()
        first = run(ours, memory=memory)
        busy, elapsed = _busy_seconds() - busy, time.monotonic() - started
        ran("ours")
        second = run(peer, memory=memory)
        ran("peer")
        pairs.append(Pair(first, second, max(0.0, (busy - first.cpu_seconds) / elapsed / cores())))
        print(f"  pair {at + 1}: ours {_words(first)}, peer {_words(second)}", file=sys.stderr, flush=True)
        if at == 0:
            check()
    clean()
    return pairs


def same_folders(one: Path, other: Path) -> None:
    """Raises `Different` unless both folders hold the same files with the same bytes, and hold any at all."""
    found = subprocess.run(["diff", "-rq", str(one), str(other)], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise Different(f"diff -r of both destinations: {(found.stdout + found.stderr)[:2000]}")
    if not any(path.is_file() for path in (one / ".manifests").rglob("*")):
        raise Different(f"no manifest in {one}")


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


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _words(found: Run) -> str:
    memory = f" {found.pss_bytes / 1e6:.0f} MB" if found.pss_bytes else ""
    return f"{found.seconds:.2f} s (CPU {found.cpu_seconds:.2f} s){memory}"


def _busy_seconds() -> float:
    """Return the CPU time that the whole machine has spent on anything."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except OSError:
        return 0.0
    user, nice, system, _, _, irq, softirq = ticks[:7]
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
