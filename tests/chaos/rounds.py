"""Runs rounds: submits jobs, does the faults at their times, waits for every job, and asks the oracle."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from snapferry.orchestrator.jobs import Jobs
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import State, UnknownJob
from snapferry.workers.messages import Action, JobSpec

from .faults import FAULTS, NeverPossible, NotPossible
from .jobs import mending, pulled_again, request_of
from .oracle import accounts, ask
from .recovery import recovered_s
from .schedule import PlannedFault, Round
from .watch import Watch
from .world import Role, World

# Within this time after the last fault of a round, every job has ended.
SETTLED_S: Final = 240.0

LOST: Final = "lost with Redis"

# A fault that has nothing to act on, or whose Redis is away by another fault, is tried again within this time.
CHANCE_S: Final = 8.0
_AGAIN_S: Final = 0.3


@dataclass
class Done:
    """A fault of a round, and what became of it. *recovered_s* is as `recovered_s`, None if it cannot be told."""

    planned: PlannedFault
    what: str = ""
    possible: bool = False
    began_at: float = 0.0
    ended_at: float = 0.0
    recovered_s: float | None = None


@dataclass
class Result:
    """A round as it ended. *settled_s*: from the end of its last fault until all of its jobs had ended."""

    number: int
    done: list[Done]
    jobs: Counter[str] = field(default_factory=Counter)
    settled_s: float = 0.0


@contextmanager
def kept_running(world: World) -> Iterator[None]:
    """Start again what has ended, as systemd does, until the end of the block."""
    ended = threading.Event()

    def keep(role: Role) -> None:
        while not ended.wait(0.2):
            if role.running is not None and role.running.process.poll() is not None:
                with suppress(AssertionError, OSError):
                    world.start(role)

    threads = [threading.Thread(target=keep, args=(role,), daemon=True) for role in world.roles]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _do(world: World, done: Done, began_at: float, stopped: threading.Event) -> None:
    """Do a fault at its time, or within `CHANCE_S` after it, for as long as it lasts."""
    planned, fault = done.planned, FAULTS[done.planned.kind]
    stopped.wait(max(0.0, began_at + planned.at_s - time.monotonic()))
    world.may_fail |= fault.fails
    world.may_forget |= fault.forgets
    latest = time.monotonic() + CHANCE_S
    while not _tried(world, done, stopped) and time.monotonic() < latest and not stopped.wait(_AGAIN_S):
        pass
    done.ended_at = time.monotonic()
    outcome = f"{done.ended_at - done.began_at:.1f} s" if done.possible else "not possible"
    print(f"  {planned.at_s:5.1f}  {planned.kind}: {done.what or 'done'} ({outcome})", flush=True)


def _tried(world: World, done: Done, stopped: threading.Event) -> bool:
    """Do a fault for as long as it lasts; return False if it was not possible now, and may be a little later."""
    planned = done.planned
    done.began_at = time.monotonic()
    try:
        with FAULTS[planned.kind].act(world, random.Random(planned.seed)) as done.what:
            # Not before: it may have waited for another fault of Redis to end.
            done.possible, done.began_at = True, time.monotonic()
            stopped.wait(planned.lasts_s)
    except Exception as error:
        if done.possible:
            world.violate("the fault could be undone", f"{planned.kind}: {type(error).__name__}: {error}")
            return True
        # Redis is away by another fault, or there is nothing to act on.
        done.what = str(error) if isinstance(error, NotPossible) else f"{type(error).__name__}: {error}"
        return isinstance(error, NeverPossible)
    return True


def _submit(world: World, spec: JobSpec) -> bool:
    """Submit a job; return whether Redis took it. It may be submitted again."""
    if spec.job_id not in world.submitted:
        world.submitted.append(spec.job_id)
        if spec.action is Action.PULL:
            world.pulls.append(spec)
    try:
        world.jobs.submit(spec)
    except BrokerUnavailable:
        return False
    return True


def _ended(world: World, job: str) -> bool:
    try:
        return world.jobs.status(job).state.final
    except UnknownJob:
        return True
    except BrokerUnavailable:
        return False


def _lost(world: World, job: str) -> bool:
    try:
        world.jobs.status(job)
    except UnknownJob:
        return True
    return False


def _work(world: World, planned: Round, threads: list[threading.Thread]) -> None:
    """Keep jobs on their way as long as faults are done."""
    waiting = [request_of(world, job) for job in planned.jobs]
    refused: JobSpec | None = None
    while any(thread.is_alive() for thread in threads):
        running = sum(not _ended(world, job) for job in [*world.submitted])
        for _ in range(planned.at_once - running + (refused is not None)):
            spec = refused or (waiting.pop(0) if waiting else None)
            if spec is None:
                break
            refused = None if _submit(world, spec) else spec
            if refused:
                break
        time.sleep(0.2)
    while refused and not _submit(world, refused):
        time.sleep(0.5)


def _settle(world: World, watch: Watch, began_at: float) -> float:
    """Wait until every job has ended; return the seconds since *began_at*. The oracle reports those that hang."""
    deadline = time.monotonic() + SETTLED_S
    open_jobs = [*world.submitted]
    while open_jobs and time.monotonic() < deadline:
        open_jobs = [job for job in [*world.submitted] if not _ended(world, job)]
        if open_jobs:
            time.sleep(0.2)
    return time.monotonic() - began_at


def _lift(world: World) -> None:
    """Take the limits from all jobs that still run: recovery is measured, not their pace."""
    for job in [*world.submitted]:
        with suppress(BrokerUnavailable, UnknownJob):
            if not world.jobs.status(job).state.final:
                world.jobs.limit(job, {"rate": None, "jobs": None, "requests": None})


def run_round(world: World, planned: Round, watched: Jobs) -> Result:
    """Run a round; return its result. Violations are in the world."""
    world.begin_round(planned.number)
    result = Result(planned.number, [Done(fault) for fault in planned.faults])
    stopped = threading.Event()
    with Watch(world, watched) as watch:
        began_at = time.monotonic()
        threads = [
            threading.Thread(target=_do, args=(world, done, began_at, stopped), daemon=True)
            for done in result.done
        ]
        for thread in threads:
            thread.start()
        try:
            _work(world, planned, threads)
        finally:
            stopped.set()
            for thread in threads:
                thread.join()
        quiet_at = time.monotonic()
        _lift(world)
        result.settled_s = _settle(world, watch, quiet_at)
        _judge(world)
        for job in dict.fromkeys(world.submitted):
            result.jobs[_end_of(world, job)] += 1
        moves = [*watch.moves.values()]
        mend(world)
    possible = [done for done in result.done if done.possible]
    for done in possible:
        others = [(other.began_at, other.ended_at) for other in possible if other is not done]
        done.recovered_s = recovered_s(done.ended_at, others, moves)
    world.end_round()
    return result


def _judge(world: World, *, in_the_end: bool = False) -> None:
    for clause, found in ask(world, in_the_end=in_the_end):
        world.violate(clause, found)


def _end_of(world: World, job: str) -> str:
    try:
        status = world.jobs.status(job)
    except UnknownJob:
        return LOST
    if status.state is State.FAILED:
        print(f"  {status.action} {job[:8]} failed: {status.error[:300]}", flush=True)
    return str(status.state)


def mend(world: World) -> None:
    """Make all places whole by jobs in which nothing fails, and ask the oracle again, without any excuse."""
    specs = [
        *mending(world),
        *pulled_again(world, [spec for spec in world.pulls if _lost(world, spec.job_id)]),
    ]
    for spec in specs:
        while not _submit(world, spec):
            time.sleep(0.5)
    deadline = time.monotonic() + SETTLED_S
    while time.monotonic() < deadline and not all(_ended(world, spec.job_id) for spec in specs):
        time.sleep(0.2)
    for status in accounts.statuses(world):
        if status.job_id in {spec.job_id for spec in specs} and status.state is not State.DONE:
            world.violate(
                "whole in the end",
                f"the {status.action} {status.job_id[:8]} is {status.state}: {status.error}",
            )
    _judge(world, in_the_end=True)
