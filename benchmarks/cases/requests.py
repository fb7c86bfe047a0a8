"""How many requests a sync sends, by the count of the server."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from snapferry.stores.address import object_key, parse_address

from .. import commands, data
from ..measure import run
from ..progress import say
from ..report import SNAPDIR, Goal, Result
from ..rounds import OURS, measure_rounds
from ..servers import S3Server
from .buckets import SOURCE, fill, same_buckets
from .case import Setting

PER_OBJECT: Final = 2.05
RECHECK_SHARE: Final = 0.02

STRANGERS: Final = 1_000
# Where a listing cannot answer for many: it is asked for before it is copied and once more before the manifest is
# written, and copied by two requests. Manifest and bucket come to a few more, whatever the number of objects.
PER_OBJECT_AMONG_STRANGERS: Final = 4
FIXED: Final = 20

Counts = Mapping[str, Sequence[Counter[str]]]


def requests(setting: Setting) -> list[Result]:
    """Count for an empty destination, for one that has everything but the manifest, and for one full of strangers."""
    return [*_empty_and_present(setting), _strangers(setting)]


def _empty_and_present(setting: Setting) -> list[Result]:
    folder, files = setting.folder, 20_000 // setting.scale
    store = folder / "store"
    snapshot = data.pushed_store(folder, store, files=files, size_bytes=4096)
    with S3Server(":memory:", folder / "server.log", count=True) as server:

        def clean() -> None:
            fill(server, store, (OURS, SNAPDIR))
            server.requests()

        def forget() -> None:
            for side in (OURS, SNAPDIR):
                server.rclone("purge", f":s3:{side}/.manifests")
            server.requests()

        first = _counted(setting, server, snapshot, clean)
        same_buckets(server, OURS, SNAPDIR)
        again = _counted(setting, server, snapshot, forget)
        same_buckets(server, OURS, SNAPDIR)
    words = f"{files:,} objects, S3 to S3"
    return [
        counted(f"{words}, into an empty bucket", first, setting.goal(Goal(value=PER_OBJECT * files))),
        counted(f"{words}, all present except the manifest", again, setting.goal(Goal(ratio=RECHECK_SHARE))),
    ]


def _strangers(setting: Setting) -> Result:
    folder, wanted = setting.folder, max(5, 100 // setting.scale)
    store, keys = folder / "few", folder / "strangers"
    snapshot = data.pushed_store(folder, store, files=wanted, size_bytes=4096)
    others = wanted * STRANGERS
    numbers = random.Random(others)
    keys.write_text("\n".join(object_key(parse_address(numbers.randbytes(32).hex())) for _ in range(others)))
    with S3Server(":memory:", folder / "server.log", count=True) as server:

        def clean() -> None:
            fill(server, store, (OURS, SNAPDIR))
            for side in (OURS, SNAPDIR):
                say(f"  {others:,} strangers into the bucket of {side}")
                run(commands.floor("fill", server.endpoint, side, str(keys)))
            server.requests()

        found = _counted(setting, server, snapshot, clean)
        for side in (OURS, SNAPDIR):
            server.rclone(
                "check", f":s3:{SOURCE}", f":s3:{side}", "--one-way", "--download", "--checkers", "16"
            )
    goal = Goal(value=PER_OBJECT_AMONG_STRANGERS * wanted + FIXED)
    return counted(f"{wanted} objects into a bucket that holds {others:,} others", found, setting.goal(goal))


def _counted(setting: Setting, server: S3Server, snapshot: str, clean: Callable[[], None]) -> Counts:
    asked: dict[str, list[Counter[str]]] = {OURS: [], SNAPDIR: []}
    measure_rounds(
        1,
        {
            OURS: commands.ours_sync(snapshot, f"s3://{SOURCE}", f"s3://{OURS}", server.environment),
            SNAPDIR: commands.peer(
                "sync",
                snapshot,
                f"s3://{SOURCE}",
                f"s3://{SNAPDIR}",
                cache=Path(setting.folder, "cache"),
                more=server.environment,
            ),
        },
        clean=clean,
        ran=lambda side: asked[side].append(server.requests()),
    )
    return asked


def counted(words: str, asked: Counts, goal: Goal | None) -> Result:
    """Return the line for what each side asked for."""
    totals = {side: tuple(float(each.total()) for each in found) for side, found in asked.items()}
    kinds = "; ".join(
        f"{'snapferry' if side == OURS else side}: {_by_kind(found[0])}" for side, found in asked.items()
    )
    return Result(words, "requests", totals[OURS], {SNAPDIR: totals[SNAPDIR]}, goal, kinds)


def _by_kind(asked: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in asked.most_common())
