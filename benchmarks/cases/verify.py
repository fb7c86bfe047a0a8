"""Reading a store again: time and memory beside the peer's, and the throughput of more and more workers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from .. import commands, data
from ..fleet import Fleet, Job
from ..latency import LatencyProxy
from ..measure import Command, CommandFailed
from ..one_sided import objects_of
from ..progress import say
from ..report import SNAPDIR, Goal, Result, largest_process, timed
from ..rounds import FLEET, FLOOR, OURS, Start, measure_rounds
from ..servers import BigServer, S3Server
from .alone import fleet_in, job_alone, on_fleet, small_job
from .buckets import SOURCE, fill
from .case import SERVED, Setting, need_memory
from .distance import DELAY_S, SCALE_BATCH, SCALE_JOBS, WORKERS, cpu_of_servers, scaled
from .huge import MAX_MEMORY_MB
from .start import start_in
from .trees import FILE_BYTES, FILES, LARGE_BYTES, LARGE_FILES

TIME: Final = Goal(ratio=0.5)
MEMORY: Final = Goal(value=MAX_MEMORY_MB)

# Twice what the copy of the case `scale` takes: an object costs one request instead of two.
SCALE_OBJECTS: Final = 16_000


def small(setting: Setting) -> list[Result]:
    """Verify many small objects of a directory, and of a bucket of a server without latency."""
    folder, files = setting.folder, FILES // setting.scale
    store = folder / "store"
    snapshot = data.pushed_store(folder, store, files=files, size_bytes=FILE_BYTES)
    words = f"verify of {files:,} objects of 4 KiB"
    start = start_in(folder)
    listed = folder / "objects"
    listed.write_text(objects_of(store))
    with fleet_in(folder) as fleet:
        found = _beside_the_peer(
            setting,
            snapshot,
            f"{words} in a directory",
            f"file://{store}",
            objects=files,
            floor=commands.one_sided_floor("verify", str(listed), str(store)),
            start=start,
            fleet=fleet,
        )
    with S3Server(":memory:", folder / "server.log") as server:
        fill(server, store, ())
        found += _beside_the_peer(
            setting,
            snapshot,
            f"{words} in S3, no latency",
            f"s3://{SOURCE}",
            server.environment,
            objects=files,
            floor=commands.one_sided_floor("verify", str(listed), f"{server.endpoint}/{SOURCE}"),
            start=start,
        )
    return found


def large(setting: Setting) -> list[Result]:
    """Verify a few large objects of a directory, and of a bucket of a server that keeps holes."""
    folder, size_bytes = setting.folder, LARGE_BYTES // setting.scale
    need_memory(2 * LARGE_FILES * size_bytes, "the peer's process")
    served = folder / "served"
    store = served / SOURCE
    snapshot, addresses = data.sparse_objects(folder, store, files=LARGE_FILES, size_bytes=size_bytes)
    words = f"verify of {LARGE_FILES} objects of {size_bytes / 1e9:g} GB"
    objects = len(addresses)
    found = _beside_the_peer(setting, snapshot, f"{words} in a directory", f"file://{store}", objects=objects)
    with BigServer(served, folder / "server.log") as server:
        found += _beside_the_peer(
            setting, snapshot, f"{words} in S3", f"s3://{SOURCE}", server.environment, objects=objects
        )
    return found


def _beside_the_peer(
    setting: Setting,
    snapshot: str,
    words: str,
    store: str,
    more: Mapping[str, str] | None = None,
    *,
    objects: int,
    floor: Command | None = None,
    start: Start | None = None,
    fleet: Fleet | None = None,
) -> list[Result]:
    """Return the lines for the times, and from one more round for the memory, which takes time to measure."""
    sides: dict[str, Command] = {
        OURS: commands.ours_verify(snapshot, store, more),
        SNAPDIR: commands.peer("verify", snapshot, store, cache=setting.folder / "cache", more=more),
    }
    by_fleet = {} if fleet is None else {FLEET: on_fleet(sides[OURS], fleet)}
    with_floor = sides | by_fleet | ({} if floor is None else {FLOOR: floor})
    job = None if fleet is None else small_job(setting.folder, fleet)
    rounds = measure_rounds(setting.times(3), with_floor, start=start, small_job=job)
    weighed = measure_rounds(1, sides, memory=True)
    for one in (*rounds, *weighed):
        intact = json.loads(one.ours.said)["objects"]["present"]
        if intact != objects:
            raise CommandFailed(f"{intact} of {objects} objects were verified")
    return [
        timed(
            words,
            rounds,
            setting.goal(TIME),
            others_are=SERVED if more else "other work on the machine",
            objects=objects,
        ),
        *([] if fleet is None else [job_alone(words, rounds, setting.goal(TIME))]),
        largest_process(words, weighed, setting.goal(MEMORY)),
    ]


def scale(setting: Setting) -> list[Result]:
    """Measure the throughput of one worker process and of more, 25 ms away, by the job's own record."""
    folder, objects = setting.folder, SCALE_OBJECTS // setting.scale
    store = folder / "store"
    snapshot = data.pushed_store(folder, store, files=objects, size_bytes=FILE_BYTES)
    jobs: dict[int, Job] = {}
    spent: dict[int, str] = {}
    with (
        S3Server(":memory:", folder / "server.log") as server,
        LatencyProxy(server.endpoint, DELAY_S) as proxy,
    ):
        fill(server, store, ())
        more = server.environment_at(proxy.endpoint) | {
            "SNAPFERRY_BATCH_OBJECTS": str(SCALE_BATCH if setting.full else 10)
        }
        for workers in WORKERS if setting.full else (1, 4):
            served, delayed = server.cpu_seconds, proxy.cpu_seconds
            with Fleet(folder, workers, more) as fleet:
                job = fleet.verify(snapshot, f"s3://{SOURCE}", jobs=workers * SCALE_JOBS)
            if job.objects != objects:
                raise CommandFailed(f"the fleet verified {job.objects} of {objects} objects")
            jobs[workers] = job
            spent[workers] = cpu_of_servers(server.cpu_seconds - served, proxy.cpu_seconds - delayed)
            say(f"  {workers} workers: {objects / job.seconds:.0f} objects/s, {job.busy_share:.0%} busy")
    return scaled(jobs, spent, setting, work="verify in S3", drawn=False)
