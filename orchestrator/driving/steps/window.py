"""The dispatch window: how many batches of a job are queued at once, also while the plan still grows."""

from __future__ import annotations

import time
from typing import Final

from snapferry.orchestrator.driving.context import Drive, PlannedDrive, planned
from snapferry.orchestrator.driving.dispatch import queue_batches
from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.snapshots import Snapshots, freeze_ids, freeze_kinds
from snapferry.workers.copying.transfer import JobStopped
from snapferry.workers.ledger import PLAN, State
from snapferry.workers.messages import Action, JobSpec

# Seconds of planning before the first batches are queued, and between two steps after that. A quick plan is queued as
# a whole.
GROW_S: Final = 0.5


def may_grow(spec: JobSpec) -> bool:
    """Return whether batches of a job may be queued before its plan is complete: nothing needs the whole plan first."""
    return (
        spec.action is Action.COPY
        and not spec.dry_run
        and not spec.budget.limited
        and spec.prune is None
        and not spec.retries
    )


class GrowingWindow:
    """Queues the first batches of a plan while later manifests are still read. A `prepare.Growing`."""

    def __init__(self, drive: Drive, *, begun: bool = False) -> None:
        """*begun*: the record has the first groups of the plan already."""
        self._drive = drive
        self._next_at = time.monotonic() + GROW_S
        self.begun = begun
        # What the record counts of the plan.
        self._objects = self._size_bytes = 0

    def due(self) -> bool:
        """Return whether the next step is due."""
        return time.monotonic() >= self._next_at

    def grow(self, snapshots: Snapshots, plan: Plan) -> None:
        """
        Record the groups that are planned so far, then queue their batches.

        The record comes first, in one step: a batch counts only against a total that includes it. Raises `JobStopped`.
        """
        ledger, drive = self._drive.ledger, self._drive
        if not plan.batches or not snapshots.partly_planned:
            return
        if not self.begun:
            drive.destination.prepare()
        self._size_bytes += sum(plan.sizes[self._objects :])
        self._objects = plan.objects
        if not ledger.advance(
            drive.job_id,
            State.COPYING,
            objects_total=plan.objects,
            bytes_total=self._size_bytes,
            batches_total=plan.batches,
            snapshots_planned=len(snapshots.kinds),
            **({} if self.begun else freeze_ids(drive.spec, snapshots)),
            **freeze_kinds(snapshots),
        ):
            raise JobStopped
        self.begun = True
        fill_window(planned(drive, snapshots, plan))
        self._next_at = time.monotonic() + GROW_S


def fill_window(drive: PlannedDrive) -> int:
    """
    Queue further batches of the plan until the job's window is full; return how many.

    Reads the ledger again, because batches end at any time: a job that was paused, cancelled or ended since gets no
    further batch. Raises what the broker raises. May be repeated.
    """
    ledger, spec = drive.ledger, drive.spec
    standing = ledger.standing(drive.job_id)
    if standing.paused or standing.cancelling or standing.state.final:
        return 0
    most = max(1, spec.window_batches // 2)
    handed = standing.handed
    for numbers in drive.plan.windows(handed, most):
        outstanding = handed - standing.done
        if outstanding and outstanding + len(numbers) > spec.window_batches:
            break
        queue_batches(
            drive.app,
            spec,
            [drive.plan.batch(number) for number in numbers],
            series=PLAN,
            of=0 if drive.snapshots.partly_planned else drive.plan.batches,
            snapshots=drive.snapshots_of(numbers.start),
        )
        handed = numbers.stop
        if not ledger.set_fields(drive.job_id, batches_handed=handed):
            break
    return handed - standing.handed
