"""How long a command is repeated while Redis is away: by time, not by a count that multiplies at each layer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from redis.backoff import ExponentialBackoff
from redis.retry import Retry

T = TypeVar("T")

PATIENCE_S: Final = 120.0
"""A command is not begun again after this time since its first failure."""

# A process that was stopped or starved finds its time used up; it still tries as often as this.
_LEAST_TRIES: Final = 3

# How often it is tried at most, for redis-py, which counts.
_MOST_TRIES: Final = 10_000


class TimedRetry(Retry):
    """
    Repeats what failed until *patience_s* seconds after the first failure.

    redis-py retries a command, and within each try the connection, and within that the socket. Only the outermost of
    these repeats here, so the time is that of the whole call.
    """

    __hash__ = Retry.__hash__

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        super().__init__(ExponentialBackoff(cap=5, base=0.1), _MOST_TRIES)
        self._patience_s = patience_s

    def __eq__(self, other: object) -> bool:
        """Return whether *other* repeats for the same time."""
        return isinstance(other, TimedRetry) and self._patience_s == other._patience_s

    def __deepcopy__(self, memo: Any) -> TimedRetry:
        """Return a copy for another connection, as redis-py makes them."""
        copied = TimedRetry(self._patience_s)
        copied.update_supported_errors(self._supported_errors)
        return copied

    def call_with_retry(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None = None,
        with_failure_count: bool = False,
    ) -> T:
        """Return the result of *do*; call *fail* after each failure. Raises the last error."""
        outermost = not getattr(_calls, "running", False)
        _calls.running = True
        try:
            return self._repeated(do, fail, is_retryable, with_failure_count, outermost)
        finally:
            if outermost:
                _calls.running = False

    def _repeated(
        self,
        do: Callable[[], T],
        fail: Callable[..., Any],
        is_retryable: Callable[[Exception], bool] | None,
        with_failure_count: bool,
        outermost: bool,
    ) -> T:
        failures, ends = 0, 0.0
        while True:
            try:
                return do()
            except self._supported_errors as error:
                if is_retryable and not is_retryable(error):
                    raise
                failures += 1
                ends = ends or time.monotonic() + self._patience_s
                if with_failure_count:
                    fail(error, failures)
                else:
                    fail(error)
                pause = self._backoff.compute(failures)
                late = time.monotonic() + pause > ends and failures >= _LEAST_TRIES
                if not outermost or late:
                    raise
            time.sleep(pause)


_calls = threading.local()
