"""
Queue lost batches again: their workers died, their messages are gone, or a pause held them.

The runs of a batch are counted where they begin (`snapferry.workers.copying`). Only those rounds
are counted here in which no batch began at all. The objects of an abandoned batch fail, so the job still ends.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from snapferry.orchestrator.driving.context import PlannedDrive
from snapferry.orchestrator.driving.dispatch import queue_batches
from snapferry.orchestrator.driving.outcome import DriveOutcome
from snapferry.workers.copying.delivery import MAX_LOST, MAX_STARTS
from snapferry.workers.ledger import PLAN, Standing
from snapferry.workers.queues import copy_queue, parking_queue
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.telemetry.logs import fields

from .abandon import fail_batches
from .publish import MAX_HEALS, heal_series

log = logging.getLogger(__name__)

# Seconds after which batches that show no activity and are in no queue are lost.
STALL_S: Final = 30.0

# Rounds in which lost batches are queued again although no batch of the job began since the last round.
MAX_STALLS: Final = 5


def requeue_lost(drive: PlannedDrive, standing: Standing) -> DriveOutcome:
    """
    Queue lost batches again, and abandon those that never end; return how many batches of the plan that were.

    Raises what the broker raises. May be repeated.
    """
    ledger, job_id = drive.ledger, drive.job_id
    unaccounted = {f"{PLAN}:{n}" for n in ledger.unaccounted(job_id, PLAN, range(standing.handed))}
    healing = {
        f"{heal_series(group, turn)}:{number}": (group, turn)
        for group, (turn, batches) in standing.heals.items()
        for number in ledger.unaccounted(job_id, heal_series(group, turn), range(batches))
    }
    # The runs of a batch whose worker died are counted by the workers.
    lost = {*standing.expired, *standing.held}
    nowhere = (unaccounted | set(healing)) - {*lost, *standing.overdue}
    if not _stalled(drive, standing, bool(nowhere)):
        nowhere = set()
    if nowhere or standing.overdue:
        same = (standing.done, standing.begins) == (standing.stalled_done, standing.stalled_begins)
        stalls = standing.stalls + 1 if same else 1
        if stalls > MAX_STALLS:
            return DriveOutcome(abandoned=_abandon_all(drive, healing))
        ledger.set_fields(job_id, stalls=stalls, stalled_done=standing.done, stalled_begins=standing.begins)
        lost |= {*standing.overdue, *nowhere}
    lost -= _abandon_deadly(drive, sorted(lost & unaccounted))
    numbers = sorted(int(name.partition(":")[2]) for name in lost & unaccounted)
    if numbers:
        log.warning("lost batches queued again", extra=fields(job=job_id, batches=len(numbers)))
        queue_batches(
            drive.app,
            drive.spec,
            [drive.plan.batch(number) for number in numbers],
            series=PLAN,
            of=drive.plan.batches,
            snapshots=drive.snapshots_of(numbers[0]),
        )
    for group, turn in {healing[name] for name in lost & set(healing)}:
        # The group's objects are looked up again, and those still absent are healed again.
        ledger.note_healing(job_id, group, turn=turn, batches=0)
    ledger.note_requeued(job_id, sorted(lost))
    return DriveOutcome(requeued=len(numbers))


def _abandon_all(drive: PlannedDrive, healing: Mapping[str, tuple[int, int]]) -> int:
    """Record everything unsettled as failed, because no worker begins it; return how many batches that were."""
    ledger, job_id = drive.ledger, drive.job_id
    missing = ledger.unaccounted(job_id, PLAN, range(drive.plan.batches))
    reason = f"its batch was queued {MAX_STALLS + 1} times and no worker began it; see the workers' logs"
    abandoned = fail_batches(ledger, drive.spec, drive.plan, missing, reason)
    for group, _ in healing.values():
        # The group's objects are looked up once more; if some are absent then, its snapshots fail.
        ledger.note_healing(job_id, group, turn=MAX_HEALS, batches=0)
    return abandoned


def _abandon_deadly(drive: PlannedDrive, names: list[str]) -> set[str]:
    """
    Record the objects of batches as failed that kill every worker; return the names of these batches.

    Such a batch kills even the worker that would abandon it.
    """
    deadly: set[str] = set()
    for counts, most, what in (
        (drive.ledger.begun, MAX_STARTS, "begun"),
        (drive.ledger.lost, MAX_LOST, "begun on machines that were lost"),
    ):
        times = counts(drive.job_id, names)
        found = {name for name, count in zip(names, times, strict=True) if count > most + 1}
        numbers = sorted(int(name.partition(":")[2]) for name in found - deadly)
        reason = f"its batch was {what} more than {most} times and never ended"
        fail_batches(drive.ledger, drive.spec, drive.plan, numbers, reason)
        deadly |= found
    return deadly


def _stalled(drive: PlannedDrive, standing: Standing, outstanding: bool) -> bool:
    ledger, spec = drive.ledger, drive.spec
    if not outstanding or standing.leased or standing.idle_s < STALL_S:
        return False
    if ledger.has_queued_task(parking_queue(spec.queue, spec.job_id), spec.job_id):
        # Workers serve the queue by a record, which a failover of Redis may have lost: it came before the message.
        ParkedJobs(ledger.client).park(spec, spec.queue)
        return False
    return not ledger.has_queued_task(copy_queue(spec.queue), spec.job_id)
