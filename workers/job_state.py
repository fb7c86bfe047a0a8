"""The state of a job, and why it failed."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

SUPERSEDED: Final = "superseded"
"""What lists show, instead of ``failed``, for a job whose continuation, or a later run of whose mirror, is done."""
DISMISSED: Final = "dismissed"
"""What lists show, instead of ``failed``, for a job of which an operator decided that nobody will repair it."""

# Causes of failed jobs. Any other cause is the class of an error of a store, or "".
BUDGET: Final = "budget"
"""The job would copy or spend more than its budget allows."""
DELETION: Final = "deletion"
"""Every snapshot is published, but what the source does not have was not deleted, or names were not copied."""
TAG: Final = "tag"
"""The snapshot of a push is published, but its name could not be given."""
VERSION: Final = "version"
"""Another version of snapferry submitted the job, and no orchestrator of that version runs."""


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


OPEN_STATES: Final = tuple(state for state in State if not state.final)
"""The states of a job that has not ended."""


def partly_planned(planned: int, snapshots: int) -> bool:
    """
    Return whether batches of a job are queued while manifests are still read: its totals still grow.

    *planned* of its *snapshots* are recorded as planned. It is 0 for a job whose plan was queued as a whole.
    """
    return 0 < planned < snapshots
