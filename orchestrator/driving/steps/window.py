"""The dispatch window: how many batches of a job are queued at once."""

from __future__ import annotations

from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.driving.dispatch import queue_batches
from snapferry.workers.ledger import PLAN


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
            of=drive.plan.batches,
            snapshots=drive.snapshots_of(numbers.start),
        )
        handed = numbers.stop
        if not ledger.set_fields(drive.job_id, batches_handed=handed):
            break
    return handed - standing.handed
