"""One large object whose parts a fleet copies, over connections of limited speed."""

from __future__ import annotations

import shutil
from typing import Final

from snapferry.stores import treehash
from snapferry.stores.address import object_key

from .. import data
from ..fleet import Fleet, Job
from ..floor import digest_of
from ..measure import CommandFailed
from ..progress import say
from ..report import BUSY, Goal, Result
from ..rounds import OURS, Different
from ..servers import BigServer
from .buckets import SOURCE
from .case import Setting

# Bytes per second of each connection, in each direction.
RATE: Final = 100_000_000
WORKERS: Final = (1, 2, 4)

SIZE_BYTES: Final = 20_000_000_000
# Into a directory all zeros are written, and synced.
IN_DIRECTORY_BYTES: Final = 4_000_000_000

PROGRAM: Final = "benchmarks.one_part"


def split(setting: Setting) -> list[Result]:
    """Measure S3 to S3 and S3 to a directory, with 1, 2 and 4 workers of one part in flight each."""
    if not treehash.is_fast():
        raise CommandFailed("the extension that hashes parts is not compiled: run make")
    return [
        *_way(setting, SIZE_BYTES // setting.scale, to_file=False),
        *_way(setting, IN_DIRECTORY_BYTES // (setting.scale // 4 or 1), to_file=True),
    ]


def _way(setting: Setting, size_bytes: int, *, to_file: bool) -> list[Result]:
    folder = setting.folder / "split"
    served, copied = folder / "served", setting.disk / "split"
    folder.mkdir()
    jobs: dict[int, Job] = {}
    served_s: dict[int, float] = {}
    try:
        snapshot, address = data.sparse_store(folder, served / SOURCE, size_bytes=size_bytes)
        (served / OURS).mkdir()
        with BigServer(served, folder / "server.log", rate=RATE) as server:
            for workers in WORKERS:
                server.restart()
                shutil.rmtree(copied, ignore_errors=True)
                copied.mkdir()
                to = f"file://{copied}" if to_file else f"s3://{OURS}"
                before = server.cpu_seconds
                with Fleet(folder, workers, server.environment, program=PROGRAM) as fleet:
                    job = fleet.copy(snapshot, f"s3://{SOURCE}", to, jobs=workers)
                served_s[workers] = server.cpu_seconds - before
                key = object_key(address)
                found = digest_of(copied / key if to_file else None, server.endpoint, f"/{OURS}/{key}")
                if found != address:
                    raise Different(f"the copy hashes to {found}, not to {address}")
                jobs[workers] = job
                say(
                    f"  {workers} workers: {size_bytes / job.seconds / 1e6:.0f} MB/s, {job.busy_share:.0%} busy"
                )
    finally:
        for made in (folder, copied):
            shutil.rmtree(made, ignore_errors=True)
    return _lines(
        setting, size_bytes, jobs, served_s, "S3 to a directory on a disk" if to_file else "S3 to S3"
    )


def _lines(
    setting: Setting, size_bytes: int, jobs: dict[int, Job], served_s: dict[int, float], way: str
) -> list[Result]:
    speeds = {workers: size_bytes / job.seconds / 1e6 for workers, job in jobs.items()}
    shares = {workers: speed / workers / speeds[WORKERS[0]] for workers, speed in speeds.items()}
    words = f"one object of {size_bytes / 1e9:g} GB, {way}, {RATE / 1e6:g} MB/s for each connection"
    results = [
        Result(
            f"{words}: {workers} worker processes, one part in flight in each",
            "MB/s",
            (speeds[workers],),
            limited_by=f"{_limit(job)}: the machine was {job.busy_share:.0%} busy, {job.fleet_share:.0%} with the"
            f" fleet; the S3 server took {served_s[workers]:.1f} s of CPU time; {shares[workers]:.2f} of linear",
        )
        for workers, job in jobs.items()
    ]
    most = max(jobs)
    return [
        *results,
        Result(
            f"{words}: speed of {most} worker processes, as a share of {most} x that of one",
            "",
            (shares[most],),
            goal=setting.goal(Goal(least=0.9)),
            limited_by=f"{_limit(jobs[most])}: with {most} workers the machine was {jobs[most].busy_share:.0%} busy",
        ),
    ]


def _limit(job: Job) -> str:
    return "CPU of this machine, which the server shares" if job.busy_share >= BUSY else "the connections"
