"""The state of a job."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """
    The state of a job.

    queued -> planning -> copying -> committing -> done, with a way back from committing to copying. Each of the first
    four can change to failed or cancelled. The last three are final. A paused job keeps its state.
    """

    QUEUED = "queued"
    PLANNING = "planning"
    COPYING = "copying"
    COMMITTING = "committing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Return whether a job never leaves this state."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)
