"""The threads of one process that claim parts and copy them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Final

from snapferry.stores.pools.in_parts import PartsCopy
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.workers.ledger import Finished

from .claims import Claims

# Seconds between two attempts to claim a part where there was none: a claim of a dead worker expires.
CLAIM_AGAIN_S: Final = 0.5


class PartThreads:
    """
    Threads that copy parts until none is left; with *stay*, until `stop`. An error of one thread stops all.

    *may_claim* returns whether further parts may begin. *copied*: how many parts they have recorded. *ended*: others
    have ended the copy. *error*: the first error of a thread.
    """

    def __init__(
        self, copy: PartsCopy, claims: Claims, *, stay: bool, may_claim: Callable[[], bool] = lambda: True
    ) -> None:
        self.copied = 0
        self.ended = False
        self.error: BaseException | None = None
        self._copy = copy
        self._claims = claims
        self._stay = stay
        self._may_claim = may_claim
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._running = 0

    def start(self, count: int) -> None:
        """Start *count* threads. What interrupts the caller's work interrupts theirs."""
        self._running = count
        for number in range(count):
            run = copy_context().run
            thread = threading.Thread(target=run, args=(self._run,), name=f"part-{number}")
            self._threads.append(thread)
            thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait that long; return whether a thread still runs and none has failed."""
        self._stop.wait(seconds)
        return self.error is None and self._running > 0

    def stop(self) -> None:
        """Begin no further part, and wait for those that are being copied."""
        self._stop.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _run(self) -> None:
        try:
            while not self._stop.is_set() and self._may_claim():
                checkpoint()
                part = self._claims.claim()
                if part is not None:
                    self._copy_part(part)
                elif self._stay:
                    self._stop.wait(CLAIM_AGAIN_S)
                else:
                    return
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            with self._lock:
                self.error = self.error or error
            self._stop.set()
        finally:
            with self._lock:
                self._running -= 1
                if not self._running:
                    self._stop.set()

    def _copy_part(self, part: int) -> None:
        claims = self._claims
        finished: list[Finished] = []

        def record(text: str) -> bool:
            finished.append(claims.finish(part, text))
            return finished != [Finished.ENDED]

        try:
            self._copy.copy_part(part, lambda: claims.has(part), record)
        except BaseException:
            claims.give_up(part)
            raise
        claims.forget(part)
        with self._lock:
            self.copied += finished == [Finished.RECORDED]
        if finished == [Finished.ENDED]:
            self.ended = True
            self._stop.set()
