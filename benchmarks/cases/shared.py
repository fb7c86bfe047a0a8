"""Many snapshots that share most of their objects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Final

from .. import commands, data
from ..measure import Run
from ..report import SNAPDIR, Goal, Result, timed
from ..rounds import OURS, holds_all_of, measure_rounds, remove
from ..servers import S3Server
from .buckets import SOURCE, fill, same_buckets
from .case import SERVED, Setting, need_memory
from .requests import counted

# The peer copies so many of many snapshots. The time of all of them is reckoned from these.
PEER_SNAPSHOTS: Final = 20


def many(setting: Setting) -> list[Result]:
    """Measure directory to directory; the peer's time is reckoned from some of the snapshots."""
    need_memory(10_000_000_000 // setting.scale, "the stores")
    folder = setting.folder
    shape = data.Shared(1000 // setting.scale, common=19_800 // setting.scale, own=200 // setting.scale)
    source, to_ours, to_peer = folder / "source", folder / "ours", folder / "peer"
    ids, times = folder / "ids", folder / "times"
    ids.write_text("\n".join(data.shared_store(source, shape)[:PEER_SNAPSHOTS]))
    took: list[list[float]] = []

    def ran(side: str) -> None:
        if side == SNAPDIR:
            took.append([float(line) for line in times.read_text().split()])

    rounds = measure_rounds(
        setting.times(1),
        {
            OURS: commands.ours_sync_all(f"file://{source}", f"file://{to_ours}"),
            SNAPDIR: commands.peer(
                "sync-each",
                str(ids),
                f"file://{source}",
                f"file://{to_peer}",
                str(times),
                cache=folder / "cache",
            ),
        },
        clean=lambda: remove(to_ours, to_peer),
        check=lambda: holds_all_of(to_ours, to_peer),
        ran=ran,
    )
    reckoned = [
        replace(one, runs={**one.runs, SNAPDIR: reckon(one.runs[SNAPDIR], seconds, shape.snapshots)})
        for one, seconds in zip(rounds, took, strict=True)
    ]
    first, others = (median(part) for part in ([one[0] for one in took], [_others(one) for one in took]))
    words = (
        f"{shape.snapshots:,} snapshots that share 99 % of {shape.common + shape.own:,} objects, file to file;"
        f" the peer's time is reckoned from {PEER_SNAPSHOTS}: {first:.2f} s for the first,"
        f" {others:.2f} s for each of the others"
    )
    return [timed(words, reckoned, setting.goal(Goal(ratio=0.4)))]


def _others(seconds: Sequence[float]) -> float:
    """Return the seconds for a snapshot that comes after the first."""
    return median(seconds[1:])


def reckon(measured: Run, seconds: Sequence[float], snapshots: int) -> Run:
    """Return what *snapshots* take, where the first of them took *seconds* each in the run that was *measured*."""
    reckoned = measured.seconds - sum(seconds) + seconds[0] + (snapshots - 1) * _others(seconds)
    share = reckoned / measured.seconds
    return Run(reckoned, measured.cpu_seconds * share, measured.user_seconds * share)


def in_buckets(setting: Setting) -> list[Result]:
    """Measure S3 to S3: requests, and time."""
    folder = setting.folder
    shape = data.Shared(
        max(5, 50 // setting.scale), common=1980 // setting.scale, own=max(1, 20 // setting.scale)
    )
    source, ids = folder / "store", folder / "ids"
    ids.write_text("\n".join(data.shared_store(source, shape)))
    asked: dict[str, list[Counter[str]]] = {OURS: [], SNAPDIR: []}
    with S3Server(":memory:", folder / "server.log", count=True) as server:

        def clean() -> None:
            fill(server, source, (OURS, SNAPDIR))
            server.requests()

        more: Mapping[str, str] = server.environment
        rounds = measure_rounds(
            setting.times(1),
            {
                OURS: commands.ours_sync_all(f"s3://{SOURCE}", f"s3://{OURS}", more),
                SNAPDIR: commands.peer(
                    "sync-each",
                    str(ids),
                    f"s3://{SOURCE}",
                    f"s3://{SNAPDIR}",
                    str(folder / "times"),
                    cache=folder / "cache",
                    more=more,
                ),
            },
            clean=clean,
            check=lambda: same_buckets(server, OURS, SNAPDIR),
            ran=lambda side: asked[side].append(server.requests()),
        )
    words = f"{shape.snapshots} snapshots that share 99 % of {shape.common + shape.own:,} objects, S3 to S3"
    return [
        counted(words, asked, setting.goal(Goal(ratio=0.1))),
        timed(words, rounds, others_are=SERVED),
    ]
