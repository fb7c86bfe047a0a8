"""
No process is forked while a thread queues a task.

Celery and kombu queue tasks under locks. A process that is forked meanwhile inherits them as the thread holds them, and
no thread of it will ever release them. An orchestrator has threads that queue tasks, and replaces its processes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

FORK_WAIT_S: float = 5.0
"""The longest time in seconds that a fork waits: a thread may wait much longer for a broker that is away."""

_changed = threading.Condition()
_threads = 0


@contextmanager
def queueing() -> Iterator[None]:
    """Keep this process from forking inside the block, for `FORK_WAIT_S` at most."""
    global _threads
    with _changed:
        _threads += 1
    try:
        yield
    finally:
        with _changed:
            _threads -= 1
            _changed.notify_all()


def _before() -> None:
    _changed.acquire()
    _changed.wait_for(lambda: _threads <= 0, FORK_WAIT_S)


def _after_in_parent() -> None:
    _changed.release()


def _after_in_child() -> None:
    global _changed, _threads
    _changed, _threads = threading.Condition(), 0


os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
