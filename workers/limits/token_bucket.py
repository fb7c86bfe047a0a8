"""One limit within one process: what was granted ahead, handed out to the process's threads in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from .limit_store import Grant

# So much is asked for ahead: what was used in this time, in seconds, at the pace of the last grant, and as much again.
AHEAD_S: Final = 0.1

# More is asked for when so small a part of what may be held is left: one in so many.
SHARE_LOW: Final = 4


class Tap:
    """
    *ask* gets a grant of up to so many; *check* is called while one waits, and may raise to stop the waiting.

    Threads that lack something are served one after the other, whatever they
    take: so no two of them wait with half of what they need. Far from the limit
    none lacks anything: one of them asks for more before all is used up. While
    not *limited*, nothing is asked and nothing waits; whoever learns of a limit
    sets it.
    """

    def __init__(
        self,
        ask: Callable[[int], Grant],
        check: Callable[[], object],
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.limited = False
        self._ask = ask
        self._check = check
        self._clock = clock
        self._sleep = sleep
        self._turn = threading.Lock()
        self._books = threading.Lock()
        self._credit = 0
        self._lacking = 0
        self._low = 0
        self._granted = 0
        self._granted_at = clock()
        self._ahead = 0

    def take(self, count: int) -> None:
        """Return when *count* may be used. Raises what *check* and *ask* raise; a part may be lost then."""
        if not self.limited or count <= 0:
            return
        # Without a turn, where nobody waits for his: taking turns costs a thread several times what all else does.
        with self._books:
            left = self._credit - count
            at_hand = left >= 0 and not self._lacking
            if at_hand:
                self._credit = left
                if left >= self._low:
                    return
            else:
                self._lacking += 1
        if not at_hand:
            self._take_in_turn(count)
        elif self._turn.acquire(blocking=False):
            try:
                # Another thread may have done it just now.
                if self._credit < self._low:
                    self._get(SHARE_LOW * self._low - self._credit)
            finally:
                self._turn.release()

    def _take_in_turn(self, count: int) -> None:
        try:
            with self._turn:
                lacking = self._use(count)
                while lacking and self._get(max(lacking, self._ahead)):
                    lacking = self._use(lacking)
        finally:
            with self._books:
                self._lacking -= 1

    def _get(self, wanted: int) -> bool:
        """Ask for so many, and put what is granted to what there is; False: there is no limit any more."""
        self._check()
        grant = self._ask(wanted)
        if not grant.limited:
            self.limited = False
            return False
        self._look_ahead(grant.amount)
        # Where a grant need not be waited for, nobody lacks what is held here; no more than one grant's worth is.
        at_most = min(self._ahead, max(grant.amount, grant.most))
        self._low = 0 if grant.wait_s > 0 else at_most // SHARE_LOW
        if grant.wait_s > 0:
            self._sleep(grant.wait_s)
        self.give_back(grant.amount)
        return True

    def give_back(self, count: int) -> None:
        """Put *count* back, for the next one who takes."""
        with self._books:
            self._credit += count

    def drain(self) -> int:
        """Return what was granted and is left, and keep none of it."""
        with self._books:
            left, self._credit = self._credit, 0
        return left

    def _use(self, count: int) -> int:
        """Use up to *count* of what there is; return how many are lacking."""
        with self._books:
            used = min(count, self._credit)
            self._credit -= used
        return count - used

    def _look_ahead(self, granted: int) -> None:
        """Learn from how long the last grant lasted how much is worth asking for."""
        if granted:
            now = self._clock()
            self._ahead = int(2 * AHEAD_S * self._granted / max(now - self._granted_at, 0.001))
            self._granted, self._granted_at = granted, now
