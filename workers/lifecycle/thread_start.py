"""
Threads that cannot begin raise where they are started.

In Python up to 3.14 `Thread.start` waits until the new thread says that it has begun. If the system has no memory for
it, it ends before that, and `start` waits for ever (https://github.com/python/cpython/issues/140746). Meanwhile the
other threads go on: the lease of the job is renewed, and no other process takes it over.
"""

from __future__ import annotations

import threading
from typing import Any, Final

# A new thread begins within milliseconds. It is waited for in slices, because a paused process finds that the time of
# one slice is over when it goes on.
SLICE_S: Final = 1.0
SLICES: Final = 20

_start = threading.Thread.start


class _Beginning(threading.Event):
    """What a new thread sets when it has begun. Waiting for it raises RuntimeError if it does not."""

    def wait(self, timeout: float | None = None) -> bool:
        if timeout is not None:
            return super().wait(timeout)
        for _ in range(SLICES):
            if super().wait(SLICE_S):
                return True
        raise RuntimeError("can't start new thread: it ended before it began, probably for lack of memory")


def _start_or_raise(thread: threading.Thread) -> None:
    own: Any = thread
    begun = getattr(own, "_started", None)
    if type(begun) is threading.Event and not begun.is_set():
        own._started = _Beginning()  # noqa: SLF001 - there is no public way
    try:
        _start(thread)
    except RuntimeError:
        # Otherwise it is listed by threading.enumerate as if it ran.
        getattr(threading, "_limbo", {}).pop(thread, None)
        raise


def install() -> None:
    """Let `threading.Thread.start` raise RuntimeError if the thread does not begin. May be called again."""
    threading.Thread.start = _start_or_raise  # type: ignore[assignment, method-assign]
