"""
A fleet on this machine, as it runs in production: Redis, an orchestrator and workers, each a process of its own.

Each worker is one ``snapferry worker``, with one batch at a time.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from . import commands
from .measure import Command, CommandFailed, ProcessTree, busy_seconds, cores, cpu_of
from .servers import RedisServer

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True)
class Job:
    """
    A job that a fleet has done, by its own record.

    *seconds*: from its start to its end, so that neither the start of the
    processes nor that of the command is in it. *fleet_share* and *busy_share*:
    what the fleet and the whole machine took of the cores' time meanwhile, 0.0 to 1.0.
    """

    seconds: float
    objects: int
    fleet_share: float
    busy_share: float
    cpu_seconds: float


class Fleet:
    """
    *workers* worker processes, an orchestrator, and their Redis. For a ``with`` block; ready once it is entered.

    *program*: the module that is run as ``snapferry``.
    """

    def __init__(
        self, folder: Path, workers: int, more: Mapping[str, str], *, program: str = commands.OURS
    ) -> None:
        self._folder = folder
        self._workers = workers
        self._redis = RedisServer(folder)
        self._more = dict(more)
        self._program = program
        self._roles: dict[str, subprocess.Popen[bytes]] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack:
            self._stack.enter_context(self._redis)
            self._stack.callback(self._stop)
            self._start("orchestrator", "orchestrator")
            for number in range(self._workers):
                self._start("worker", f"worker{number}")
            self._wait_until_ready()
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def more(self) -> Mapping[str, str]:
        """The variables that its processes have."""
        return self._more

    @property
    def broker(self) -> str:
        """The URL of its Redis."""
        return self._redis.url

    def processes(self) -> dict[str, set[int]]:
        """Return the processes that live now: of ``redis``, ``orchestrator``, ``worker0`` and so on."""
        found = {"redis": {self._redis.process}}
        for name, role in self._roles.items():
            found[name] = ProcessTree(role.pid, "none").members()
        return found

    def copy(self, snapshot: str, source: str, destination: str, *, jobs: int) -> Job:
        """Copy *snapshot* with *jobs* objects in flight in all. Raises `CommandFailed`."""
        command = commands.ours_on_fleet(
            snapshot, source, destination, broker=self._redis.url, jobs=jobs, more=self._more
        )
        return self._run(command, "copied")

    def verify(self, snapshot: str, store: str, *, jobs: int) -> Job:
        """Verify *snapshot* with *jobs* objects in flight in all. Raises `CommandFailed`."""
        command = commands.ours_verify_on_fleet(
            snapshot, store, broker=self._redis.url, jobs=jobs, more=self._more
        )
        return self._run(command, "present")

    def _run(self, command: Command, outcome: str) -> Job:
        fleet, busy, began = cpu_of(self._all()), busy_seconds(), time.monotonic()
        done = subprocess.run(
            command.arguments,
            env=dict(command.environment),
            capture_output=True,
            text=True,
            check=False,
            process_group=0,
        )
        elapsed = time.monotonic() - began
        fleet, busy = cpu_of(self._all()) - fleet, busy_seconds() - busy
        if done.returncode != 0:
            raise CommandFailed(f"exit code {done.returncode} of a job of the fleet: {done.stderr[-2000:]}")
        return read_job(json.loads(done.stdout), fleet, busy, elapsed, outcome)

    def _start(self, role: str, name: str) -> None:
        command = commands.ours(
            role, "--broker", self._redis.url, "-c", "1", "--hostname", f"{name}@%h",
            more=self._more, program=self._program,
        )  # fmt: skip
        with (self._folder / f"{name}.log").open("wb") as log:
            self._roles[name] = subprocess.Popen(
                command.arguments,
                env=dict(command.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        for name, role in self._roles.items():
            log = self._folder / f"{name}.log"
            while " ready." not in log.read_text(errors="replace"):
                if time.monotonic() > deadline or role.poll() is not None:
                    raise RuntimeError(f"a part of the fleet does not start: {log.read_text()[-1000:]}")
                time.sleep(0.05)

    def _all(self) -> set[int]:
        return set().union(*self.processes().values())

    def _stop(self) -> None:
        """End the roles: asked first, so that each ends its own children, and killed if that does not help."""
        members = [ProcessTree(role.pid, "none").members() for role in self._roles.values()]
        for role in self._roles.values():
            role.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for role, tree in zip(self._roles.values(), members, strict=True):
            try:
                role.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                for member in tree:
                    with suppress(ProcessLookupError):
                        os.kill(member, signal.SIGKILL)
                role.wait()


def read_job(
    document: Mapping[str, Any], fleet: float, busy: float, elapsed: float, outcome: str = "copied"
) -> Job:
    """Return a job of objects that end as *outcome*, from its JSON document and from the CPU times while it ran."""
    return Job(
        job_seconds(document),
        document["objects"][outcome],
        fleet / elapsed / cores(),
        busy / elapsed / cores(),
        fleet,
    )


def job_seconds(document: Mapping[str, Any]) -> float:
    """Return how long a job took, by its own record, which ``snapferry sync --json`` printed."""
    started, ended = (datetime.fromisoformat(document[name]) for name in ("started", "ended"))
    return (ended - started).total_seconds()


def efficiency(throughputs: Mapping[int, float]) -> dict[int, float]:
    """Return, for each number of workers, their throughput as a share of so many times what the fewest do each."""
    fewest = min(throughputs)
    each = throughputs[fewest] / fewest
    return {workers: found / (workers * each) for workers, found in sorted(throughputs.items())}
