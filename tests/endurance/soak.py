"""
Thousands of small jobs: `python -m tests.endurance.soak --minutes M`, or `make soak`. Exit code 1 if anything grows.

An orchestrator, two workers, a scheduler with a mirror and a scrub, and a dashboard whose pages are read all the time.
Copies, verifies, heals and pushes of small snapshots, some of which fail or are cancelled, follow each other: 10,000 in
two hours. The memory, the file descriptors and the threads of each role, the memory of Redis, its keys that do not
expire, and the files in the temporary directories are sampled.

A record of a job lives for five minutes after its end instead of 30 days, so that a steady state is reached.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import redis

from snapferry.orchestrator.jobs import Jobs, store_pair
from snapferry.stores.address import object_key
from snapferry.stores.hashing import digest
from snapferry.workers.ledger import State
from snapferry.workers.messages import Action, JobSpec, StoreRef
from snapferry.workers.settings.environment import Settings
from tests import servers
from tests.integration.own_redis import own_redis
from tests.integration.processes import Fleet, Started, program, started, until
from tests.opening import open_store
from tests.sample import fill, random_files

from .samples import (
    Series,
    Verdict,
    entries_below,
    judge,
    lasting_keys,
    memory_mb,
    open_files,
    threads,
)

JOBS_A_MINUTE: Final = 10_000 / 120
SAMPLE_S: Final = 10.0
EXPIRES_S: Final = 300
SETTLED_S: Final = 120.0
"""Jobs that have not ended hang if none has ended for so long after the last submission."""
MOST_OPEN: Final = 40
"""Jobs at a time. A machine that is too busy runs fewer jobs in all, and has a steady state as well."""
SNAPSHOTS: Final = 20
OBJECTS: Final = 5
DESTINATIONS: Final = 30

# Jobs of each kind in a hundred.
MIX: Final = {"copy": 70, "verify": 12, "heal": 6, "push": 6, "fail": 4, "cancel": 2}


class Soak:
    """The fleet, its jobs, and what was measured."""

    def __init__(self, folder: Path, url: str, roles: dict[str, Started], port: int, seed: int) -> None:
        self._folder, self._roles, self._port = folder, roles, port
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._jobs = Jobs(Settings(broker_url=url), check=False)
        self._chance = random.Random(seed)
        self._open: dict[str, str] = {}
        self.series: dict[str, Series] = {}
        self.ends: Counter[str] = Counter()
        store = open_store(str(folder / "source"))
        self._snapshots = [fill(store, random_files(OBJECTS, seed=n)) for n in range(SNAPSHOTS)]
        # What heals look at.
        healed = open_store(str(folder / "healed"))
        for n in range(SNAPSHOTS):
            fill(healed, random_files(OBJECTS, seed=n))
        # One snapshot has an object that the store has lost.
        data = random.Random("lost").randbytes(300)
        self._broken = fill(store, {"./lost": data, "./kept": b"kept"})
        (folder / "source" / object_key(digest(data))).unlink()
        self._tree = folder / "tree"
        self._tree.mkdir()
        for n in range(OBJECTS):
            (self._tree / f"file-{n}").write_bytes(random.Random(n).randbytes(200))

    def run(self, minutes: float) -> None:
        """Submit jobs evenly for so many *minutes*, and sample; then wait until all have ended."""
        began = time.monotonic()
        sampled, number, last_end, ended = -SAMPLE_S, 0, 0.0, 0
        while True:
            now = time.monotonic() - began
            over = now >= minutes * 60
            while not over and number < now / 60 * JOBS_A_MINUTE and len(self._open) < MOST_OPEN:
                self._submit(number)
                number += 1
            self._settle()
            if over and self.ends.total() == ended and now > last_end + SETTLED_S:
                return
            if self.ends.total() > ended or not over:
                last_end, ended = now, self.ends.total()
            if not over and now - sampled >= SAMPLE_S:
                sampled = now
                self.sample(now)
                self._read_pages()
            if over and not self._open:
                return
            time.sleep(0.2)

    def hanging(self) -> list[str]:
        """Return the jobs that have not ended, with what they are."""
        return [f"{job} ({kind}): {self._jobs.status(job).state}" for job, kind in self._open.items()]

    def _submit(self, number: int) -> None:
        kind = self._chance.choices([*MIX], [*MIX.values()])[0]
        place = self._folder / f"destination-{number % DESTINATIONS}"
        if kind == "copy" and number % 7 == 0:
            shutil.rmtree(place, ignore_errors=True)
        source, destination = store_pair(str(self._folder / "source"), str(place))
        ids = self._chance.sample(self._snapshots, self._chance.randint(1, 3))
        here = source
        fields: dict[str, Any] = {}
        if kind == "verify":
            destination, fields = source, {"action": Action.VERIFY}
        elif kind == "heal":
            fields = {"action": Action.HEAL}
            destination = store_pair(str(self._folder / "source"), str(self._folder / "healed"))[1]
            ids = ids[:1]
        elif kind == "push":
            here, ids = StoreRef(url=f"tree://{self._tree}"), []
            fields = {"action": Action.PUSH}
        elif kind == "fail":
            ids = [self._broken]
        job = self._jobs.submit(JobSpec.of(here, destination, ids or None, **fields))
        if kind == "cancel":
            self._jobs.cancel(job)
        self._open[job] = kind

    def _settle(self) -> None:
        """Let the records of jobs that have ended expire soon."""
        names = sorted(self._open)
        with self._client.pipeline(transaction=False) as pipe:
            for job in names:
                pipe.hget(f"snapferry:job:{job}", "state")
            states = dict(zip(names, pipe.execute(), strict=True))
        for job, state in states.items():
            if state in (State.DONE, State.FAILED, State.CANCELLED):
                self.ends[state] += 1
                del self._open[job]
                for key in (
                    f"snapferry:job:{job}",
                    *self._client.scan_iter(f"snapferry:job:{job}:*", count=5000),
                ):
                    self._client.expire(key, EXPIRES_S)

    def _read_pages(self) -> None:
        for page in ("", "jobs", "workers", "schedules", "api/jobs"):
            with (
                suppress(OSError),
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/{page}", timeout=30) as answer,
            ):
                answer.read()

    def sample(self, at: float) -> None:
        """Add a sample to all series."""
        for role, process in self._roles.items():
            family = process.family()
            self._add(f"{role} memory", at, memory_mb(family))
            self._add(f"{role} files", at, open_files(family))
            self._add(f"{role} threads", at, threads(family))
        info: Any = self._client.info("memory")
        self._add("Redis memory", at, info["used_memory"] / 1024**2)
        self._add("Redis keys", at, lasting_keys(self._client))
        self._add("files temporary", at, entries_below(self._folder / "tmp"))

    def _add(self, name: str, at: float, value: float) -> None:
        self.series.setdefault(name, Series(name)).places.append((at, value))


@contextmanager
def soak(folder: Path, seed: int) -> Iterator[Soak]:
    """Start the fleet; end it after the block."""
    (folder / "tmp").mkdir()
    (folder / "snapferry.toml").write_text(
        f'[stores]\nsource = "file://{folder}/source"\nmirrored = "file://{folder}/mirrored"\n'
        '[[mirror]]\nname = "m"\nfrom = "source"\nto = "mirrored"\nevery = "30s"\n'
        '[[scrub]]\nname = "s"\nstore = "source"\nevery = "30s"\nshare = "1/4"\n'
    )
    port = servers.free_port()
    with ExitStack() as stack:
        server = stack.enter_context(own_redis(folder / "redis", "--port", "{port}"))
        environment = {
            "TMPDIR": str(folder / "tmp"),
            "SNAPFERRY_CONFIG": str(folder / "snapferry.toml"),
            "SNAPFERRY_ACCESS_READ": f"file://{folder} tree://{folder}",
            "SNAPFERRY_ACCESS_WRITE": f"file://{folder}",
        }
        fleet = Fleet(server.url, folder, environment)
        settings = environment | {"SNAPFERRY_BROKER_URL": server.url}
        roles = {
            "orchestrator": stack.enter_context(fleet.orchestrator()),
            "worker 1": stack.enter_context(fleet.worker("w1")),
            "worker 2": stack.enter_context(fleet.worker("w2", "--", "--pool", "threads")),
        }
        for role, arguments in (("scheduler", ()), ("dashboard", ("--port", str(port)))):
            roles[role] = stack.enter_context(
                started(*program(), role, *arguments, env=settings, log=folder / f"{role}.log")
            )
        until(lambda: _answers(port), "the dashboard answers")
        yield Soak(folder, server.url, roles, port, seed)


def _answers(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return int(answer.status) == 200
    return False


def table(verdicts: list[Verdict]) -> Iterator[str]:
    """Yield the lines of a table of *verdicts*."""
    yield "| figure | after the warm-up | at the end | growth by slope | allowed | verdict |"
    yield "|---|---:|---:|---:|---:|---|"
    for one in verdicts:
        numbers = " | ".join(f"{value:,.1f}" for value in (one.first, one.last, one.growth, one.allowed))
        yield f"| {one.name} | {numbers} | {'**grows**' if one.grows else 'flat'} |"


def main() -> int:
    """Run the soak, print its table, and write its samples."""
    options = argparse.ArgumentParser(prog="python -m tests.endurance.soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=120)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--json", type=Path, help="write the samples to this file, for tests.endurance.plot")
    given = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="snapferry-soak-"))
    with soak(folder, given.seed) as made:
        try:
            made.run(given.minutes)
            hanging = made.hanging()
        finally:
            if given.json:
                given.json.write_text(json.dumps({name: one.places for name, one in made.series.items()}))
    verdicts = [judge(one) for one in made.series.values()]
    print(
        f"{sum(made.ends.values()):,} jobs in {given.minutes:g} minutes: {dict(made.ends)}; seed {given.seed}"
    )
    print("\n".join(table(verdicts)))
    shutil.rmtree(folder, ignore_errors=True)
    for job in hanging:
        print(f"HANGS {job}")
    return 1 if hanging or any(one.grows for one in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
