"""
When Python's garbage collector visits what, in a process that serves a queue.

*frozen*: what was imported before the first child is forked, or the first task runs, lives as long as the process. The
collector does not visit it afterwards: in a child process it would copy the memory that is shared with the parent.
*every minute*: a task that fails leaves thousands of small tuples in a cycle, those of billiard's traceback. Python
collects old garbage by the number of living objects, which hardly changes, so a pool of threads would keep more than
ten megabytes of garbage. With so little to visit, a collection takes milliseconds.
"""

from __future__ import annotations

import gc
import threading
from typing import Any, Final

from celery import signals

COLLECT_S: Final = 60.0
"""Time between two collections in the main process."""

# Before the first child is forked. A pool of threads has none.
_WORK_BEGINS: Final = (signals.worker_before_create_process, signals.worker_ready)


def attach() -> None:
    """Let the processes of Celery's worker freeze memory before the work begins, and collect garbage regularly."""
    for begins in _WORK_BEGINS:
        begins.connect(_freeze_memory, weak=False)
    signals.worker_ready.connect(_collect_regularly, weak=False)


def _freeze_memory(**_: Any) -> None:
    # Once is enough. To ask whether there is frozen memory, Python visits all of it.
    for begins in _WORK_BEGINS:
        begins.disconnect(_freeze_memory)
    gc.collect()
    gc.freeze()


def _collect_regularly(**_: Any) -> None:
    # A worker that has lost its broker is ready again.
    signals.worker_ready.disconnect(_collect_regularly)
    threading.Thread(target=_collect, name="garbage", daemon=True).start()


def _collect() -> None:
    pause = threading.Event()
    while not pause.wait(COLLECT_S):
        gc.collect()
