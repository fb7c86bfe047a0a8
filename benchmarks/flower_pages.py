"""
How long Flower's pages take with many tasks remembered, in a real browser.

python -m benchmarks.flower_pages [--tasks N]. The events of N tasks are given to what Flower remembers by, and that
is saved as Flower saves it; then a Redis, a worker and `snapferry flower` are started. Each page is opened in a
window without a cache, and timed until what it shows is there. Needs chromium and playwright.
"""

from __future__ import annotations

import argparse
import itertools
import shelve
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

from tests.integration.flowers import PASSWORD, Flower, flower
from tests.integration.own_redis import own_redis
from tests.integration.processes import Fleet
from tests.servers import program

TIMES = 5
JOB_TASKS = 100


def fill(folder: Path, count: int) -> str:
    """Save *count* tasks, of jobs of `JOB_TASKS` batches, in Flower's file; return the id of one that failed."""
    from flower.events import EventsState

    state = EventsState(max_tasks_in_memory=count)
    clock = itertools.count(1)
    failed = ""

    def event(kind: str, at: float, **fields: Any) -> None:
        common = {"hostname": "worker-1@host", "pid": 1, "utcoffset": 0, "clock": next(clock)}
        state.event({"type": kind, "timestamp": at, "local_received": at, **common, **fields})

    for number in range(count):
        at = time.time() - 4.2 * (count - number)
        job = str(uuid.uuid5(uuid.NAMESPACE_URL, str(number // JOB_TASKS)))
        task, batch = str(uuid.uuid4()), number % JOB_TASKS + 1
        words = f"job {job[:8]} · 95ff19… · batch {batch}/{JOB_TASKS} · 1,000 objects · 61.4 MB"
        what = {"name": "snapferry.copy_batch", "args": words, "kwargs": "", "root_id": job, "parent_id": job}
        event("task-sent", at, uuid=task, retries=0, queue="snapferry.copy", **what)
        event("task-received", at, uuid=task, retries=0, **what)
        event("task-started", at, uuid=task)
        if number % 50:
            result = "'998 copied, 2 present, 61.4 MB in 4.1 s'"
            event("task-succeeded", at + 4.1, uuid=task, result=result, runtime=4.1)
        else:
            failed = task
            why = "ObjectsFailed('997 copied, 2 present, 1 FAILED. object 95ff19ab… at s3://bucket: corrupt')"
            event("task-failed", at + 4.1, uuid=task, exception=why, traceback="Traceback …\n" * 10)
    folder.mkdir(mode=0o700)
    with shelve.open(str(folder / "db"), flag="n") as file:
        file["events"] = state
        file["counter"] = dict(state.counter)
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
        failed = fill(folder / "flower", count)
        redis = stack.enter_context(own_redis(folder / "redis", "--port", "{port}"))
        began = time.perf_counter()
        pages = stack.enter_context(flower(redis.url, folder, "--max-tasks", str(max(count, 100))))
        took = time.perf_counter() - began
        stack.enter_context(Fleet(redis.url, folder).worker())
        worker = pages.worker("worker")
        process = pages.running.process
        memory = subprocess.run(
            ["ps", "-o", "rss=", "-p", str(process.pid)], capture_output=True, text=True, check=True
        )
        print(
            f"{count:,} tasks read, and Flower up, in {took:.1f} s; it takes {int(memory.stdout) / 1000:.0f} MB"
        )
        measure(pages, failed, worker)
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        size = sum(file.stat().st_size for file in (folder / "flower").iterdir())
        print(f"saved, and ended, within {time.perf_counter() - began:.1f} s: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
