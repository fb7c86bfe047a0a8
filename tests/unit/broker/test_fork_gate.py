"""Forks, and threads that queue tasks: a process inherits the locks of such a thread, and nobody releases them."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A thread queues a task, by a method of Celery that holds a lock, and the process forks meanwhile.
FORK = """
import os, sys, threading
from celery import Celery
from snapferry.workers.broker import fork_gate
from snapferry.workers.broker.job_celery import JobCelery

fork_gate.FORK_WAIT_S = float(sys.argv[1])
lock, holds, go_on = threading.Lock(), threading.Event(), threading.Event()

def send_task(self, *rest, **options):
    with lock:
        holds.set()
        go_on.wait()

Celery.send_task = send_task
app = JobCelery("app", set_as_current=False)
thread = threading.Thread(target=app.send_task, args=("task",))
thread.start()
holds.wait()
if sys.argv[2] == "goes on":
    # While the fork waits.
    threading.Timer(0.2, go_on.set).start()
child = os.fork()
if not child:
    free = lock.acquire(blocking=False)
    if free:
        lock.release()
        go_on.set()
        app.send_task("task")
    os._exit(0 if free else 1)
_, status = os.waitpid(child, 0)
go_on.set()
thread.join()
# Forks and tasks go on.
app.send_task("task")
print("free" if status == 0 else "locked")
"""


@pytest.mark.parametrize(
    ("wait_s", "thread", "found"), [("240", "goes on", "free"), ("0.01", "hangs", "locked")]
)
def test_a_fork_waits_for_a_thread_that_queues_a_task_but_not_for_ever(
    wait_s: str, thread: str, found: str
) -> None:
    command = [sys.executable, "-c", FORK, wait_s, thread]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=240)
    assert ended.stdout.strip() == found
