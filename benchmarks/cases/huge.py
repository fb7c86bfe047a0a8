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
from ..rounds import OURS, Different, Round, measure_rounds, remove
from ..servers import BigServer
from .buckets import SOURCE
from .case import SERVED, Setting
from .s3 import THROUGH

SIZES: Final = (100_000_000, 1_000_000_000, 5_000_000_000, 20_000_000_000)
MAX_MEMORY_MB: Final = 300

# The peer holds whole objects in memory, several times over.
PEER_UP_TO: Final = 1_000_000_000


@dataclass(frozen=True)
class Way:
    """From where to where."""

    words: str
    from_file: bool
    to_file: bool


WAYS: Final = (Way("file to S3", True, False), Way("S3 to S3", False, False), Way("S3 to file", False, True))


def huge(setting: Setting) -> list[Result]:
    """Measure all sizes all ways: time beside rclone's, and the memory of the largest process."""
    results: list[Result] = []
    for size in SIZES:
        for way in WAYS:
            # A file is written with all its zeros.
            if way.to_file and size > PEER_UP_TO:
                continue
            results += _one(setting, size // setting.scale, way, goals=size == SIZES[-1] and setting.full)
    return results


def _one(setting: Setting, size_bytes: int, way: Way, *, goals: bool) -> list[Result]:
    folder = setting.folder / "huge"
    served, to = folder / "served", folder / "to"
    store = served / SOURCE
    sides = [OURS, RCLONE, *([SNAPDIR] if size_bytes <= PEER_UP_TO else [])]
    folder.mkdir()
    try:
        snapshot, address = data.sparse_store(folder, store, size_bytes=size_bytes)
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
            }

            def ran(side: str) -> None:
                key = object_key(address)
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
            )
        return _lines(size_bytes, way, rounds, goals=goals)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lines(size_bytes: int, way: Way, rounds: Sequence[Round], *, goals: bool) -> list[Result]:
    words = f"one object of {size_bytes / 1e9:g} GB, {way.words}"
    points = [
        Point(
            MEMORY.name,
            f"{_NAMES.get(side, side)}, {way.words}",
            size_bytes / 1e6,
            max(one.runs[side].largest_bytes / 1e6 for one in rounds),
        )
        for side in rounds[0].runs
    ]
    return [
        largest_process(words, rounds, Goal(value=MAX_MEMORY_MB) if goals else None, points),
        timed(words, rounds, Goal(ratio=1.0, to=RCLONE) if goals else None, others_are=SERVED),
    ]


_NAMES: Final = {OURS: "snapferry"}
