"""Small objects between buckets that are 25 ms away: one machine, more and more workers, and what a queue costs."""

from __future__ import annotations

import subprocess
from statistics import median
from typing import Final

from .. import commands, data
from ..fleet import Fleet, Job, efficiency
from ..latency import LatencyProxy, Seen
from ..measure import CommandFailed
from ..plots import IDEAL, THROUGHPUT, Point
from ..progress import say
from ..report import BUSY, SNAPDIR, Goal, Result, timed
from ..rounds import OURS, measure_rounds
from ..servers import S3Server
from .buckets import SOURCE, fill, same_buckets
from .case import SERVED, Setting

DELAY_S: Final = 0.025
IN_FLIGHT: Final = 64

WORKERS: Final = (1, 2, 4, 8)
# Few objects in flight in each worker, so that eight of them do not fill the machine: what one worker is good
# for is what its few objects wait for.
SCALE_JOBS: Final = 2
SCALE_OBJECTS: Final = 8_000
SCALE_BATCH: Final = 50

OVERHEAD_WORKERS: Final = 2
OVERHEAD_JOBS: Final = 8
OVERHEAD_OBJECTS: Final = 8_000
OVERHEAD_BATCH: Final = 1_000

_FAR: Final = f"{DELAY_S * 1000:.0f} ms latency"


def latency(setting: Setting) -> list[Result]:
    """Measure one machine with its defaults beside the peer with its own, and count requests in flight."""
    folder, files = setting.folder, 20_000 // setting.scale
    store = folder / "store"
    snapshot = data.pushed_store(folder, store, files=files, size_bytes=4096)
    seen: dict[str, list[Seen]] = {OURS: [], SNAPDIR: []}
    with (
        S3Server(":memory:", folder / "server.log") as server,
        LatencyProxy(server.endpoint, DELAY_S) as proxy,
    ):
        more = server.environment_at(proxy.endpoint)

        def clean() -> None:
            fill(server, store, (OURS, SNAPDIR))
            proxy.seen()

        rounds = measure_rounds(
            setting.times(1),
            {
                OURS: commands.ours_sync(snapshot, f"s3://{SOURCE}", f"s3://{OURS}", more),
                SNAPDIR: commands.peer(
                    "sync",
                    snapshot,
                    f"s3://{SOURCE}",
                    f"s3://{SNAPDIR}",
                    cache=folder / "cache",
                    more=more,
                ),
            },
            clean=clean,
            check=lambda: same_buckets(server, OURS, SNAPDIR),
            ran=lambda side: seen[side].append(proxy.seen()),
        )
        taken = proxy.cpu_seconds
    words = f"{files:,} files of 4 KiB, S3 to S3, {_FAR}"
    total = sum(run.seconds for one in rounds for run in one.runs.values())
    flights = {side: tuple(float(one.most_in_flight) for one in found) for side, found in seen.items()}
    return [
        timed(
            words,
            rounds,
            setting.goal(Goal(ratio=1 / 8)),
            others_are=SERVED,
            objects=files,
            more=f"the proxy that adds the latency took {taken / total:.0%} of a core",
        ),
        Result(
            f"{words}: peak of requests in flight",
            "requests",
            flights[OURS],
            {SNAPDIR: flights[SNAPDIR]},
            setting.goal(Goal(least=IN_FLIGHT)),
            "the default number of objects in flight, one request each",
        ),
    ]


def scale(setting: Setting) -> list[Result]:
    """Measure the throughput of one worker process and of more, by the job's own record."""
    folder, objects = setting.folder, SCALE_OBJECTS // setting.scale
    store = folder / "store"
    snapshot = data.pushed_store(folder, store, files=objects, size_bytes=4096)
    jobs: dict[int, Job] = {}
    spent: dict[int, str] = {}
    with (
        S3Server(":memory:", folder / "server.log") as server,
        LatencyProxy(server.endpoint, DELAY_S) as proxy,
    ):
        for workers in WORKERS if setting.full else (1, 4):
            fill(server, store, (OURS,))
            more = server.environment_at(proxy.endpoint) | {
                "SNAPFERRY_BATCH_OBJECTS": str(SCALE_BATCH if setting.full else 10)
            }
            served, delayed = server.cpu_seconds, proxy.cpu_seconds
            with Fleet(folder, workers, more) as fleet:
                job = fleet.copy(snapshot, f"s3://{SOURCE}", f"s3://{OURS}", jobs=workers * SCALE_JOBS)
            if job.objects != objects:
                raise CommandFailed(f"the fleet copied {job.objects} of {objects} objects")
            jobs[workers] = job
            spent[workers] = cpu_of_servers(server.cpu_seconds - served, proxy.cpu_seconds - delayed)
            say(f"  {workers} workers: {objects / job.seconds:.0f} objects/s, {job.busy_share:.0%} busy")
        same_buckets(server, SOURCE, OURS)
    return scaled(jobs, spent, setting)


def cpu_of_servers(server: float, proxy: float) -> str:
    """Say how many seconds of CPU time the S3 server and the proxy took."""
    return f"the S3 server took {server:.1f} s of CPU time, the proxy {proxy:.1f} s"


def scaled(
    jobs: dict[int, Job],
    spent: dict[int, str],
    setting: Setting,
    *,
    work: str = "S3 to S3",
    drawn: bool = True,
) -> list[Result]:
    """
    Return the lines for what each number of workers did.

    *work* is what was done with the objects. *drawn*: the lines are part of the plot.
    """
    throughputs = {workers: job.objects / job.seconds for workers, job in jobs.items()}
    shares = efficiency(throughputs)
    most, fewest = max(jobs), min(jobs)
    results = [
        Result(
            f"{job.objects:,} files of 4 KiB, {work}, {_FAR}: {workers} worker processes,"
            f" {SCALE_JOBS} objects in flight in each",
            "objects/s",
            (throughputs[workers],),
            limited_by=f"{_limit(job)}: the machine was {job.busy_share:.0%} busy, {job.fleet_share:.0%} with the"
            f" fleet; {spent[workers]}; {shares[workers]:.2f} of linear",
            points=(
                Point(
                    THROUGHPUT.name,
                    "snapferry",
                    workers,
                    throughputs[workers],
                    f"CPU {job.busy_share:.0%} busy",
                ),
                Point(THROUGHPUT.name, IDEAL, workers, throughputs[fewest] / fewest * workers),
            )
            if drawn
            else (),
        )
        for workers, job in sorted(jobs.items())
    ]
    efficient = Result(
        f"{work}: throughput of {most} worker processes, as a share of {most // fewest} x that of {fewest}",
        "",
        (shares[most],),
        goal=setting.goal(Goal(least=0.9)),
        limited_by=f"{_limit(jobs[most])}: with {most} workers the machine was {jobs[most].busy_share:.0%} busy",
    )
    return [*results, efficient]


def _limit(job: Job) -> str:
    return (
        "CPU of this machine, which server and proxy share"
        if job.busy_share >= BUSY
        else "waiting for answers"
    )


def overhead(setting: Setting) -> list[Result]:
    """Measure a job of a fleet beside the copying alone, with the same processes and objects in flight."""
    folder, objects = setting.folder, OVERHEAD_OBJECTS // setting.scale
    store = folder / "store"
    snapshot = data.pushed_store(folder, store, files=objects, size_bytes=4096)
    batch = OVERHEAD_BATCH // setting.scale
    ours: list[float] = []
    alone: list[float] = []
    busy: list[float] = []
    with (
        S3Server(":memory:", folder / "server.log") as server,
        LatencyProxy(server.endpoint, DELAY_S) as proxy,
    ):
        more = server.environment_at(proxy.endpoint) | {"SNAPFERRY_BATCH_OBJECTS": str(batch)}
        times = setting.times(3)
        for at in range(times):
            fill(server, store, (OURS, "alone"))
            with Fleet(folder, OVERHEAD_WORKERS, more) as fleet:
                job = fleet.copy(
                    snapshot, f"s3://{SOURCE}", f"s3://{OURS}", jobs=OVERHEAD_WORKERS * OVERHEAD_JOBS
                )
            alone.append(_alone(snapshot, proxy.endpoint, batch, more))
            ours.append(job.seconds)
            busy.append(job.busy_share)
            say(f"  round {at + 1} of {times}: a job {ours[-1]:.2f} s, the copying alone {alone[-1]:.2f} s")
            if at == 0:
                # The copying alone writes no manifest.
                same_buckets(server, SOURCE, OURS)
                server.rclone("copyto", f":s3:{SOURCE}/.manifests", ":s3:alone/.manifests")
                same_buckets(server, SOURCE, "alone")
    return [
        Result(
            f"{objects:,} files of 4 KiB, S3 to S3, {_FAR}: a whole job with {OVERHEAD_WORKERS} workers"
            f" and {OVERHEAD_JOBS} objects in flight each; peer: the same batches without Celery, Redis, orchestrator"
            " and re-check",
            "s",
            tuple(ours),
            {ALONE: tuple(alone)},
            setting.goal(Goal(ratio=1.05, to=ALONE)),
            f"waiting for answers, and planning, queueing and re-check: the machine was {median(busy):.0%} busy",
        )
    ]


ALONE: Final = "copying alone"


def _alone(snapshot: str, endpoint: str, batch: int, more: dict[str, str]) -> float:
    """Return the seconds that the copying alone takes. Raises `CommandFailed`."""
    command = commands.direct(
        snapshot,
        f"s3://{SOURCE}?endpoint_url={endpoint}",
        f"s3://alone?endpoint_url={endpoint}",
        *("--processes", str(OVERHEAD_WORKERS), "--batch-objects", str(batch), "--jobs", str(OVERHEAD_JOBS)),
        more=more,
    )
    done = subprocess.run(
        command.arguments,
        env=dict(command.environment),
        capture_output=True,
        text=True,
        check=False,
        process_group=0,
    )
    if done.returncode != 0:
        raise CommandFailed(f"the copying alone failed: {done.stderr[-2000:]}")
    return float(done.stdout)
