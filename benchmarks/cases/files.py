"""Directory to directory: in memory, and on a disk; and what a command costs before it copies anything."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Final

from .. import commands, data, servers
from ..fleet import Fleet
from ..measure import Command, filesystem
from ..plots import TIME, Point
from ..report import FLUSHED, RCLONE, SNAPDIR, Goal, Result, timed
from ..rounds import (
    FLEET,
    FLOOR,
    OURS,
    Round,
    Start,
    measure_rounds,
    remove,
    same_folders,
    seconds_of,
)
from .alone import fleet_in, job_alone, small_job
from .case import Setting
from .start import start_in

Measure = Callable[[Setting], list[Result]]

# So many files on a disk are kept until the end of the case: for minutes ext4 uses no inode again that was just
# freed, and looks at each of those that it passes over whenever it needs one. Whoever ran last would pay for all.
MANY: Final = 1_000

START_S: Final = 0.35
HELP_S: Final = 0.3


def in_memory(
    files: int,
    size_bytes: int,
    size: str,
    *,
    rounds: int,
    goal: Goal,
    job_goal: Goal | None = None,
    beside_rclone: bool = False,
) -> Measure:
    """
    Return the case of *files* files of a size, directory to directory in memory.

    *goal* is that of the whole command, and without a *job_goal* of its own that of the job alone as well.
    """

    def measure(setting: Setting) -> list[Result]:
        number = files // setting.scale
        with fleet_in(setting.folder) as fleet:
            found = _copied(
                setting.folder,
                number,
                size_bytes,
                setting.times(rounds),
                beside_rclone=beside_rclone,
                start=start_in(setting.folder),
                fleet=fleet,
                first=small_job(setting.folder, fleet),
            )
        words = f"{number:,} files of {size}, file to file"
        points = _points(number, size_bytes, found)
        return [
            timed(words, found, setting.goal(goal), objects=number, points=points),
            job_alone(words, found, setting.goal(job_goal or goal)),
        ]

    return measure


def on_disk(
    files: int,
    size_bytes: int,
    size: str,
    *,
    rounds: int,
    goal: Goal | None = None,
    ext4_job_goal: Goal | None = None,
) -> Measure:
    """
    Return the case of *files* files of a size, directory to directory on a disk: ours durably, the peer not.

    *goal* is that of the whole command and of the job alone; *ext4_job_goal* that of the job alone, on ext4.
    """

    def measure(setting: Setting) -> list[Result]:
        number = files // setting.scale
        times = setting.times(rounds)
        start, disk = start_in(setting.folder), filesystem(setting.disk)
        with fleet_in(setting.folder) as fleet:
            found = _copied(
                setting.disk,
                number,
                size_bytes,
                times,
                durable=True,
                beside_rclone=True,
                start=start,
                fleet=fleet,
                first=small_job(setting.folder, fleet),
            )
        words = f"{number:,} files of {size}, file to file on a disk ({disk}), snapferry durably"
        whole = setting.goal(goal) if goal else None
        job = setting.goal(ext4_job_goal) if ext4_job_goal and disk == "ext4" else whole
        return [timed(words, found, whole, objects=number), job_alone(words, found, job)]

    return measure


def startup(setting: Setting) -> list[Result]:
    """Measure ten files, and the help."""
    times = setting.times(5)
    sync = _copied(setting.folder, 10, 4096, times)
    shown = measure_rounds(
        times,
        {OURS: commands.ours("--help"), SNAPDIR: commands.peer("import", cache=setting.folder / "cache")},
    )
    started = timed(
        "start: 10 files of 4 KiB, file to file", sync, Goal(value=START_S), points=_points(10, 4096, sync)
    )
    return [
        # Copying ten files takes no time, so a floor of it says nothing.
        replace(started, floor=()),
        timed("start: `--help`; peer: bare import", shown, Goal(value=HELP_S)),
    ]


def _copied(
    folder: Path,
    files: int,
    size_bytes: int,
    times: int,
    *,
    durable: bool = False,
    beside_rclone: bool = False,
    start: Start | None = None,
    fleet: Fleet | None = None,
    first: Start | None = None,
) -> list[Round]:
    """Run all sides; *first* is a small job of *fleet*."""
    source = folder / "source"
    snapshot = data.pushed_store(folder, source, files=files, size_bytes=size_bytes)

    def of(side: str) -> Path:
        return folder / side.replace(", ", "-")

    def peer(how: str, side: str) -> Command:
        stores = f"file://{source}", f"file://{of(side)}"
        return commands.peer(how, snapshot, *stores, cache=folder / "cache")

    sides = {
        OURS: commands.ours_sync(snapshot, f"file://{source}", f"file://{of(OURS)}"),
        SNAPDIR: peer("sync", SNAPDIR),
    }
    if durable:
        sides[FLUSHED] = peer("sync-flushed", FLUSHED)
    if beside_rclone:
        sides[RCLONE] = Command(
            [servers.rclone(), "copy", str(source), str(of(RCLONE))],
            commands.environment({"RCLONE_CONFIG": ""}),
        )
    if fleet is not None:
        stores = f"file://{source}", f"file://{of(FLEET)}"
        sides[FLEET] = commands.ours_on_fleet(snapshot, *stores, broker=fleet.broker, more={})
    more = ["--durable"] if durable else []
    sides[FLOOR] = commands.floor("files", str(source), str(of(FLOOR)), *more)
    made = [of(side) for side in sides]
    before = itertools.count()

    def clean() -> None:
        for one in made:
            if durable and one.exists() and files >= MANY:
                one.rename(folder / f"{one.name}-{next(before)}")
        remove(*made)
        if durable:
            os.sync()

    def check() -> None:
        for one in made[1:]:
            same_folders(made[0], one)

    def settle(_: str) -> None:
        # What one side leaves for the disk to do later must not weigh on the next.
        if durable:
            os.sync()

    return measure_rounds(times, sides, clean=clean, check=check, ran=settle, start=start, small_job=first)


def _points(files: int, size_bytes: int, rounds: list[Round]) -> list[Point]:
    if size_bytes != 4096:
        return []
    lines = {OURS: "snapferry, file to file", SNAPDIR: "snapdir, file to file"}
    return [Point(TIME.name, line, files, median(seconds_of(rounds, side))) for side, line in lines.items()]
