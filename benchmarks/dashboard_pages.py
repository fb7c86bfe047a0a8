"""
How long the dashboard's pages take with many jobs in Redis.

python -m benchmarks.dashboard_pages [--jobs N] [--open N]. A Redis is filled with the records of N jobs, some of them
open with a running batch, and with mirrors; then `snapferry dashboard` is started, and each page is asked for as the
first one after a start, and again. A request is measured from its connection to the last byte of the answer, by the
clock and by the CPU time of the dashboard, whose ticks are 10 ms. CPU time hardly depends on other work of the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from snapferry.workers.ledger import Ledger, ScheduleLedger
from snapferry.workers.messages import JobSpec, MirrorMessage, StoreRef
from tests.integration.dashboards import Dashboard, dashboard
from tests.integration.own_redis import own_redis

from .measure import cpu_of

TIMES = 5
STORES = 40
MIRRORS = 50

ENDS = ("done", "done", "done", "failed", "cancelled")


def fill(url: str, jobs: int, still_open: int) -> list[str]:
    """Write the records of *jobs* jobs, the latest *still_open* of them open; return their ids, the latest first."""
    client = redis.Redis.from_url(url, decode_responses=True)
    ids = [str(uuid.uuid5(uuid.NAMESPACE_URL, str(number))) for number in range(jobs)]
    now = time.time()
    with client.pipeline(transaction=False) as pipe:
        for number, job_id in enumerate(ids):
            at, key = now - 60 * number, f"snapferry:job:{job_id}"
            source, destination = f"file:///srv/{number % STORES}", f"s3://backup/{number % STORES}"
            pipe.hset(key, mapping=record(job_id, source, destination, at, number, still_open))
            pipe.zadd("snapferry:jobs", {job_id: at})
            if number < still_open:
                holder = f"1#{number}@worker@host-{number % 16}"
                pipe.sadd("snapferry:open", job_id)
                pipe.hset(f"{key}:running", "plan:8", "400 4000000")
                pipe.hset(f"{key}:holders", "plan:8", holder)
                pipe.hset(f"{key}:moves", "plan:8", f"{now:.3f} 4 400 4000000 4000000")
                pipe.zadd(f"{key}:leases", {"plan:8": now + 3600})
        for number in range(16):
            announced = {"at": now + 3600, "queues": ["snapferry.copy"]}
            pipe.hset("snapferry:workers", f"worker@host-{number}", json.dumps(announced))
        pipe.execute()
    mirrors = ScheduleLedger(client, "mirror")
    for number in range(MIRRORS):
        name = f"mirror-{number}"
        stores = {"source": StoreRef(url=f"/a/{number}"), "destination": StoreRef(url=f"/b/{number}")}
        definition = {"args": [MirrorMessage(name=name, **stores).model_dump(mode="json")]}
        client.zadd("snapferry:beat::schedule", {f"snapferry:beat:{name}": now + 3600})
        client.hset(f"snapferry:beat:{name}", "definition", json.dumps(definition))
        mirrors.started(name, ids[number])
    assert len(Ledger(client, expires_s=3600).job_ids()) == jobs
    return ids


def record(
    job_id: str, source: str, destination: str, at: float, number: int, still_open: int
) -> dict[Any, Any]:
    """Return the record of a job as the ledger has it."""
    stores = {"source": StoreRef(url=source), "destination": StoreRef(url=destination)}
    request = JobSpec(job_id=job_id, everything=True, batch_objects=1000, **stores).model_dump_json()
    state = "copying" if number < still_open else ENDS[number % len(ENDS)]
    failed = 7 * (state == "failed")
    found: dict[Any, Any] = {
        "request": request, "state": state, "source": source, "destination": destination, "priority": "normal",
        "submitted_at": at, "started_at": at + 1, "moved_at": at + 50, "snapshots_total": 3, "objects_total": 9000,
        "bytes_total": 90_000_000, "objects_settled": 8000, "bytes_settled": 80_000_000, "copied": 7000 - failed,
        "present": 1000, "failed": failed, "bytes_copied": 70_000_000, "batches_total": 9, "batches_handed": 9,
        "batches_done": 8, "published": 3 * (state == "done"), "unpublished": 3 * (state == "failed"),
    }  # fmt: skip
    if state == "copying":
        return found | {"moved_at": time.time()}
    return found | {"ended_at": at + 50, "error": "7 of 9,000 objects could not be copied" if failed else ""}


def paths(ids: list[str], still_open: int) -> dict[str, str]:
    """Return the pages that are asked for: name -> address."""
    return {
        "jobs": "/",
        "jobs, a search": "/?q=backup/7",
        "jobs, a store, failed ones": "/?store=s3%3A%2F%2Fbackup%2F3&state=failed",
        "jobs, by throughput": "/?sort=throughput",
        "jobs, the last page": "/?page=99999",
        "an open job": f"/jobs/{ids[0]}",
        "a failed job": f"/jobs/{ids[still_open + 3]}",
        "workers": "/workers",
        "throughput": "/throughput",
        "schedules": "/schedules",
    }


@dataclass(frozen=True)
class Cost:
    """What something took: *seconds* by the clock, and *cpu* seconds of the dashboard."""

    seconds: float
    cpu: float

    @property
    def text(self) -> str:
        """The two, with their units."""
        return f"{1000 * self.seconds:6.0f} ms, CPU {1000 * self.cpu:6.0f} ms"


def cost(pages: Dashboard, path: str) -> Cost:
    """Ask for the page at *path*; return what it took until all of it was received."""
    cpu, began = cpu_of([pages.process.process.pid]), time.perf_counter()
    pages.page(path)
    return Cost(time.perf_counter() - began, cpu_of([pages.process.process.pid]) - cpu)


def main() -> None:
    """Fill Redis, and measure the start and each page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--open", type=int, default=100)
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        own_redis(Path(folder) / "redis", "--port", "{port}") as server,
    ):
        ids = fill(server.url, given.jobs, given.open)
        load = os.getloadavg()[0]
        print(f"{given.jobs:,} jobs, {given.open:,} of them open; load before the start {load:.1f}")
        began = time.perf_counter()
        with dashboard(Path(folder), server.url) as pages:
            up = Cost(time.perf_counter() - began, cpu_of([pages.process.process.pid]))
            print(f"{'the start, until it answers':28} {up.text}")
            later = {}
            for name, path in paths(ids, given.open).items():
                times = [cost(pages, path) for _ in range(TIMES + 1)][1:]
                later[name] = Cost(
                    statistics.median(one.seconds for one in times), sum(one.cpu for one in times) / TIMES
                )
        print(f"{'':28} {'first page after the start':28}  median of {TIMES}")
        for name, path in paths(ids, given.open).items():
            with dashboard(Path(folder), server.url) as pages:
                print(f"{name:28} {cost(pages, path).text}   {later[name].text}", flush=True)


if __name__ == "__main__":
    main()
