"""The time of a job alone, on a fleet that runs already: without the start and the end of a command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from ..fleet import Fleet, job_seconds
from ..measure import Command, cores
from ..report import Goal, Result
from ..rounds import FLEET, SMALL_JOB, Round, Start, floor_of, peers_in, seconds_of
from .start import start_in


def fleet_in(folder: Path, trees: Path | None = None) -> Fleet:
    """Return a fleet of an orchestrator and a worker for each core. It may use trees below *trees*."""
    files = folder / "fleet"
    files.mkdir(exist_ok=True)
    more = {}
    if trees is not None:
        config = files / "snapferry.toml"
        places = f'["file://{trees}/", "tree://{trees}/"]'
        config.write_text(f"[access]\nread = {places}\nwrite = {places}\n")
        more["SNAPFERRY_CONFIG"] = str(config)
    return Fleet(files, cores(), more)


def on_fleet(command: Command, fleet: Fleet) -> Command:
    """Return *command*, one of ours, as a job of *fleet*."""
    return Command([*command.arguments, "--broker", fleet.broker], {**command.environment, **fleet.more})


def small_job(folder: Path, fleet: Fleet) -> Start:
    """Return the sync of ten files between two directories in *folder* as a job of *fleet*."""
    start = start_in(folder, "small-job")
    return Start(on_fleet(start.command, fleet), start.made)


def job_alone(words: str, rounds: Sequence[Round], goal: Goal | None) -> Result:
    """Return the line for the time that jobs on a fleet took by their own records; their start is a small job."""
    return Result(
        f"{words}; only the job, on a fleet that runs already",
        "s",
        _seconds_of_jobs(rounds, FLEET),
        {peer: seconds_of(rounds, peer) for peer in peers_in(rounds)},
        goal,
        "same rounds, by the job's own record; whole runs of the peers",
        floor_of(rounds),
        start=_seconds_of_jobs(rounds, SMALL_JOB),
    )


def _seconds_of_jobs(rounds: Sequence[Round], side: str) -> tuple[float, ...]:
    return tuple(job_seconds(json.loads(one.runs[side].said)) for one in rounds)
