"""
Millions of objects, on stores that are only simulated.

What makes the stores is handed in: a function that plans and runs a whole job
of so many distinct objects, in a folder of its own, and says what that took.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..plots import TIME, Point
from ..report import Goal, Result
from .case import Setting

FEWER: Final = 1_000_000
MORE: Final = 10_000_000

PLAN_S: Final = 60
PLAN_GROWTH: Final = 11
ORCHESTRATOR_MB: Final = 1_500
REDIS_MB: Final = 200


@dataclass(frozen=True)
class Job:
    """
    What a job of *objects* distinct objects took.

    *plan_seconds* from the manifest to the plan, *job_seconds* by the job's record. The peaks are those of
    single processes; *worker_growth_bytes* is how much larger a worker was at the end than after its first batches.
    *limited_by* says in words what limited it.
    """

    objects: int
    plan_seconds: float
    job_seconds: float
    orchestrator_peak_bytes: int
    redis_peak_bytes: int
    worker_growth_bytes: int
    limited_by: str


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
    growth = (more.plan_seconds / fewer.plan_seconds,)

    def line(of: str, unit: str, value: float, goal: Goal | None) -> Result:
        return Result(
            f"{words}: {of}",
            unit,
            (value,),
            goal=setting.goal(goal) if goal else None,
            limited_by=more.limited_by,
        )

    return [
        line("the plan", "s", more.plan_seconds, Goal(value=PLAN_S)),
        Result(
            f"{words}: the plan, as a multiple of that of {fewer.objects:,}",
            "x",
            growth,
            goal=setting.goal(Goal(value=PLAN_GROWTH)),
            limited_by=fewer.limited_by,
        ),
        Result(
            f"{words}: the whole job",
            "s",
            (more.job_seconds,),
            limited_by=more.limited_by,
            points=tuple(
                Point(TIME.name, "snapferry, simulated stores", job.objects, job.job_seconds)
                for job in (fewer, more)
            ),
        ),
        line(
            "peak of the orchestrator", "MB", more.orchestrator_peak_bytes / 1e6, Goal(value=ORCHESTRATOR_MB)
        ),
        line("peak of Redis", "MB", more.redis_peak_bytes / 1e6, Goal(value=REDIS_MB)),
        line("growth of a worker", "MB", more.worker_growth_bytes / 1e6, None),
    ]
