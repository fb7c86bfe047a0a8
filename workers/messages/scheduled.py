"""What is due on a schedule: mirrors and scrubs."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from snapferry.workers.queues import NAME, Priority

from ..settings.durations import LONGEST_PATIENCE_S
from .actions import MOST_SHARES, Action, Scope, ScrubPart, VerifyOptions
from .base import MIRROR_NAME, Message, StoreRef
from .job_spec import CopyRequest, JobSpec, Limits


class MirrorMessage(CopyRequest, Message):
    """
    A mirror that is due: what the scheduler tells an orchestrator.

    The scheduler reads the mirror's settings when it starts, so a change of them needs a restart of the scheduler.
    """

    # Built at the first use, which most processes do not have.
    model_config = ConfigDict(defer_build=True)

    name: str = Field(pattern=MIRROR_NAME)
    patience: float | None = Field(None, ge=0, le=LONGEST_PATIENCE_S)
    """Seconds to wait for a store that does not answer; None: as the orchestrator's settings define."""

    def job_spec(self, *, patience: float) -> JobSpec:
        """Return the request for a job of the mirror. *patience* in seconds is for a mirror that sets none."""
        shared = {name: getattr(self, name) for name in CopyRequest.model_fields}
        return JobSpec(
            **shared, everything=True, patience=patience if self.patience is None else self.patience
        )


class ScrubMessage(Message):
    """
    A scrub that is due, as `MirrorMessage`.

    *shares* is how many runs read the whole *store*. *interval* is the time between two runs in seconds.
    """

    model_config = ConfigDict(defer_build=True)

    name: str = Field(pattern=MIRROR_NAME)
    store: StoreRef
    shares: int = Field(ge=1, le=MOST_SHARES)
    interval: float = Field(gt=0, allow_inf_nan=False)
    limits: Limits = Limits()
    bounds: VerifyOptions = VerifyOptions()
    priority: Priority = Priority.NORMAL
    queue: str = Field("", pattern=NAME)
    patience: float | None = Field(None, ge=0, le=LONGEST_PATIENCE_S)

    @property
    def period(self) -> float:
        """Seconds in which the runs read the whole store."""
        return self.shares * self.interval

    def job_spec(self, part: ScrubPart, scope: Scope, *, patience: float) -> JobSpec:
        """Return the request for a job that reads *scope*, which is in *part*; otherwise as for a mirror."""
        return JobSpec(
            action=Action.VERIFY,
            source=self.store,
            destination=self.store,
            everything=True,
            scope=scope,
            verify=self.bounds,
            scrub=part,
            limits=self.limits,
            priority=self.priority,
            queue=self.queue,
            patience=patience if self.patience is None else self.patience,
        )
