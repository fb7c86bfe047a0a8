"""A repeated action beside the work, for as long as the work takes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Self


class Heartbeat:
    """Calls *beat* every *seconds* from its own thread while the ``with`` block runs. *beat* must not raise."""

    def __init__(self, beat: Callable[[], None], seconds: float) -> None:
        self._beat = beat
        self._seconds = seconds
        self._ended = threading.Event()
        run = copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run,), name="heartbeat", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.end()

    def end(self, timeout_s: float | None = None) -> None:
        """End the thread after its current beat; wait for that, at most *timeout_s* seconds if given."""
        self._ended.set()
        self._thread.join(timeout_s)
        # It usually belongs to the owner of this heartbeat. Such a cycle would live until Python collects old garbage,
        # and with it all that the owner has, such as open directories.
        self._beat = _nothing

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self._beat()


def _nothing() -> None:
    """Beat no more."""
