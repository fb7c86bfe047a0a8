"""
Random faults on a real fleet: `python -m tests.chaos --seed N --minutes M`, or `make chaos`.

Two orchestrators, three workers, Redis with an append-only file, a bucket behind a proxy and directories; a job is
always on its way. One fault follows the other, some at the same time. All the while the destinations are checked:
what is published is complete. In the end the faults stop, and within a bound every job must end, with each of its
objects in exactly one outcome, and a last job must complete every snapshot. Exit code 1 for any violation.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from snapferry.orchestrator.jobs import store_pair
from snapferry.workers.broker.connection import BrokerUnavailable
from snapferry.workers.ledger import State, UnknownJob
from snapferry.workers.messages import JobSpec

from .faults import FAULTS
from .world import Watch, World, check_destination, world

# Within this time after the last fault every job has ended.
SETTLED_S = 300.0


def keep_running(made: World, ended: threading.Event) -> None:
    """Start again what has ended, as systemd does."""
    while not ended.wait(1.0):
        for role in made.roles:
            if role.running and role.running.process.poll() is not None:
                role.running.kill_all()
                try:
                    made.start(role)
                except (AssertionError, OSError):
                    continue


def goes_on(made: World, job: str) -> bool:
    """
    Say whether a job has not ended.

    Redis may forget one: it is told to, or is killed while it had yet to write the last second or two to its disk.
    """
    try:
        return not made.jobs.status(job).state.final
    except UnknownJob:
        made.forgotten.append(job)
        return False


def settle(made: World, jobs: list[str]) -> None:
    """Wait until all of *jobs* have ended; what has not, and what is not accounted for, is a violation."""
    deadline = time.monotonic() + SETTLED_S
    for job in dict.fromkeys(jobs):
        if job in made.forgotten:
            continue
        while True:
            try:
                status = made.jobs.status(job)
            except Exception as error:
                if time.monotonic() > deadline:
                    made.violations.append(f"job {job[:8]} cannot be asked for: {error}")
                    break
                time.sleep(1)
                continue
            if status.state.final:
                settled = status.copied + status.present + status.failed
                if status.state is State.DONE and settled != status.objects_total:
                    made.violations.append(
                        f"job {job[:8]} is done with {settled} of {status.objects_total} objects"
                    )
                if settled > status.objects_total:
                    made.violations.append(
                        f"job {job[:8]} settled {settled} of {status.objects_total} objects"
                    )
                break
            if time.monotonic() > deadline:
                made.violations.append(
                    f"job {job[:8]} hangs: {status.state}, {status.batches_done} of {status.batches_total} batches"
                )
                break
            time.sleep(0.5)


def run(folder: Path, seed: int, minutes: float) -> tuple[World, Counter[str], dict[str, int]]:
    """Run the chaos; return the world as it was left, the faults by kind, and the ends of jobs."""
    with world(folder, seed) as made:
        ended = threading.Event()
        keeper = threading.Thread(target=keep_running, args=(made, ended), daemon=True)
        keeper.start()
        done: Counter[str] = Counter()
        until = time.monotonic() + minutes * 60
        with Watch(made) as watch:
            while time.monotonic() < until:
                try:
                    running = [job for job in made.submitted if goes_on(made, job)]
                    while len(running) < 2:
                        running.append(made.submit())
                except Exception as error:  # Redis is away
                    print(f"  not now: {error}", flush=True)
                    time.sleep(1)
                    continue
                names = made.chance.sample(sorted(FAULTS), made.chance.choice([1, 1, 2, 3]))
                threads = [threading.Thread(target=_do, args=(made, name, done)) for name in names]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
                time.sleep(made.chance.uniform(0, 4))
            made.trouble.kind = ""
            made.submitted[:] = dict.fromkeys(made.submitted)
            for job in made.submitted:
                with suppress(BrokerUnavailable):
                    goes_on(made, job)
            settle(made, made.submitted)
            for destination in ("s3", "dir2"):
                job = made.jobs.submit(
                    JobSpec.of(*store_pair(made.stores["dir"], made.stores[destination]), made.snapshots)
                )
                made.submitted.append(job)
            settle(made, made.submitted[-2:])
        for job in made.submitted[-2:]:
            status = made.jobs.status(job)
            if status.state is not State.DONE:
                made.violations.append(f"the last job {job[:8]} is {status.state}: {status.error}")
        for place in made.destinations:
            if check_destination(made, place, set()) != len(made.snapshots):
                made.violations.append(f"{place} has not all snapshots")
        ends = Counter(
            str(made.jobs.status(job).state) for job in made.submitted if job not in made.forgotten
        )
        ends["forgotten"] = len({*made.forgotten})
        print(f"checked {watch.rounds} times", flush=True)
        ended.set()
        keeper.join()
        return made, done, ends


def _do(made: World, name: str, done: Counter[str]) -> None:
    began = time.monotonic()
    try:
        what = FAULTS[name](made)
    except Exception as error:  # a fault that Redis' absence prevents is none
        what = f"could not be done: {type(error).__name__} {error}"
    else:
        done[name] += 1
    print(f"  {name}: {what} ({time.monotonic() - began:.0f} s)", flush=True)


def main() -> int:
    """Run the command."""
    options = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--minutes", type=float, default=10)
    options.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    given = options.parse_args()
    print(f"seed {given.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="snapferry-chaos-"))
    made, done, ends = run(folder, given.seed, given.minutes)
    jobs = f"{sum(ends.values())} jobs: {dict(ends)}"
    print(f"{sum(done.values())} faults of {len(done)} kinds, {jobs}; seed {given.seed}")
    for name, count in sorted(done.items()):
        print(f"  {count:4} {name}")
    for violation in dict.fromkeys(made.violations):
        print(f"VIOLATION {violation}")
    print(f"logs in {folder}")
    return 1 if made.violations else 0


if __name__ == "__main__":
    sys.exit(main())
