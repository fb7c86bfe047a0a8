"""
The soft time limit of a task, raised so that no handler takes it for the failure of an object.

Celery raises `SoftTimeLimitExceeded`, an ordinary exception, in the middle of the task. Copying turns ordinary
exceptions into failures of objects. So inside the task the limit is raised as a `BaseException`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

# billiard sends this signal to a process of a pool whose task exceeds its soft limit.
_SIGNAL = getattr(signal, "SIGUSR1", None)


class _TimeLimitExceeded(BaseException):
    """The task exceeded its soft time limit."""


@contextmanager
def enforced() -> Iterator[None]:
    """
    Let a soft time limit end the block, whatever exceptions the block catches. Raises `SoftTimeLimitExceeded`.

    Does nothing in a pool of threads, which has no time limits.
    """
    if _SIGNAL is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_limit(number: int, frame: Any) -> None:
        raise _TimeLimitExceeded

    before = signal.signal(_SIGNAL, raise_limit)
    try:
        yield
    except _TimeLimitExceeded:
        raise SoftTimeLimitExceeded from None
    finally:
        signal.signal(_SIGNAL, before)
