"""
Millions of objects, end to end: real Redis, orchestrator, workers, chords and commit, between simulated stores.

What is measured is what grows with a job: the time of its plan and of the whole,
and the memory of each role at its largest.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import JobStatus, State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.settings.environment import Settings

from .. import simulated
from ..fleet import Fleet
from ..measure import anonymous_of, busy_seconds, cores, cpu_of, memory_of
from ..plots import TIME, Point
from ..report import Goal, Result
from .case import Setting

FEWER: Final = 1_000_000
MORE: Final = 10_000_000

PLAN_S: Final = 60
JOB_S: Final = 90
GROWTH: Final = 11
ORCHESTRATOR_MB: Final = 1_500
REDIS_MB: Final = 200

WORKERS: Final = 2
LOOK_S: Final = 0.5


@dataclass(frozen=True)
class Job:
    """
    What a job of *objects* distinct objects took.

    *plan_seconds* from the start of the job to its first batch, *job_seconds* from its start to its end. The peaks
    are those of single processes; *worker_growth_bytes* is how much larger the largest worker ever was than when a
    tenth was copied, files that it maps left out. *limited_by* says in words what limited it.
    """

    objects: int
    plan_seconds: float
    job_seconds: float
    orchestrator_peak_bytes: int
    redis_peak_bytes: int
    worker_growth_bytes: int
    limited_by: str


def run(objects: int, folder: Path) -> Job:
    """Copy *objects* objects in a fleet. Raises `RuntimeError` if anything is missing at the end."""
    snapshot = simulated.make(folder, objects)
    simulated.register()
    own = folder / "fleet"
    own.mkdir()
    more = {"TMPDIR": str(own)}
    with Fleet(own, WORKERS, more, program=simulated.__name__) as fleet:
        jobs = Jobs(Settings.from_environment({"SNAPFERRY_BROKER_URL": fleet.broker}))
        refs = [StoreRef(url=f"{simulated.SCHEME}://{folder}/{side}") for side in ("source", "copy")]
        before, began = busy_seconds(), time.monotonic()
        watched = _Watched(fleet, objects)
        status = watched.to_the_end(jobs, jobs.submit(JobSpec.of(refs[0], refs[1], [snapshot])))
        busy = (busy_seconds() - before) / (time.monotonic() - began) / cores()
        memory: Any = client(fleet.broker).info("memory")
        cpu = {role: cpu_of(processes) for role, processes in fleet.processes().items()}
    _check(folder, objects, snapshot)
    workers = sum(spent for role, spent in cpu.items() if role.startswith("worker"))
    return Job(
        objects,
        watched.copying_at - status.started_at,
        status.ended_at - status.started_at,
        watched.largest["orchestrator"],
        int(memory["used_memory_peak"]),
        watched.largest["worker"] - watched.early_worker,
        f"CPU, {busy:.0%} of the cores were busy; per object, workers {workers / objects * 1e6:.0f} µs,"
        f" orchestrator {cpu['orchestrator'] / objects * 1e6:.0f} µs, Redis {cpu['redis'] / objects * 1e6:.0f} µs;"
        f" largest worker {watched.largest['worker'] / 1e6:.0f} MB",
    )


class _Watched:
    """The memory of the processes of *fleet* while it does a job of *objects* objects."""

    def __init__(self, fleet: Fleet, objects: int) -> None:
        self._fleet = fleet
        self._objects = objects
        self.largest = {"orchestrator": 0, "worker": 0, "redis": 0}
        self.early_worker = 0
        self.copying_at = 0.0

    def to_the_end(self, jobs: Jobs, job_id: str) -> JobStatus:
        """Return the status of the job when it has ended. Raises `RuntimeError` unless all was copied."""
        while True:
            status = jobs.status(job_id)
            if status.state is State.COPYING and not self.copying_at:
                self.copying_at = time.time()
            self._look(status)
            words = f"{status.state}: {status.objects_settled:,} of {status.objects_total:,} objects"
            print(f"\r  {words:<60}", end="\n" if status.state.final else "", file=sys.stderr, flush=True)
            if status.state.final:
                break
            time.sleep(LOOK_S)
        if status.state is not State.DONE or status.copied != self._objects:
            raise RuntimeError(f"the job ended as {status.state}: {status.error}")
        return status

    def _look(self, status: JobStatus) -> None:
        for name, processes in self._fleet.processes().items():
            role = name.rstrip("0123456789")
            # The simulated stores are files that every worker maps; they are no part of what it needs.
            measure = anonymous_of if role == "worker" else _pss
            now = max(map(measure, processes), default=0)
            self.largest[role] = max(self.largest[role], now)
        if not self.early_worker and 10 * status.objects_settled >= self._objects:
            self.early_worker = self.largest["worker"]


def _pss(process: int) -> int:
    return memory_of(process).pss


def _check(folder: Path, objects: int, snapshot: str) -> None:
    """Make sure that the copy has everything: each object, and the manifest to the letter."""
    if (folder / "copy" / "held").read_bytes().count(1) != objects:
        raise RuntimeError("objects are missing at the copy")
    where = Path(".manifests", snapshot[:3], snapshot[3:6], snapshot[6:9], snapshot[9:])
    if (folder / "copy" / where).read_bytes() != (folder / "source" / where).read_bytes():
        raise RuntimeError("the manifests differ")


def case(run: Callable[[int, Path], Job]) -> Callable[[Setting], list[Result]]:
    """Return the case that has *run* do a job of a million objects, and one of ten million."""

    def measure(setting: Setting) -> list[Result]:
        jobs = []
        for objects in (FEWER, MORE):
            folder = setting.folder / str(objects)
            folder.mkdir()
            jobs.append(run(objects // setting.scale, folder))
        return results(jobs[0], jobs[1], setting)

    return measure


def results(fewer: Job, more: Job, setting: Setting) -> list[Result]:
    """Return the lines for a job of fewer objects and for one of more."""
    words = f"{more.objects:,} distinct objects, simulated stores"

    def line(of: str, unit: str, value: float, goal: Goal | None = None) -> Result:
        return Result(
            f"{words}: {of}",
            unit,
            (value,),
            goal=setting.goal(goal) if goal else None,
            limited_by=more.limited_by,
        )

    points = tuple(
        Point(TIME.name, "snapferry, simulated stores", job.objects, job.job_seconds) for job in (fewer, more)
    )
    return [
        line("the plan", "s", more.plan_seconds, Goal(value=PLAN_S)),
        Result(
            f"{words}: the whole job",
            "s",
            (more.job_seconds,),
            goal=setting.goal(Goal(value=JOB_S)),
            limited_by=more.limited_by,
            points=points,
        ),
        Result(
            f"{words}: the whole job, compared with {fewer.objects:,} objects",
            "x",
            (more.job_seconds / fewer.job_seconds,),
            goal=setting.goal(Goal(value=GROWTH)),
            limited_by=fewer.limited_by,
        ),
        line(
            "peak of the orchestrator", "MB", more.orchestrator_peak_bytes / 1e6, Goal(value=ORCHESTRATOR_MB)
        ),
        line("peak of Redis", "MB", more.redis_peak_bytes / 1e6, Goal(value=REDIS_MB)),
        line("growth of a worker", "MB", more.worker_growth_bytes / 1e6),
    ]
