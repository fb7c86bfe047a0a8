"""
A job that is cancelled, paused, or ended by another orchestrator while this one drives it.

A step may read manifests or list stores for hours. All of its waits and loops call a check
(`snapferry.stores.runtime.interruption`). The check itself asks nothing of Redis: a heartbeat reads the ledger.
"""

from __future__ import annotations

import time
from typing import Final

from snapferry.workers.copying.transfer import JobPaused, JobStopped
from snapferry.workers.ledger import Directive, Ledger

# Seconds after which a step that should have stopped is in a call that cannot be interrupted.
STUCK_S: Final = 15.0


class JobControl:
    """Whether the step that runs for a job is to continue, to stop, or to be held."""

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        self._ledger = ledger
        self._job_id = job_id
        self.reset()

    def reset(self) -> None:
        """Begin a step: forget the wish for the step before."""
        self._wish = Directive.CONTINUE
        self._wished_at = 0.0

    def read(self) -> None:
        """Read the job's wish from the ledger. Raises `redis.exceptions.RedisError`."""
        wish = self._ledger.directive(self._job_id)
        if wish is not self._wish:
            self._wish, self._wished_at = wish, time.monotonic()

    def check(self) -> None:
        """Return if the step may continue. Raises `JobStopped`, and `JobPaused` while the job is paused."""
        if self._wish is Directive.STOP:
            raise JobStopped
        if self._wish is Directive.HOLD:
            raise JobPaused

    @property
    def stuck(self) -> bool:
        """Whether the step has not stopped for `STUCK_S` seconds although it should."""
        return self._wish is not Directive.CONTINUE and time.monotonic() - self._wished_at > STUCK_S
