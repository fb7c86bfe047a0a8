"""
A job that is steered while an orchestrator is at it: cancelled, paused, or ended by another orchestrator.

A step may read manifests or ask stores for hours. So it runs with a check that each of its waits and loops calls
(`snapferry.stores.runtime.interruption`). The check asks nobody: a heartbeat asks the ledger.
"""

from __future__ import annotations

import time
from typing import Final

from snapferry.workers.copying.transfer import Cancelled, Held
from snapferry.workers.ledger import Directive, Ledger

# A step that should have stopped so long ago is in a call that cannot be interrupted.
STUCK_S: Final = 15.0


class Steered:
    """What a job wants of the step that runs for it: to go on, to stop, or to be held."""

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        self._ledger = ledger
        self._job_id = job_id
        self.go_on()

    def go_on(self) -> None:
        """Begin a step: forget what was wanted of the one before."""
        self._wish = Directive.CONTINUE
        self._wished_at = 0.0

    def look(self) -> None:
        """Ask the ledger what is wanted. Raises `redis.exceptions.RedisError`."""
        wish = self._ledger.directive(self._job_id)
        if wish is not self._wish:
            self._wish, self._wished_at = wish, time.monotonic()

    def check(self) -> None:
        """Return if the step may go on. Raises `Cancelled`, and `Held` while the job is paused."""
        if self._wish is Directive.STOP:
            raise Cancelled
        if self._wish is Directive.HOLD:
            raise Held

    @property
    def stuck(self) -> bool:
        """Say whether the step does not hear that it should stop."""
        return self._wish is not Directive.CONTINUE and time.monotonic() - self._wished_at > STUCK_S
