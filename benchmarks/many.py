"""
Jobs of millions of objects, end to end: real Redis, orchestrator, workers, chords and commit; simulated stores.

What is measured is what grows with a job: the time of its plan and of the whole,
and the memory of each role at its largest.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from orchestrator.jobs import Jobs
from workers.ledger import State
from workers.messages import StoreRef
from workers.settings import Settings

from . import simulated

LOOK_S: Final = 0.5
START_TIMEOUT_S: Final = 60.0


@dataclass
class ManyRun:
    """
    One job. Times in seconds, memory in bytes.

    *orchestrator* and *worker* are the largest PSS of one process of the role; *worker_early* that of a worker when
    a tenth was copied. *redis* is the most that Redis ever used.
    """

    objects: int
    plan_s: float = 0.0
    copy_s: float = 0.0
    commit_s: float = 0.0
    orchestrator: int = 0
    worker: int = 0
    worker_early: int = 0
    redis: int = 0
    cpu_s: dict[str, float] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        return self.plan_s + self.copy_s + self.commit_s


def run(folder: Path, objects: int, *, workers: int = 2) -> ManyRun:
    """Copy *objects* objects in a fleet of one orchestrator process and *workers* worker processes."""
    snapshot = simulated.make(folder, objects)
    simulated.register()
    found = ManyRun(objects)
    with _redis(folder) as (url, server), _fleet(folder, url, workers) as roles:
        jobs = Jobs(Settings.from_environment({"SNAPFERRY_BROKER_URL": url}))
        refs = [StoreRef(url=f"{simulated.SCHEME}://{folder}/{side}") for side in ("source", "copy")]
        job_id = jobs.submit(refs[0], refs[1], [snapshot])
        began: dict[State, float] = {}
        while True:
            status = jobs.status(job_id)
            began.setdefault(status.state, time.monotonic())
            for role, processes in roles.items():
                largest = max((_pss(process) for process in _children(processes)), default=0)
                setattr(found, role, max(getattr(found, role), largest))
                if role == "worker" and not found.worker_early and 10 * status.objects_settled > objects:
                    found.worker_early = largest
            _show(status)
            if status.state.final:
                break
            time.sleep(LOOK_S)
        if status.state is not State.DONE or status.copied != objects:
            raise RuntimeError(f"the job ended as {status.state}: {status.error}")
        ends = [began.get(State.COPYING, 0.0), began.get(State.COMMITTING, 0.0), began[State.DONE]]
        ends[1] = ends[1] or ends[2]
        began_at = began.get(State.QUEUED, began.get(State.PLANNING, ends[0]))
        found.plan_s, found.copy_s, found.commit_s = (
            end - begin for begin, end in zip([began_at, *ends], ends, strict=False)
        )
        found.redis = int(_info(url)["used_memory_peak"])
        for role, process in (*roles.items(), ("redis", server)):
            found.cpu_s[role] = sum(_cpu(each) for each in [process, *_children(process)])
    _check(folder, objects, snapshot)
    return found


def _check(folder: Path, objects: int, snapshot: str) -> None:
    """Make sure that the copy has everything: each object, and the manifest to the letter."""
    if (folder / "copy" / "held").read_bytes().count(1) != objects:
        raise RuntimeError("objects are missing at the copy")
    where = Path(".manifests", snapshot[:3], snapshot[3:6], snapshot[6:9], snapshot[9:])
    if (folder / "copy" / where).read_bytes() != (folder / "source" / where).read_bytes():
        raise RuntimeError("the manifests differ")


def _show(status: Any) -> None:
    words = f"{status.state}: {status.objects_settled:,} of {status.objects_total:,} objects"
    print(f"\r  {words:<60}", end="\n" if status.state.final else "", file=sys.stderr, flush=True)


@contextmanager
def _redis(folder: Path) -> Iterator[tuple[str, int]]:
    from orchestrator.embedded import find_server

    path = folder / "redis.sock"
    command = [find_server(), "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(
        [*command, "--maxmemory-policy", "noeviction"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not path.exists():
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("the Redis server does not start")
            time.sleep(0.05)
        yield f"unix://{path}", process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def _fleet(folder: Path, url: str, workers: int) -> Iterator[dict[str, int]]:
    """Run both roles; yield role -> its main process."""
    environment = os.environ | {"SNAPFERRY_BROKER_URL": url, "TMPDIR": str(folder)}
    running = {}
    log = (folder / "fleet.log").open("wb")
    try:
        for role, processes in (("orchestrator", 1), ("worker", workers)):
            running[role] = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.simulated", role, "-c", str(processes)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
                cwd=Path(__file__).parent.parent,
            )
        yield {role: process.pid for role, process in running.items()}
    finally:
        for process in running.values():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()
        shutil.rmtree(folder / f"snapferry-plans-{os.getuid()}", ignore_errors=True)


def _info(url: str) -> dict[str, Any]:
    from workers.connection import client

    found: Any = client(url).info("memory")
    return dict(found)


def _children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def _pss(process: int) -> int:
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _cpu(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    where = Path(sys.argv[1])
    for count in map(int, sys.argv[2:]):
        into = where / str(count)
        into.mkdir(parents=True)
        try:
            print(run(into, count), flush=True)
        finally:
            shutil.rmtree(into)
