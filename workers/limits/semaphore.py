"""Objects in flight within one run of a batch: at most the run's share of what the fleet may have."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Final

# Seconds between two checks whether a waiting object should continue to wait.
CHECK_S: Final = 0.25


class Semaphore:
    """
    A semaphore whose limit may change: entered for each object by a ``with`` block, from several threads.

    *check* is called while a thread waits, and may raise to end the waiting. *may_start* is called for each object when
    there is room for it, and may raise to refuse it. *expected* is called with the number of objects that could be in
    flight. A lower limit does not interrupt objects that have entered.
    """

    def __init__(
        self,
        check: Callable[[], object],
        expected: Callable[[int], object],
        may_start: Callable[[], object] | None = None,
    ) -> None:
        self._check = check
        self._expected = expected
        self._may_start = may_start or _nothing
        self._changed = threading.Condition()
        # Appending to a list and popping from it are atomic, so they need no lock.
        self._entered: list[None] = []
        self._limit: int | None = None

    @property
    def in_flight(self) -> int:
        """How many objects are in flight."""
        return len(self._entered)

    def expect(self, flights: int) -> None:
        """Note how many objects could be in flight. Called once, before the first object enters."""
        self._expected(flights)

    def forget_owner(self) -> None:
        """Let go of *expected* and *may_start*: no object enters any more, and their owners may own this semaphore."""
        self._expected, self._may_start = _ignored, _nothing

    def set_limit(self, limit: int | None) -> None:
        """Let at most *limit* objects in from now on; None: any number."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    def __enter__(self) -> None:
        if self._limit is None:
            self._entered.append(None)
        else:
            self._wait_for_room()
        try:
            self._may_start()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def enter_some(self, most: int) -> int:
        """Let in up to *most* objects, as many as there is room for, and return how many. Does not wait for room."""
        with self._changed:
            room = self._room(most, len(self._entered))
            self._entered += [None] * room
        if room:
            try:
                self._may_start()
            except BaseException:
                self.leave_some(room)
                raise
        return room

    def keeps_some(self, count: int, most: int) -> bool:
        """Return whether `enter_some` would let in *count* again, had they left; *most* is given to it."""
        with self._changed:
            keeps = self._room(most, len(self._entered) - count) == count
        if keeps:
            self._may_start()
        return keeps

    def leave_some(self, count: int) -> None:
        """Note that *count* objects, which `enter_some` let in, are no longer in flight."""
        for _ in range(count):
            self._entered.pop()
        with self._changed:
            self._changed.notify_all()

    def _wait_for_room(self) -> None:
        while True:
            with self._changed:
                if self._may_enter() or (self._changed.wait(CHECK_S) and self._may_enter()):
                    self._entered.append(None)
                    return
            self._check()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._entered.pop()
        if self._limit is not None:
            with self._changed:
                self._changed.notify()

    def _room(self, most: int, entered: int) -> int:
        return most if self._limit is None else max(0, min(most, self._limit - entered))

    def _may_enter(self) -> bool:
        return self._limit is None or len(self._entered) < self._limit


def _ignored(flights: int) -> None:
    """Ignore how many objects could be in flight."""


def _nothing() -> None:
    """Allow everything."""
