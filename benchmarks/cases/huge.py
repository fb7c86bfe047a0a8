"""One huge object, sparse so that it takes no room: from a file to S3, between two buckets, and from S3 to a file."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from snapferry.stores.address import object_key

from .. import commands, data
from ..floor import digest_of
from ..plots import MEMORY, Point
from ..report import RCLONE, SNAPDIR, Goal, Result, largest_process, timed
from ..rounds import FLOOR, OURS, Different, Round, Start, measure_rounds, peers_in, remove
from ..servers import BigServer
from .buckets import SOURCE
from .case import SERVED, Setting, need_memory
from .s3 import THROUGH
from .start import start_in

SIZES: Final = (100_000_000, 1_000_000_000, 5_000_000_000, 20_000_000_000)
MAX_MEMORY_MB: Final = 300

# The peer holds whole objects in memory, several times over.
PEER_UP_TO: Final = 1_000_000_000

# A file is written with all its zeros, in memory.
FILE_UP_TO: Final = 5_000_000_000


@dataclass(frozen=True)
class Way:
    """From where to where, and the goal: a ratio to rclone's time."""

    words: str
    from_file: bool
    to_file: bool
    goal: float

    def goal_for(self, size_bytes: int) -> Goal | None:
        """Return the goal for the time of an object of that size."""
        if size_bytes == SIZES[0]:
            return Goal(ratio=1.5, to=RCLONE) if self.to_file else None
        return Goal(ratio=1.0 if size_bytes == SIZES[-1] else self.goal, to=RCLONE)


WAYS: Final = (
    Way("file to S3", True, False, 0.5),
    Way("S3 to S3", False, False, 0.8),
    Way("S3 to file", False, True, 1.0),
)


def huge(setting: Setting) -> list[Result]:
    """Measure all sizes all ways: time beside rclone's and the floor's, and the memory of the largest process."""
    need_memory((FILE_UP_TO + 2_000_000_000) // setting.scale, "the copies in memory")
    results: list[Result] = []
    start = start_in(setting.folder)
    for size in SIZES:
        for way in WAYS:
            if way.to_file and size > FILE_UP_TO:
                continue
            results += one(setting, size // setting.scale, way, start)
    return results


def one(setting: Setting, size_bytes: int, way: Way, start: Start) -> list[Result]:
    """Measure an object of one size one way."""
    folder = setting.folder / "huge"
    served, to = folder / "served", folder / "to"
    store = served / SOURCE
    sides = [OURS, RCLONE, *([SNAPDIR] if size_bytes <= PEER_UP_TO else []), FLOOR]
    folder.mkdir()
    try:
        snapshot, address = data.sparse_store(folder, store, size_bytes=size_bytes)
        key = object_key(address)
        for side in sides:
            (served / side).mkdir()
        with BigServer(served, folder / "server.log") as server:
            source = f"file://{store}" if way.from_file else f"s3://{SOURCE}"

            def target(side: str) -> str:
                return f"file://{to}/{side}" if way.to_file else f"s3://{side}"

            def of_rclone(url: str) -> str:
                return (
                    url.removeprefix("file://") if url.startswith("file:") else url.replace("s3://", ":s3:")
                )

            def of_floor(url: str) -> str:
                place = url.replace("s3:/", server.endpoint) if url.startswith("s3:") else of_rclone(url)
                return f"{place}/{key}"

            commands_of = {
                OURS: commands.ours_sync(snapshot, source, target(OURS), server.environment),
                RCLONE: server.rclone_command("copy", of_rclone(source), of_rclone(target(RCLONE)), *THROUGH),
                SNAPDIR: commands.peer(
                    "sync",
                    snapshot,
                    source,
                    target(SNAPDIR),
                    cache=folder / "cache",
                    more=server.environment,
                ),
                FLOOR: commands.large_floor(of_floor(source), of_floor(target(FLOOR))),
            }

            def ran(side: str) -> None:
                found = digest_of(
                    (to / side / key) if way.to_file else None, server.endpoint, f"/{side}/{key}"
                )
                if found != address:
                    raise Different(f"what {side} made of the object hashes to {found}, not to {address}")
                remove(to)

            rounds = measure_rounds(
                setting.times(3 if size_bytes < SIZES[-1] else 1),
                {side: command for side, command in commands_of.items() if side in sides},
                clean=server.restart,
                ran=ran,
                memory=True,
                start=start,
            )
        return _lines(setting, size_bytes, way, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lines(setting: Setting, size_bytes: int, way: Way, rounds: Sequence[Round]) -> list[Result]:
    words = f"one object of {size_bytes / 1e9:g} GB, {way.words}"
    points = [
        Point(
            MEMORY.name,
            f"{_NAMES.get(side, side)}, {way.words}",
            size_bytes / 1e6,
            max(found.runs[side].largest_bytes / 1e6 for found in rounds),
        )
        for side in (OURS, *peers_in(rounds))
    ]
    memory = Goal(value=MAX_MEMORY_MB) if size_bytes == SIZES[-1] else None
    time = way.goal_for(size_bytes) if setting.full else None
    return [
        largest_process(words, rounds, memory, points),
        timed(words, rounds, time, others_are=SERVED),
    ]


_NAMES: Final = {OURS: "snapferry"}
