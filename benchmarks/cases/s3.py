"""Many small objects, to S3 and between two buckets, without latency."""

from __future__ import annotations

import shutil
from pathlib import Path
from statistics import median
from typing import Final

from .. import commands, data
from ..floor import objects_in
from ..plots import TIME, Point
from ..report import RCLONE, SNAPDIR, Goal, Result, timed
from ..rounds import FLOOR, OURS, Start, measure_rounds, remove, seconds_of
from ..servers import S3Server
from .buckets import SOURCE, empty, fill, part_of, same_buckets
from .case import SERVED, Setting
from .start import start_in

S5CMD: Final = "s5cmd"
FILES: Final = 20_000

# Where the server holds all in memory.
GOALS: Final = (Goal(ratio=0.3), Goal(ratio=0.3, to=RCLONE), Goal(ratio=0.4, to=S5CMD))

# rclone lets the server copy what stays on one server; without that it moves the bytes, as the others do.
THROUGH: Final = ("--disable", "copy")


def between_buckets(setting: Setting) -> list[Result]:
    """Measure S3 to S3, on a server that holds all in memory and on one that serves a directory."""
    files = FILES // setting.scale
    store = setting.folder / "store"
    snapshot = data.pushed_store(setting.folder, store, files=files, size_bytes=4096)
    (setting.folder / "keys").write_text("\n".join(_keys(store)))
    start = start_in(setting.folder)
    return [
        _between(setting, store, snapshot, files, start, in_memory=True),
        _between(setting, store, snapshot, files, start, in_memory=False),
    ]


def _between(
    setting: Setting, store: Path, snapshot: str, files: int, start: Start, *, in_memory: bool
) -> Result:
    folder, served, down = setting.folder, setting.folder / "served", setting.folder / "down"
    sides = (OURS, SNAPDIR, RCLONE, S5CMD, FLOOR)
    with S3Server(":memory:" if in_memory else str(served), folder / "server.log") as server:

        def clean() -> None:
            remove(down)
            if in_memory:
                fill(server, store, sides)
                return
            remove(served)
            for side in sides:
                (served / side).mkdir(parents=True)
            shutil.copytree(store, served / SOURCE)
            server.restart()

        def check() -> None:
            same_buckets(server, OURS, SNAPDIR, RCLONE, S5CMD)
            part_of(server, FLOOR, OURS)

        rounds = measure_rounds(
            setting.times(3 if in_memory else 1),
            {
                OURS: commands.ours_sync(snapshot, f"s3://{SOURCE}", f"s3://{OURS}", server.environment),
                SNAPDIR: commands.peer(
                    "sync",
                    snapshot,
                    f"s3://{SOURCE}",
                    f"s3://{SNAPDIR}",
                    cache=folder / "cache",
                    more=server.environment,
                ),
                RCLONE: server.rclone_command("copy", f":s3:{SOURCE}", f":s3:{RCLONE}", *THROUGH),
                S5CMD: server.s5cmd_through(SOURCE, down, S5CMD),
                FLOOR: commands.floor("s3", server.endpoint, SOURCE, FLOOR, str(folder / "keys")),
            },
            clean=clean,
            check=check,
            start=start,
        )
    words = f"{files:,} files of 4 KiB, S3 to S3, no latency, server "
    words += "in memory" if in_memory else "on a directory"
    lines = {OURS: "snapferry, S3 to S3", SNAPDIR: "snapdir, S3 to S3"} if in_memory else {}
    return timed(
        words,
        rounds,
        others_are=SERVED,
        objects=files,
        further_goals=GOALS if in_memory and setting.full else (),
        points=[
            Point(TIME.name, line, files, median(seconds_of(rounds, side))) for side, line in lines.items()
        ],
    )


def upload(setting: Setting) -> list[Result]:
    """Measure a directory to S3."""
    folder, files = setting.folder, FILES // setting.scale
    store = folder / "store"
    snapshot = data.pushed_store(folder, store, files=files, size_bytes=4096)
    sides = (OURS, SNAPDIR, RCLONE, S5CMD)
    with S3Server(":memory:", folder / "server.log") as server:
        rounds = measure_rounds(
            setting.times(3),
            {
                OURS: commands.ours_sync(snapshot, f"file://{store}", f"s3://{OURS}", server.environment),
                SNAPDIR: commands.peer(
                    "sync",
                    snapshot,
                    f"file://{store}",
                    f"s3://{SNAPDIR}",
                    cache=folder / "cache",
                    more=server.environment,
                ),
                RCLONE: server.rclone_command("copy", str(store), f":s3:{RCLONE}"),
                S5CMD: server.s5cmd_upload(store, S5CMD),
            },
            clean=lambda: empty(server, sides),
            check=lambda: same_buckets(server, OURS, SNAPDIR, RCLONE, S5CMD),
        )
    return [
        timed(f"{files:,} files of 4 KiB, file to S3, no latency", rounds, others_are=SERVED, objects=files)
    ]


def _keys(store: Path) -> list[str]:
    (manifest,) = (path for path in (store / ".manifests").rglob("*") if path.is_file())
    return objects_in(manifest.read_bytes())
