"""Two buckets of one server, which copies the bytes by itself: ours verifies them, and rclone does not."""

from __future__ import annotations

import shutil
from typing import Final

from .. import commands, data
from ..measure import Command
from ..one_sided import objects_of
from ..report import RCLONE, Goal, Result, timed
from ..rounds import FLOOR, OURS, measure_rounds, remove
from ..servers import S3Server
from .buckets import SOURCE, part_of, same_buckets
from .case import SERVED, Setting
from .start import start_in

FILES: Final = 250
SIZE_BYTES: Final = 4_000_000

# The same copy, by which the worker sends the bytes.
SENT: Final = "snapferry, sent"


def server_side(setting: Setting) -> list[Result]:
    """Measure 1 GB between two buckets of a server on a directory."""
    files = FILES // setting.scale
    store, served = setting.folder / "store", setting.folder / "served"
    snapshot = data.pushed_store(setting.folder, store, files=files, size_bytes=SIZE_BYTES)
    buckets = {OURS: "ours", SENT: "sent", RCLONE: "rclone", FLOOR: "floor"}
    keys = setting.folder / "keys"
    keys.write_text("\n".join(line.partition(" ")[0] for line in objects_of(store).splitlines()))
    with S3Server(str(served), setting.folder / "server.log") as server:

        def clean() -> None:
            remove(served)
            for bucket in buckets.values():
                (served / bucket).mkdir(parents=True)
            shutil.copytree(store, served / SOURCE)
            server.restart()

        def check() -> None:
            same_buckets(server, buckets[OURS], buckets[SENT], buckets[RCLONE])
            part_of(server, buckets[FLOOR], buckets[OURS])

        def ours(side: str, *options: str) -> Command:
            urls = f"s3://{SOURCE}", f"s3://{buckets[side]}"
            return commands.ours("sync", *urls, "--id", snapshot, "--json", *options, more=server.environment)

        rounds = measure_rounds(
            setting.times(3),
            {
                OURS: ours(OURS, "--server-side"),
                SENT: ours(SENT),
                RCLONE: server.rclone_command("copy", f":s3:{SOURCE}", f":s3:{buckets[RCLONE]}"),
                FLOOR: commands.floor("server-side", server.endpoint, SOURCE, buckets[FLOOR], str(keys)),
            },
            clean=clean,
            check=check,
            start=start_in(setting.folder),
        )
    words = f"{files:,} files of {SIZE_BYTES / 1e6:g} MB, S3 to S3, copied by the server"
    goal = setting.goal(Goal(ratio=1.0, to=RCLONE))
    return [timed(words, rounds, goal, others_are=SERVED, objects=files)]
