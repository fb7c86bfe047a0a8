"""One limit within one process: tokens are fetched ahead, and the threads of the process take them in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from .limit_store import Grant

# Tokens for this many seconds are fetched ahead, at the speed of the last grant, and as many again.
AHEAD_S: Final = 0.1

# More tokens are fetched when less than 1 / `LOW_PART` of the maximum is left.
LOW_PART: Final = 4


class TokenBucket:
    """
    Tokens of one limit.

    *fetch* takes a number of tokens and returns a grant of at most that many. *check* is called while a thread waits,
    and may raise to end the wait.

    Threads that lack tokens are served one after the other, so no two of them wait with half of the tokens they need.
    Far from the limit no thread lacks tokens: one thread fetches more before all are used. While *limited* is false,
    nothing is fetched and no thread waits; the owner of the bucket sets it when it learns of a limit.
    """

    def __init__(
        self,
        fetch: Callable[[int], Grant],
        check: Callable[[], object],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.limited = False
        self._fetch = fetch
        self._check = check
        self._clock = clock
        self._sleep = sleep
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._tokens = 0
        self._lacking = 0
        self._low = 0
        self._granted = 0
        self._granted_at = clock()
        self._ahead = 0

    def take(self, count: int) -> None:
        """Return when *count* tokens may be used. Raises what *check* and *fetch* raise; tokens may then be lost."""
        if not self.limited or count <= 0:
            return
        # No turn if no thread waits for one: taking turns costs a thread several times as much as everything else.
        with self._counting:
            left = self._tokens - count
            at_hand = left >= 0 and not self._lacking
            if at_hand:
                self._tokens = left
                if left >= self._low:
                    return
            else:
                self._lacking += 1
        if not at_hand:
            self._take_in_turn(count)
        elif self._turn.acquire(blocking=False):
            try:
                # Another thread may have fetched some in the meantime.
                if self._tokens < self._low:
                    self._refill(LOW_PART * self._low - self._tokens)
            finally:
                self._turn.release()

    def _take_in_turn(self, count: int) -> None:
        try:
            with self._turn:
                lacking = self._use(count)
                while lacking and self._refill(max(lacking, self._ahead)):
                    lacking = self._use(lacking)
        finally:
            with self._counting:
                self._lacking -= 1

    def _refill(self, wanted: int) -> bool:
        """Fetch up to *wanted* tokens. Return False if there is no limit any more."""
        self._check()
        grant = self._fetch(wanted)
        if not grant.limited:
            self.limited = False
            return False
        self._look_ahead(grant.amount)
        # If there is no wait for a grant, no other process lacks the tokens held here. Hold at most one grant's worth.
        at_most = min(self._ahead, max(grant.amount, grant.most))
        self._low = 0 if grant.wait_s > 0 else at_most // LOW_PART
        if grant.wait_s > 0:
            self._sleep(grant.wait_s)
        self.put_back(grant.amount)
        return True

    def put_back(self, count: int) -> None:
        """Add *count* unused tokens, for the next thread that takes some."""
        with self._counting:
            self._tokens += count

    def drain(self) -> int:
        """Remove all tokens, and return how many there were."""
        with self._counting:
            left, self._tokens = self._tokens, 0
        return left

    def _use(self, count: int) -> int:
        """Use up to *count* tokens. Return how many are lacking."""
        with self._counting:
            used = min(count, self._tokens)
            self._tokens -= used
        return count - used

    def _look_ahead(self, granted: int) -> None:
        """Learn how many tokens to fetch ahead, from how long the last grant lasted."""
        if granted:
            now = self._clock()
            self._ahead = int(2 * AHEAD_S * self._granted / max(now - self._granted_at, 0.001))
            self._granted, self._granted_at = granted, now
