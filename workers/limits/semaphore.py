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
        self._changed = threading.Condition()
        # Appending to a list and taking from it are steps that nothing comes between, so they need no lock.
        self._those_inside: list[None] = []
        self._most: int | None = None

    @property
    def inside(self) -> int:
        """How many are inside right now."""
        return len(self._those_inside)

    def expect(self, flights: int) -> None:
        """Note how many objects could be in flight; called once, before the first is."""
        self._expected(flights)

    def allow(self, most: int | None) -> None:
        """Let at most so many in from now on; None: any number."""
        with self._changed:
            self._most = most
            self._changed.notify_all()

    def __enter__(self) -> None:
        if self._most is None:
            self._those_inside.append(None)
            return
        while True:
            with self._changed:
                if self._may_enter() or (self._changed.wait(LOOK_S) and self._may_enter()):
                    self._those_inside.append(None)
                    return
            self._check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._those_inside.pop()
        if self._most is not None:
            with self._changed:
                self._changed.notify()

    def _may_enter(self) -> bool:
        return self._most is None or len(self._those_inside) < self._most
