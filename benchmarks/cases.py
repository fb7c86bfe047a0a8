"""What is measured, and the goals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from . import commands, data
from .measure import available_memory
from .pairs import Pair, measure_pairs, remove, same_folders
from .report import Goal, Result, limited_by
from .servers import S3Server

QUICK: Final = 10

MAX_MEMORY_MB: Final = 350


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
    _need_memory(8 * size_bytes)
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


def _need_memory(size_bytes: int) -> None:
    free = available_memory()
    if free < size_bytes:
        raise TooLittleMemory(
            f"this case needs {size_bytes / 1e9:.0f} GB of memory, most of it for the peer, and {free / 1e9:.0f} GB"
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
)
