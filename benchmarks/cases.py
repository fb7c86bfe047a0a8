"""What is measured, and the goals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Final

from . import commands, data
from .measure import Run, available_memory
from .pairs import Pair, holds_all_of, measure_pairs, remove, same_folders
from .report import Goal, Result, limited_by
from .servers import S3Server

QUICK: Final = 10

MAX_MEMORY_MB: Final = 350

# The peer copies so many of many snapshots. The time of all of them is reckoned from these.
PEER_SNAPSHOTS: Final = 20


@dataclass(frozen=True)
class Setting:
    """Where and how much: a case makes its data in *folder*, which is empty, and may leave it behind."""

    folder: Path
    pairs: int
    scale: int = 1
    """The amount of data is divided by this."""


@dataclass(frozen=True)
class Case:
    """One thing to measure. *pairs* is how many pairs are worth their time."""

    name: str
    what: str
    pairs: int
    measure: Callable[[Setting], list[Result]]


class TooLittleMemory(Exception):
    """A case would not fit into this machine's memory; nothing was begun."""


def _files(files: int, size_bytes: int, size: str, at_most: float) -> Callable[[Setting], list[Result]]:
    def measure(setting: Setting) -> list[Result]:
        folder, number = setting.folder, files // setting.scale
        source, to_ours, to_peer = folder / "source", folder / "ours", folder / "peer"
        snapshot = data.pushed_store(folder, source, files=number, size_bytes=size_bytes)
        pairs = measure_pairs(
            setting.pairs,
            commands.ours_sync(snapshot, f"file://{source}", f"file://{to_ours}"),
            commands.peer("sync", snapshot, f"file://{source}", f"file://{to_peer}", cache=folder / "cache"),
            clean=lambda: remove(to_ours, to_peer),
            check=lambda: same_folders(to_ours, to_peer),
        )
        # In small, the start of the processes is most of it, and the goal says nothing.
        goal = Goal(ratio=at_most) if setting.scale == 1 else None
        return [_time(f"{number:,} files of {size}, file to file", pairs, goal)]

    return measure


def _huge(setting: Setting) -> list[Result]:
    size_bytes = 2_000_000_000 // setting.scale
    _need_memory(8 * size_bytes, "the peer")
    served = setting.folder / "served"
    source = served / "source"
    source.mkdir(parents=True)
    snapshot = data.huge_store(setting.folder, source, size_bytes=size_bytes)
    results = []
    with S3Server(str(served), setting.folder / "server.log") as server:
        to_ours, to_peer = served / "ours", served / "peer"

        def both(source_url: str, ours_url: str, peer_url: str) -> list[Pair]:
            def clean() -> None:
                remove(to_ours, to_peer)
                to_ours.mkdir()
                to_peer.mkdir()
                server.restart()

            return measure_pairs(
                setting.pairs,
                commands.ours_sync(snapshot, source_url, ours_url, server.environment),
                commands.peer(
                    "sync",
                    snapshot,
                    source_url,
                    peer_url,
                    cache=setting.folder / "cache",
                    more=server.environment,
                ),
                clean=clean,
                check=lambda: same_folders(to_ours, to_peer),
                memory=True,
            )

        words = f"one object of {size_bytes / 1e9:g} GB"
        up = both(f"file://{source}", "s3://ours", "s3://peer")
        down = both("s3://source", f"file://{to_ours}", f"file://{to_peer}")
    for way, pairs in (("file to S3", up), ("S3 to file", down)):
        results += [
            _memory(f"{words}, {way}", pairs, Goal(value=MAX_MEMORY_MB)),
            _time(f"{words}, {way}", pairs, served=True),
        ]
    return results


def _startup(setting: Setting) -> list[Result]:
    folder = setting.folder
    source, to_ours, to_peer = folder / "source", folder / "ours", folder / "peer"
    snapshot = data.pushed_store(folder, source, files=10, size_bytes=4096)
    sync = measure_pairs(
        setting.pairs,
        commands.ours_sync(snapshot, f"file://{source}", f"file://{to_ours}"),
        commands.peer("sync", snapshot, f"file://{source}", f"file://{to_peer}", cache=folder / "cache"),
        clean=lambda: remove(to_ours, to_peer),
        check=lambda: same_folders(to_ours, to_peer),
    )
    shown = measure_pairs(
        setting.pairs, commands.ours("--help"), commands.peer("import", cache=folder / "cache")
    )
    return [
        _time("start: 10 files of 4 KiB, file to file", sync),
        _time("start: `--help`, beside the bare import of the peer", shown),
    ]


def _small_s3(setting: Setting) -> list[Result]:
    folder, files = setting.folder, 2_000 // setting.scale
    source, cache = folder / "source", folder / "cache"
    snapshot = data.pushed_store(folder, source, files=files, size_bytes=4096)
    with S3Server(":memory:", folder / "server.log") as server:

        def clean() -> None:
            server.restart()
            for bucket in ("source", "ours", "peer"):
                server.rclone("mkdir", f":s3:{bucket}")
            server.rclone("copy", str(source), ":s3:source", "--transfers", "16", "--s3-no-check-bucket")

        pairs = measure_pairs(
            setting.pairs,
            commands.ours_sync(snapshot, "s3://source", "s3://ours", server.environment),
            commands.peer("sync", snapshot, "s3://source", "s3://peer", cache=cache, more=server.environment),
            clean=clean,
            check=lambda: server.rclone("check", ":s3:ours", ":s3:peer", "--download", "--checkers", "16"),
        )
    return [_time(f"{files:,} files of 4 KiB, S3 to S3, no latency", pairs, served=True)]


def _shared(setting: Setting) -> list[Result]:
    _need_memory(10_000_000_000 // setting.scale, "the stores")
    folder = setting.folder
    shape = data.Shared(1000 // setting.scale, common=19_800 // setting.scale, own=200 // setting.scale)
    source, to_ours, to_peer = folder / "source", folder / "ours", folder / "peer"
    ids, times = folder / "ids", folder / "times"
    ids.write_text("\n".join(data.shared_store(source, shape)[:PEER_SNAPSHOTS]))
    took: list[list[float]] = []

    def ran(side: str) -> None:
        if side == "peer":
            took.append([float(line) for line in times.read_text().split()])

    pairs = measure_pairs(
        setting.pairs,
        commands.ours_sync_all(f"file://{source}", f"file://{to_ours}"),
        commands.peer(
            "sync-each",
            str(ids),
            f"file://{source}",
            f"file://{to_peer}",
            str(times),
            cache=folder / "cache",
        ),
        clean=lambda: remove(to_ours, to_peer),
        check=lambda: holds_all_of(to_ours, to_peer),
        ran=ran,
    )
    reckoned = [
        replace(pair, peer=reckon(pair.peer, one, shape.snapshots))
        for pair, one in zip(pairs, took, strict=True)
    ]
    first, others = (median(part) for part in ([one[0] for one in took], [_others(one) for one in took]))
    words = (
        f"{shape.snapshots:,} snapshots that share 99 % of {shape.common + shape.own:,} objects, file to file;"
        f" the peer's time is reckoned from {PEER_SNAPSHOTS}: {first:.2f} s for the first,"
        f" {others:.2f} s for each of the others"
    )
    return [_time(words, reckoned)]


def _others(seconds: Sequence[float]) -> float:
    """Return the seconds for a snapshot that comes after the first."""
    return median(seconds[1:])


def reckon(measured: Run, seconds: Sequence[float], snapshots: int) -> Run:
    """Return what *snapshots* take, where the first of them took *seconds* each in the run that was *measured*."""
    reckoned = measured.seconds - sum(seconds) + seconds[0] + (snapshots - 1) * _others(seconds)
    return Run(reckoned, measured.cpu_seconds * reckoned / measured.seconds)


def _shared_s3(setting: Setting) -> list[Result]:
    folder = setting.folder
    shape = data.Shared(50 // setting.scale, common=1980 // setting.scale, own=20 // setting.scale)
    source, ids, cache = folder / "source", folder / "ids", folder / "cache"
    ids.write_text("\n".join(data.shared_store(source, shape)))
    asked: dict[str, list[Counter[str]]] = {"ours": [], "peer": []}
    with S3Server(":memory:", folder / "server.log", count=True) as server:

        def clean() -> None:
            server.restart()
            for bucket in ("source", "ours", "peer"):
                server.rclone("mkdir", f":s3:{bucket}")
            server.rclone("copy", str(source), ":s3:source", "--transfers", "16", "--s3-no-check-bucket")
            server.requests()

        more = server.environment
        pairs = measure_pairs(
            setting.pairs,
            commands.ours_sync_all("s3://source", "s3://ours", more),
            commands.peer(
                "sync-each",
                str(ids),
                "s3://source",
                "s3://peer",
                str(folder / "times"),
                cache=cache,
                more=more,
            ),
            clean=clean,
            check=lambda: server.rclone("check", ":s3:ours", ":s3:peer", "--download", "--checkers", "16"),
            ran=lambda side: asked[side].append(server.requests()),
        )
    words = f"{shape.snapshots} snapshots that share 99 % of {shape.common + shape.own:,} objects, S3 to S3"
    # In small there is little to share, and the goal says nothing.
    goal = Goal(ratio=0.1) if setting.scale == 1 else None
    return [_requests(words, asked["ours"], asked["peer"], goal), _time(words, pairs, served=True)]


def _requests(
    words: str, ours: Sequence[Counter[str]], peer: Sequence[Counter[str]], goal: Goal | None
) -> Result:
    return Result(
        words,
        "requests",
        tuple(float(each.total()) for each in ours),
        tuple(float(each.total()) for each in peer),
        goal,
        f"ours: {_by_kind(ours[0])}; peer: {_by_kind(peer[0])}",
    )


def _by_kind(asked: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in asked.most_common())


def _time(words: str, pairs: list[Pair], goal: Goal | None = None, *, served: bool = False) -> Result:
    others = ["the S3 server and other work"] if served else []
    return Result(
        words,
        "s",
        tuple(pair.ours.seconds for pair in pairs),
        tuple(pair.peer.seconds for pair in pairs),
        goal,
        limited_by(pairs, *others),
    )


def _memory(words: str, pairs: list[Pair], goal: Goal) -> Result:
    worst = max(pairs, key=lambda pair: pair.ours.pss_bytes).ours
    counted = len(worst.holders)
    return Result(
        words,
        "MB",
        tuple(pair.ours.pss_bytes / 1e6 for pair in pairs),
        tuple(pair.peer.pss_bytes / 1e6 for pair in pairs),
        goal,
        f"{counted} processes; sum of RSS {max(pair.ours.rss_bytes for pair in pairs) / 1e6:.0f} MB",
        tuple(worst.holders),
    )


def _need_memory(size_bytes: int, holder: str) -> None:
    free = available_memory()
    if free < size_bytes:
        raise TooLittleMemory(
            f"this case needs {size_bytes / 1e9:.0f} GB of memory, most of it for {holder}, and {free / 1e9:.0f} GB"
            " are free; --quick needs a tenth"
        )


CASES: Final = (
    Case(
        "file-20k",
        "20,000 files of 4 KiB, directory to directory",
        5,
        _files(20_000, 4096, "4 KiB", 4.0),
    ),
    Case(
        "file-100k",
        "100,000 files of 4 KiB, directory to directory",
        3,
        _files(100_000, 4096, "4 KiB", 2.0),
    ),
    Case(
        "file-2mb",
        "400 files of 2 MB, directory to directory",
        5,
        _files(400, 2_000_000, "2 MB", 4.0),
    ),
    Case("s3-huge", "one object of 2 GB to S3 and back: peak memory of all processes, and time", 2, _huge),
    Case("startup", "what a command costs before it copies anything", 5, _startup),
    Case("s3-small", "2,000 files of 4 KiB, S3 to S3 on a server without latency", 3, _small_s3),
    Case(
        "shared",
        "1,000 snapshots that share 99 % of 20,000 objects, directory to directory",
        1,
        _shared,
    ),
    Case(
        "shared-s3",
        "50 snapshots that share 99 % of 2,000 objects, S3 to S3: requests, and time",
        1,
        _shared_s3,
    ),
)
