"""Directory trees: pushed to a store and pulled from one, in a directory and in a bucket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from snapferry.stores.address import Address, object_key

from .. import commands, data
from ..floor import digest_of
from ..measure import Command
from ..one_sided import objects_of
from ..report import SNAPDIR, Goal, Result, largest_process, timed
from ..rounds import FLEET, FLOOR, OURS, Different, measure_rounds, remove, same_folders, same_trees
from ..servers import BigServer, S3Server
from .alone import fleet_in, job_alone, on_fleet, small_job
from .buckets import SOURCE, empty, fill, same_buckets
from .case import SERVED, Setting, need_memory
from .start import start_in

FILES: Final = 20_000
FILE_BYTES: Final = 4096
LARGE_FILES: Final = 4
LARGE_BYTES: Final = 1_000_000_000

SIDES: Final = (OURS, SNAPDIR)

TO_DIRECTORY: Final = Goal(ratio=1.0)
TO_S3: Final = Goal(ratio=0.7)


def push_small(setting: Setting) -> list[Result]:
    """Push many small files to a directory, and to a bucket of a server without latency."""
    folder, files = setting.folder, FILES // setting.scale
    tree = folder / "tree"
    data.make_tree(tree, files=files, size_bytes=FILE_BYTES)
    words = f"push of {files:,} files of 4 KiB"
    start = start_in(folder)
    stores = {side: folder / side for side in SIDES}
    by_fleet = folder / "by-fleet"

    def check() -> None:
        for other in (stores[SNAPDIR], by_fleet):
            same_folders(stores[OURS], other)

    with fleet_in(folder, folder) as fleet:
        to_directory = measure_rounds(
            setting.times(5),
            _pushes(folder, tree, {side: f"file://{store}" for side, store in stores.items()})
            | {FLEET: on_fleet(commands.ours_push(str(tree), f"file://{by_fleet}"), fleet)}
            | {FLOOR: commands.one_sided_floor("push", str(tree), str(folder / FLOOR))},
            clean=lambda: remove(*stores.values(), by_fleet, folder / FLOOR),
            check=check,
            start=start,
            small_job=small_job(folder, fleet),
        )
    remove(*stores.values(), folder / FLOOR)
    with S3Server(":memory:", folder / "server.log") as server:
        to_s3 = measure_rounds(
            setting.times(3),
            _pushes(folder, tree, {side: f"s3://{side}" for side in SIDES}, server.environment)
            | {FLOOR: commands.one_sided_floor("push", str(tree), f"{server.endpoint}/{FLOOR}")},
            clean=lambda: empty(server, (*SIDES, FLOOR)),
            check=lambda: same_buckets(server, OURS, SNAPDIR),
            start=start,
        )
    return [
        timed(f"{words} to a directory", to_directory, setting.goal(TO_DIRECTORY), objects=files),
        job_alone(f"{words} to a directory", to_directory, setting.goal(TO_DIRECTORY)),
        timed(f"{words} to S3, no latency", to_s3, setting.goal(TO_S3), others_are=SERVED, objects=files),
    ]


def pull_small(setting: Setting) -> list[Result]:
    """Pull many small files from a directory, and from a bucket of a server without latency."""
    folder, files = setting.folder, FILES // setting.scale
    store = folder / "store"
    snapshot = data.pushed_store(folder, store, files=files, size_bytes=FILE_BYTES)
    words = f"pull of {files:,} files of 4 KiB"
    start = start_in(folder)
    trees, by_fleet = {side: folder / side for side in (*SIDES, FLOOR)}, folder / "by-fleet"
    listed = folder / "objects"
    listed.write_text(objects_of(store))

    def clean() -> None:
        remove(*trees.values(), by_fleet)

    def check() -> None:
        same_trees(trees[OURS], trees[SNAPDIR])

    def check_all() -> None:
        check()
        same_trees(trees[OURS], by_fleet)

    def floor(of: str) -> dict[str, Command]:
        return {FLOOR: commands.one_sided_floor("pull", str(listed), of, str(trees[FLOOR]))}

    with fleet_in(folder, folder) as fleet:
        sides = _pulls(folder, snapshot, f"file://{store}", trees)
        sides[FLEET] = on_fleet(commands.ours_pull(snapshot, f"file://{store}", str(by_fleet)), fleet)
        sides |= floor(str(store))
        from_directory = measure_rounds(
            setting.times(5),
            sides,
            clean=clean,
            check=check_all,
            start=start,
            small_job=small_job(folder, fleet),
        )
    with S3Server(":memory:", folder / "server.log") as server:
        fill(server, store, ())
        sides = _pulls(folder, snapshot, f"s3://{SOURCE}", trees, server.environment)
        sides |= floor(f"{server.endpoint}/{SOURCE}")
        from_s3 = measure_rounds(setting.times(3), sides, clean=clean, check=check, start=start)
    return [
        timed(f"{words} from a directory", from_directory, setting.goal(TO_DIRECTORY), objects=files),
        job_alone(f"{words} from a directory", from_directory, setting.goal(TO_DIRECTORY)),
        timed(f"{words} from S3, no latency", from_s3, setting.goal(TO_S3), others_are=SERVED, objects=files),
    ]


def push_large(setting: Setting) -> list[Result]:
    """Push a few large files to a directory, and to a bucket of a server that keeps holes."""
    _need_memory(setting)
    folder, size_bytes = setting.folder, LARGE_BYTES // setting.scale
    tree, served, to = folder / "tree", folder / "served", folder / "to"
    data.sparse_tree(tree, files=LARGE_FILES, size_bytes=size_bytes)
    keys = {object_key(address): address for address in map(data.address_of, tree.iterdir())}
    for side in SIDES:
        (served / side).mkdir(parents=True)

    def check_directory(side: str) -> None:
        for key, address in keys.items():
            _same(side, address, data.address_of(to / side / key))
        remove(to)

    found = _timed_and_weighed(
        setting,
        f"push of {_words(size_bytes)} to a directory",
        _pushes(folder, tree, {side: f"file://{to}/{side}" for side in SIDES}),
        goal=TO_DIRECTORY,
        ran=check_directory,
    )
    with BigServer(served, folder / "server.log") as server:

        def check_bucket(side: str) -> None:
            for key, address in keys.items():
                _same(side, address, digest_of(None, server.endpoint, f"/{side}/{key}"))

        found += _timed_and_weighed(
            setting,
            f"push of {_words(size_bytes)} to S3",
            _pushes(folder, tree, {side: f"s3://{side}" for side in SIDES}, server.environment),
            goal=TO_S3,
            clean=server.restart,
            ran=check_bucket,
            others_are=SERVED,
        )
    return found


def pull_large(setting: Setting) -> list[Result]:
    """Pull a few large files from a directory, and from a bucket of a server that keeps holes."""
    _need_memory(setting)
    folder, size_bytes = setting.folder, LARGE_BYTES // setting.scale
    served, to = folder / "served", folder / "to"
    store = served / SOURCE
    snapshot, addresses = data.sparse_objects(folder, store, files=LARGE_FILES, size_bytes=size_bytes)
    trees = {side: to / side for side in SIDES}
    to.mkdir()

    def check(side: str) -> None:
        for file, address in zip(sorted(trees[side].iterdir()), addresses, strict=True):
            _same(side, address, data.address_of(file))
        remove(trees[side])

    found = _timed_and_weighed(
        setting,
        f"pull of {_words(size_bytes)} from a directory",
        _pulls(folder, snapshot, f"file://{store}", trees),
        goal=TO_DIRECTORY,
        ran=check,
    )
    with BigServer(served, folder / "server.log") as server:
        found += _timed_and_weighed(
            setting,
            f"pull of {_words(size_bytes)} from S3",
            _pulls(folder, snapshot, f"s3://{SOURCE}", trees, server.environment),
            goal=TO_S3,
            ran=check,
            others_are=SERVED,
        )
    return found


def _pushes(
    folder: Path, tree: Path, stores: Mapping[str, str], more: Mapping[str, str] | None = None
) -> dict[str, Command]:
    return {
        OURS: commands.ours_push(str(tree), stores[OURS], more),
        SNAPDIR: commands.peer("push", str(tree), stores[SNAPDIR], cache=folder / "cache", more=more),
    }


def _pulls(
    folder: Path, snapshot: str, store: str, trees: Mapping[str, Path], more: Mapping[str, str] | None = None
) -> dict[str, Command]:
    return {
        OURS: commands.ours_pull(snapshot, store, str(trees[OURS]), more),
        SNAPDIR: commands.peer(
            "pull", snapshot, store, str(trees[SNAPDIR]), cache=folder / "cache", more=more
        ),
    }


def _timed_and_weighed(
    setting: Setting,
    words: str,
    sides: Mapping[str, Command],
    *,
    goal: Goal,
    ran: Callable[[str], None],
    clean: Callable[[], None] = lambda: None,
    others_are: str = "other work on the machine",
) -> list[Result]:
    """Return the lines for the times, and from one more round for the memory, which takes time to measure."""
    rounds = measure_rounds(setting.times(3), sides, clean=clean, ran=ran)
    weighed = measure_rounds(1, sides, clean=clean, ran=ran, memory=True)
    return [timed(words, rounds, setting.goal(goal), others_are=others_are), largest_process(words, weighed)]


def _words(size_bytes: int) -> str:
    return f"{LARGE_FILES} files of {size_bytes / 1e9:g} GB"


def _same(side: str, address: Address, found: str) -> None:
    if found != address:
        raise Different(f"what {side} made of {address} hashes to {found}")


def _need_memory(setting: Setting) -> None:
    # The peer holds whole objects in memory, and its directory is in memory as well.
    need_memory(3 * LARGE_FILES * LARGE_BYTES // setting.scale, "the stores and the peer's process")
