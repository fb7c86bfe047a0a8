"""The time to the first object of a job of many snapshots, with and without waiting for the whole plan."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.settings.environment import Settings

from .. import simulated
from ..fleet import Fleet
from ..report import Goal, Result
from .case import Setting, need_memory

OBJECTS: Final = 20_000
SNAPSHOTS: Final = 200
# Few enough to be copied as a whole.
FEWER: Final = 40

WORKERS: Final = 2
FIRST_S: Final = 2
LOOK_S: Final = 0.02


def first(setting: Setting) -> list[Result]:
    """Measure the time to the first object, and of a smaller job to its end."""
    need_memory(2_000_000_000 // setting.scale, "the stores")
    sides = (False, True)
    snapshots, fewer = SNAPSHOTS // setting.scale, FEWER // setting.scale
    began = [_run(setting.folder, snapshots, whole_plan=whole, to_end=False) for whole in sides]
    ended = [_run(setting.folder, fewer, whole_plan=whole, to_end=True) for whole in sides]
    words = f"snapshots of {OBJECTS:,} distinct objects, simulated stores"
    after = "; if batches wait for the whole plan: {:.1f} s"
    return [
        Result(
            f"{snapshots} {words}: the first object",
            "s",
            (began[0],),
            goal=setting.goal(Goal(value=FIRST_S)),
            limited_by=f"the start of the fleet's tasks{after.format(began[1])}",
        ),
        Result(
            f"{fewer} {words}: the whole job", "s", (ended[0],), limited_by=f"CPU{after.format(ended[1])}"
        ),
    ]


def _run(folder: Path, snapshots: int, *, whole_plan: bool, to_end: bool) -> float:
    """Return the seconds from the start of a job to its first object, or *to_end*."""
    own = folder / f"{snapshots}-{whole_plan}"
    ids = simulated.make_many(own, snapshots, OBJECTS)
    simulated.register()
    (own / "fleet").mkdir()
    more = {"TMPDIR": str(own / "fleet")} | ({simulated.WHOLE_PLAN: "1"} if whole_plan else {})
    with Fleet(own / "fleet", WORKERS, more, program=simulated.__name__) as fleet:
        jobs = Jobs(Settings.from_environment({"SNAPFERRY_BROKER_URL": fleet.broker}))
        refs = [StoreRef(url=f"{simulated.SCHEME}://{own}/{side}") for side in ("source", "copy")]
        job = jobs.submit(JobSpec.of(refs[0], refs[1], ids))
        while True:
            status = jobs.status(job)
            if status.state.final or (not to_end and status.objects_settled):
                break
            time.sleep(LOOK_S)
        seconds = (status.ended_at if to_end else time.time()) - status.started_at
        if to_end and (status.state is not State.DONE or status.copied != snapshots * OBJECTS):
            raise RuntimeError(f"the job ended as {status.state}: {status.error}")
        jobs.cancel(job)
    return seconds
