"""
How long Flower's pages take with many tasks remembered, in a real browser.

python -m benchmarks.flower_pages [--tasks N]. A Redis, a worker and `snapferry flower` are started; the events of
N tasks are sent as workers send them. Each page is opened in a window without a cache, and timed until what it
shows is there. Needs chromium and playwright.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from orchestrator.app import make_fleet_app
from tests.integration.flowers import PASSWORD, Flower, flower
from tests.integration.own_redis import own_redis
from tests.integration.processes import Fleet, until
from tests.servers import program
from workers.settings import Settings

TIMES = 5
CHUNK = 500

JOB_TASKS = 100
COLUMNS = "draw=1&start=0&length=1&order[0][column]=0&order[0][dir]=desc&columns[0][data]=received"


def remembered(pages: Flower) -> int:
    return int(pages.get(f"/tasks/datatable?{COLUMNS}")["recordsTotal"])


def fill(broker: str, pages: Flower, count: int) -> str:
    """Send the events of *count* tasks, of jobs of `JOB_TASKS` batches; return the id of one that failed."""
    app = make_fleet_app(Settings(broker_url=broker))
    failed = ""
    with app.connection() as connection:
        events = app.events.Dispatcher(connection, hostname="worker-1@host")
        for first in range(0, count, CHUNK):
            for number in range(first, min(first + CHUNK, count)):
                job = uuid.uuid5(uuid.NAMESPACE_URL, str(number // JOB_TASKS))
                task, batch = str(uuid.uuid4()), number % JOB_TASKS + 1
                words = f"job {str(job)[:8]} · 95ff19… · batch {batch}/{JOB_TASKS} · 1,000 objects · 61.4 MB"
                common = {"uuid": task, "name": "snapferry.copy_batch", "args": words, "kwargs": ""}
                tied = {
                    "root_id": str(job),
                    "parent_id": str(job),
                    "retries": 0,
                    "eta": None,
                    "expires": None,
                }
                events.send(
                    "task-sent", queue="snapferry.copy", exchange="", routing_key="", **common, **tied
                )
                events.send("task-received", **common, **tied)
                events.send("task-started", uuid=task)
                if number % 50:
                    said = "'998 copied, 2 present, 61.4 MB in 4.1 s'"
                    events.send("task-succeeded", uuid=task, result=said, runtime=4.1)
                else:
                    failed = task
                    why = (
                        "ObjectsFailed('997 copied, 2 present, 1 FAILED. object 95ff19ab… at s3://bucket: …')"
                    )
                    events.send("task-failed", uuid=task, exception=why, traceback="Traceback …\n" * 10)
            # Redis cuts off a listener that is too far behind.
            until(
                lambda upto=first: remembered(pages) >= min(upto + CHUNK, count),
                "Flower has heard of all of it",
            )
    return failed


@contextmanager
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    found = program("chromium") or program("chromium-browser") or sys.exit("there is no chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield running
        running.close()


def opened(running: Any, url: str, ready: Callable[[Any], None]) -> float:
    """Return the seconds until the page at *url* is there, in a window that has seen nothing yet."""
    user, _, password = PASSWORD.partition(":")
    context = running.new_context(http_credentials={"username": user, "password": password})
    try:
        page = context.new_page()
        began = time.perf_counter()
        page.goto(url)
        ready(page)
        return time.perf_counter() - began
    finally:
        context.close()


def measure(pages: Flower, failed: str, worker: str) -> None:
    def row(page: Any) -> None:
        page.locator("#tasks-table tbody tr td a").first.wait_for()

    def text(words: str) -> Callable[[Any], None]:
        return lambda page: page.get_by_text(words).first.wait_for()

    def search(page: Any) -> None:
        row(page)
        box = page.get_by_role("searchbox")
        job = page.locator("#tasks-table tbody tr").first.inner_text().partition("job ")[2][:8]
        box.fill(f"args:{job}")
        page.get_by_text("filtered from").wait_for()

    asked = {
        "workers": ("/", text("worker-1@host")),
        "tasks": ("/tasks", row),
        "tasks that failed": ("/tasks?state=FAILURE", row),
        "a task": (f"/task/{failed}", text("1 FAILED")),
        "a worker": (f"/worker/{worker}", text("Pool")),
        "broker": ("/broker", text("snapferry.copy")),
    }
    with browser() as running:
        opened(running, pages.url + "/", text("worker-1@host"))
        for name, (path, ready) in asked.items():
            times = sorted(opened(running, pages.url + path, ready) for _ in range(TIMES))
            print(f"{name:20} median {statistics.median(times):.2f} s, longest {times[-1]:.2f} s")
        times = sorted(opened(running, pages.url + "/tasks", search) for _ in range(TIMES))
        print(
            f"{'tasks, then a search':20} median {statistics.median(times):.2f} s, longest {times[-1]:.2f} s"
        )


def main() -> None:
    """Fill, measure, and say what it takes to save what is remembered."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    count = parser.parse_args().tasks
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(own_redis(folder / "redis", "--port", "{port}"))
        pages = stack.enter_context(flower(redis.url, folder, "--max-tasks", str(max(count, 100))))
        stack.enter_context(Fleet(redis.url, folder).worker())
        worker = pages.worker("worker")
        began = time.perf_counter()
        failed = fill(redis.url, pages, count)
        process = pages.running.process
        memory = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True, check=True
        )
        took = time.perf_counter() - began
        print(f"{count:,} tasks heard of in {took:.0f} s; Flower takes {int(memory.stdout) / 1000:.0f} MB")
        measure(pages, failed, worker)
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        size = sum(file.stat().st_size for file in (folder / "flower").iterdir())
        print(f"saved, and ended, within {time.perf_counter() - began:.1f} s: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
