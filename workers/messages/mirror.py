"""A mirror that is due."""

from __future__ import annotations

from pydantic import Field

from ..settings.durations import LONGEST_PATIENCE_S
from .base import MIRROR_NAME, Message
from .job_spec import CopyRequest, JobSpec


class MirrorMessage(CopyRequest, Message):
    """
    A mirror that is due: what the scheduler tells an orchestrator.

    The scheduler reads the mirror's settings when it starts, so a change of them needs a restart of the scheduler.
    """

    name: str = Field(pattern=MIRROR_NAME)
    patience: float | None = Field(None, ge=0, le=LONGEST_PATIENCE_S)
    """Seconds to wait for a store that does not answer; None: as the orchestrator's settings define."""

    def job_spec(self, *, patience: float) -> JobSpec:
        """Return the request for a job of the mirror. *patience* in seconds is for a mirror that sets none."""
        shared = {name: getattr(self, name) for name in CopyRequest.model_fields}
        return JobSpec(
            **shared, everything=True, patience=patience if self.patience is None else self.patience
        )
