"""Run something that no timeout of a library limits, for a limited time."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextvars import copy_context

from snapferry.stores.errors import StoreError
from snapferry.stores.runtime.interruption import SLICE_S, checkpoint, interruptible_too


def run_within(timeout_s: float, run: Callable[[], None], too_late: Callable[[], StoreError]) -> None:
    """
    Run *run* in a thread of its own. Raise what it raises, and `too_late()` if it takes longer than *timeout_s*.

    An abandoned thread ends at its next checkpoint, which raises `too_late()` too.
    """
    results: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    ended = threading.Event()
    abandoned = threading.Event()

    def stop_if_abandoned() -> None:
        if abandoned.is_set():
            raise too_late()

    def report() -> None:
        try:
            with interruptible_too(stop_if_abandoned):
                run()
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            results.put(error)
        else:
            results.put(None)
        ended.set()

    threading.Thread(target=copy_context().run, args=(report,), name="s3-check", daemon=True).start()
    until = time.monotonic() + timeout_s
    try:
        while results.empty():
            checkpoint()
            left_s = until - time.monotonic()
            if left_s <= 0:
                raise too_late()
            ended.wait(min(SLICE_S, left_s))
    finally:
        abandoned.set()
    error = results.get()
    if error is not None:
        raise error
