"""
A fleet of spot machines: `python -m tests.endurance.spot`, or `make spot`. Prints the table of docs/reliability.md.

Each machine is a worker of two processes that lives for an exponentially distributed time; another takes its place at
once. A machine is taken away with a notice (SIGTERM, and SIGKILL when the notice is over) or without one (SIGKILL).
Times are a tenth of real ones: a machine lives 30 s on average instead of 5 minutes, a large object takes 18 s instead
of 3 minutes, the notice is 12 s instead of 2 minutes. Leases are not scaled, so the time that a lost batch waits weighs
ten times as much as on a real fleet. Exit code 1 if a job is not done, or a destination is not complete.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.workers.ledger import State
from snapferry.workers.messages import JobSpec
from snapferry.workers.settings.environment import Settings
from tests.integration.own_redis import own_redis
from tests.integration.processes import Fleet, Started
from tests.opening import open_store
from tests.sample import assert_published_means_complete, make_store, random_files

from .paced_bucket import paced_bucket

MACHINES: Final = 4
LIFE_S: Final = 30.0
NOTICE_S: Final = 12.0
# What the notice leaves, with the seconds of a shutdown scaled as everything.
GRACE_S: Final = 11.0

# Each worker is a machine of its own: no other one can tell that its processes are dead.
BEFORE: Final = """
import snapferry.stores.runtime.liveness as liveness
liveness._machine = lambda: {machine!r}
from snapferry.workers.lifecycle import shutdown
shutdown.REQUEUE_S, shutdown.KILL_AFTER_S, shutdown.FORCE_S = 1.0, 0.5, 0.8
from snapferry.workers.copying import batch_report
batch_report.SPEED_KNOWN_S = 0.3
"""


@dataclass(frozen=True)
class Work:
    """*count* objects of *size* bytes, each of which takes *object_s* seconds, in batches of *batch_objects*."""

    name: str
    count: int
    size: int
    object_s: float
    batch_objects: int


WORKS: Final = (
    Work("40 objects of 3 minutes, each a batch", 40, 4_000_000, 18.0, 1),
    Work("20,000 small objects, batches of 2 minutes", 20_000, 2_000, 0.6, 640),
)
ENDINGS: Final = ("never", "with notice", "without notice")


@dataclass
class Result:
    """What a run came to. *again* is the share of bytes that were sent more than once."""

    state: str
    seconds: float
    machines: int
    begins: int
    batches: int
    again: float


class Machines:
    """Keeps `MACHINES` workers running, each for a time by chance, until it is stopped."""

    def __init__(self, fleet: Fleet, ending: str, chance: random.Random) -> None:
        self._fleet, self._ending = fleet, ending
        self._ended = threading.Event()
        self.started = 0
        self._lock = threading.Lock()
        lives = [random.Random(chance.random()) for _ in range(MACHINES)]
        self._threads = [threading.Thread(target=self._keep, args=(life,), daemon=True) for life in lives]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _keep(self, chance: random.Random) -> None:
        while not self._ended.is_set():
            with self._lock:
                self.started += 1
                name = f"m{self.started}"
            with self._fleet.worker(
                name, "--grace", str(GRACE_S), before=BEFORE.format(machine=name)
            ) as running:
                self._ended.wait(None if self._ending == "never" else chance.expovariate(1 / LIFE_S))
                if not self._ended.is_set():
                    self._take(running)

    def _take(self, running: Started) -> None:
        if self._ending == "with notice":
            running.process.send_signal(signal.SIGTERM)
            with suppress(Exception):
                running.process.wait(NOTICE_S)
        running.kill_all()


def run(folder: Path, work: Work, ending: str, seed: int) -> Result:
    """Copy the objects of *work* by a fleet whose machines end as *ending* says."""
    snapshot = make_store(folder / "source", random_files(work.count, size=work.size, seed=seed))
    total = work.count * work.size
    with ExitStack() as stack:
        redis = stack.enter_context(own_redis(folder / "redis", "--port", "{port}"))
        bucket = stack.enter_context(paced_bucket(folder / "source", work.object_s))
        environment = {
            "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true",
            "SNAPFERRY_ACCESS_ENDPOINTS": bucket.endpoint,
        }  # fmt: skip
        fleet = Fleet(redis.url, folder, environment)
        settings = Settings(broker_url=redis.url, batch_objects=work.batch_objects)
        stack.enter_context(fleet.orchestrator())
        machines = stack.enter_context(Machines(fleet, ending, random.Random(seed)))
        jobs = Jobs(settings, check=False)
        began = time.monotonic()
        destination = str(folder / "destination")
        source = f"s3://bucket?endpoint_url={bucket.endpoint}"
        job = jobs.submit(JobSpec.of(*store_pair(source, destination), [snapshot]))
        status = jobs.wait(job, timeout_s=3600, poll_s=0.5)
        seconds = time.monotonic() - began
        with jobs.records() as client:
            begins = int(client.hget(f"snapferry:job:{job}", "begins") or 0)
        if status.state is State.DONE:
            assert_published_means_complete(open_store(destination))
        else:
            print(f"job {status.state}: {status.error}; {jobs.failed_by_class(job)}", flush=True)
        again = max(0, sum(bucket.sent.values()) - total) / total
        return Result(str(status.state), seconds, machines.started, begins, status.batches_total, again)


def main() -> int:
    """Run all works with all endings, and print a table."""
    options = argparse.ArgumentParser(prog="python -m tests.endurance.spot", description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--work", type=int, choices=range(len(WORKS)), help="run only this work")
    given = options.parse_args()
    works = WORKS if given.work is None else WORKS[given.work : given.work + 1]
    print(f"seed {given.seed}", flush=True)
    print(
        "| work | machines are taken away | result | time | machines | starts / batches | bytes sent again |"
    )
    print("|---|---|---|---:|---:|---:|---:|", flush=True)
    failed = False
    for work in works:
        for ending in ENDINGS:
            folder = Path(tempfile.mkdtemp(prefix="snapferry-spot-"))
            found = run(folder, work, ending, given.seed)
            failed |= found.state != State.DONE
            print(
                f"| {work.name} | {ending} | {found.state} | {found.seconds:.0f} s | {found.machines} |"
                f" {found.begins} / {found.batches} | {found.again:.1%} |",
                flush=True,
            )
            shutil.rmtree(folder, ignore_errors=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
