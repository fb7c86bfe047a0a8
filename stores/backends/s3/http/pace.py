"""
How fast a process sends to a server that has asked it to slow down.

Nothing is limited until an answer says ``SlowDown``, 429 or the like. Then the process sends at 0.7 of the rate that
the server accepted recently. As answers arrive it becomes faster again: quickly at first, carefully around the rate
that was too much, then beyond it. Each process does so by itself, as TCP connections that share a line do.

The rates are those of botocore's retry mode "adaptive": CUBIC, which RFC 9438 describes for TCP. botocore turns that
mode on for a whole client, and nothing can interrupt its waits. So its parts are used here, and not the mode.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from botocore.exceptions import CapacityNotAvailableError
from botocore.retries.bucket import Clock, TokenBucket
from botocore.retries.throttling import CubicCalculator

from snapferry.stores.runtime.interruption import SLICE_S, checkpoint

logger = logging.getLogger(__name__)

CUT_S: Final = 0.5
"""Seconds in which the rate is cut once: the answers of that time were all caused by the rate before."""

CALM_S: Final = 60.0
"""The limit ends after so many seconds without such an answer."""

WINDOW_S: Final = 0.5
"""Length in seconds of the windows in which accepted requests are counted."""

LEAST: Final = 10.0
"""The lowest limit, in requests per second, however often the server asks to slow down."""


class Pace:
    """The pace of one process at the server *label*. Safe to share between threads, not with a forked child."""

    def __init__(
        self,
        label: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._label = label
        self._clock = clock
        self._sleep = sleep
        self._times = _Times(clock)
        self._rate = _Rate(clock)
        self._bucket: TokenBucket | None = None
        self._cubic = CubicCalculator(starting_max_rate=0, start_time=clock())
        self._cut_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def per_second(self) -> float | None:
        """How many requests this process sends per second at most, None for no limit."""
        bucket = self._bucket
        return None if bucket is None else float(bucket.max_rate)

    def wait(self, check: Callable[[], object] = checkpoint) -> None:
        """Return when the next request may be sent. Calls *check* meanwhile, and raises what that raises."""
        while (bucket := self._bucket) is not None:
            try:
                bucket.acquire(block=False)
            except CapacityNotAvailableError:
                check()
                self._sleep(min(1 / bucket.max_rate, SLICE_S))
            else:
                return

    def answered(self, count: int = 1) -> None:
        """Note *count* answers that did not ask to slow down."""
        self._rate.record(count)
        if self._bucket is None:
            return
        with self._lock:
            bucket, now = self._bucket, self._clock()
            if bucket is None:
                return
            if now - self._cut_at > CALM_S:
                self._bucket = None
                logger.info("%s: the store takes requests as before", self._label)
                return
            # A limit far above the rate in use would take effect too late.
            bucket.max_rate = min(self._cubic.success_received(now), 2 * self._rate.measured())

    def told_to_slow_down(self) -> None:
        """Note an answer that asked to slow down."""
        with self._lock:
            now = self._clock()
            if now - self._cut_at < CUT_S:
                return
            measured, bucket = self._rate.measured(), self._bucket
            rate = measured if bucket is None else min(measured, bucket.max_rate)
            slower = self._cubic.error_received(max(rate, LEAST), now)
            self._cut_at = now
            if bucket is None:
                bucket = self._bucket = TokenBucket(max_rate=slower, clock=self._times, min_rate=LEAST)
                logger.warning(
                    "%s: the store asks to slow down; this process sends it %.0f requests per second now",
                    self._label,
                    bucket.max_rate,
                )
            else:
                bucket.max_rate = slower


class _Rate:
    """
    The requests per second that the server accepted recently: in the current window and the one before.

    botocore's `RateClocker` measures next to nothing in its first second, in which a burst is refused. And it measures
    what was sent: a burst of many times what a server takes would have to be cut many times.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._began = clock()
        self._taken = self._taken_before = 0
        self._lasted_before = 0.0

    def record(self, count: int) -> None:
        """Count *count* requests that the server has accepted just now."""
        with self._lock:
            self._turn(self._clock())
            self._taken += count

    def measured(self) -> float:
        """Return the rate."""
        with self._lock:
            now = self._clock()
            self._turn(now)
            lasted = self._lasted_before + now - self._began
            return (self._taken_before + self._taken) / max(lasted, WINDOW_S / 10)

    def _turn(self, now: float) -> None:
        lasted = now - self._began
        if lasted < WINDOW_S:
            return
        # After a long pause, its end counts as the previous window.
        idle = lasted >= 2 * WINDOW_S
        self._taken_before, self._taken = 0 if idle else self._taken, 0
        self._lasted_before = WINDOW_S if idle else lasted
        self._began = now


class _Times(Clock):  # type: ignore[misc]
    """botocore's clock by another one, which never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.current_time = clock
