"""Objects in flight within one run of a batch: no more of them than its part of what the fleet may have."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

# While an object waits, it is looked so often, in seconds, whether it should go on waiting.
LOOK_S: Final = 0.25


class Gate:
    """
    Entered for each object, by a ``with`` block, from several threads.

    *check* is called while one waits, and may raise to stop the waiting. *expected* is told how many could be in
    flight. However many are let in, nobody who is inside is turned out.
    """

    def __init__(self, check: Callable[[], object], expected: Callable[[int], object]) -> None:
        self._check = check
        self._expected = expected
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._inside = 0
        self._most: int | None = None

    @property
    def inside(self) -> int:
        """How many are inside right now."""
        return self._inside

    def expect(self, flights: int) -> None:
        """Note how many objects could be in flight; called once, before the first is."""
        self._expected(flights)

    def allow(self, most: int | None) -> None:
        """Let at most so many in from now on; None: any number."""
        with self._changed:
            self._most = most
            self._changed.notify_all()

    def __enter__(self) -> None:
        # The lock itself, without a limit: going by the condition to it costs more, for each object.
        with self._lock:
            if self._most is None:
                self._inside += 1
                return
        while True:
            with self._changed:
                if self._may_enter() or (self._changed.wait(LOOK_S) and self._may_enter()):
                    self._inside += 1
                    return
            self._check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        with self._lock:
            self._inside -= 1
            if self._most is not None:
                self._changed.notify()

    def _may_enter(self) -> bool:
        return self._most is None or self._inside < self._most
