"""
The soft time limit of a task, as a stop that nothing on the way takes for the failure of an object.

Celery raises `SoftTimeLimitExceeded`, an ordinary exception, in the middle of whatever the process does. Copying turns
ordinary exceptions into failures of objects, so here the limit travels as no ordinary one.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

# What billiard sends to a process of a pool whose task has run for too long.
_SIGNAL = getattr(signal, "SIGUSR1", None)


class _OutOfTime(BaseException):
    """The task has run for longer than its soft limit."""


@contextmanager
def passing() -> Iterator[None]:
    """
    Let a soft time limit end the block, whatever the block catches; raise `SoftTimeLimitExceeded` behind it.

    In threads, which have no time limits, it does nothing.
    """
    if _SIGNAL is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        raise _OutOfTime

    before = signal.signal(_SIGNAL, end)
    try:
        yield
    except _OutOfTime:
        raise SoftTimeLimitExceeded from None
    finally:
        signal.signal(_SIGNAL, before)
