"""
Batches that are lost: their workers died, their messages are gone, or a pause held them. They are handed out again.

Deaths are counted for each batch, where it is begun: see `snapferry.workers.copying.tasks`. Here only those rounds are
counted in which nothing at all was begun. What is given up fails object by object, so the job still comes to its end.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from snapferry.stores.text.format import counted
from snapferry.workers.copying.tasks import MAX_BEGUN
from snapferry.workers.ledger import PLAN, Standing
from snapferry.workers.messages import JobRequest
from snapferry.workers.queues import copy_queue, parking_queue

from .abandon import settle_as_failed
from .dispatch import hand_out
from .publish import MAX_HEALS, heal_series

if TYPE_CHECKING:
    from .drive import Drive

log = logging.getLogger(__name__)

# Batches that nothing has been heard of for so long, and that are in no queue, are lost.
STALL_S: Final = 30.0

# Batches that nobody begins are handed out again at most this often while nothing of the job is begun.
MAX_STALLS: Final = 5


def hand_out_lost(drive: Drive, standing: Standing) -> str:
    """Queue batches again whose worker died, that were held by a pause, or that are nowhere; give up hopeless ones."""
    ledger, job_id = drive.ledger, drive.job_id
    unaccounted = {f"{PLAN}:{n}" for n in ledger.unaccounted(job_id, PLAN, range(standing.handed))}
    healing = {
        f"{heal_series(group, turn)}:{number}": (group, turn)
        for group, (turn, batches) in standing.heals.items()
        for number in ledger.unaccounted(job_id, heal_series(group, turn), range(batches))
    }
    # Where a worker died, its batch was begun: that is counted for each batch, by the workers.
    lost = {*standing.expired, *standing.held}
    nowhere = (unaccounted | set(healing)) - {*lost, *standing.overdue}
    if not _stalled(drive, standing, bool(nowhere)):
        nowhere = set()
    if nowhere or standing.overdue:
        same = (standing.done, standing.begins) == (standing.stalled_done, standing.stalled_begins)
        stalls = standing.stalls + 1 if same else 1
        if stalls > MAX_STALLS:
            return _give_up(drive, healing)
        ledger.set_fields(job_id, stalls=stalls, stalled_done=standing.done, stalled_begins=standing.begins)
        lost |= {*standing.overdue, *nowhere}
    lost -= _give_up_deadly(drive, sorted(lost & unaccounted))
    numbers = sorted(int(name.partition(":")[2]) for name in lost & unaccounted)
    if numbers:
        log.warning("handing out %d batches again", len(numbers))
        batches = [drive.plan.batch(number) for number in numbers]
        words = drive.snapshots_of(numbers[0])
        hand_out(
            drive.app,
            drive.request,
            batches,
            series=PLAN,
            of=drive.plan.batches,
            snapshots=words,
        )
    for group, turn in {healing[name] for name in lost & set(healing)}:
        # Its objects are looked for again, and what is still absent is healed anew.
        ledger.note_healing(job_id, group, turn=turn, batches=0)
    ledger.note_requeued(job_id, sorted(lost))
    return f"{counted(len(numbers), 'batch', 'batches')} handed out again" if numbers else ""


def _give_up(drive: Drive, healing: Mapping[str, tuple[int, int]]) -> str:
    """Let everything that is not settled fail: no worker begins it."""
    ledger, job_id = drive.ledger, drive.job_id
    missing = ledger.unaccounted(job_id, PLAN, range(drive.plan.batches))
    reason = f"its batch was handed out {MAX_STALLS + 1} times and no worker began it; see the workers' logs"
    given_up = settle_as_failed(ledger, drive.request, drive.plan, missing, reason)
    for group, _ in healing.values():
        # Its objects are looked for once more; if some are absent then, its snapshots fail.
        ledger.note_healing(job_id, group, turn=MAX_HEALS, batches=0)
    return f"{counted(given_up, 'batch', 'batches')} given up"


def _give_up_deadly(drive: Drive, names: list[str]) -> set[str]:
    """Let the objects of batches fail that end every worker, even the one that would give them up; return which."""
    times = drive.ledger.begun(drive.job_id, names)
    deadly = {name for name, count in zip(names, times, strict=True) if count > MAX_BEGUN + 1}
    reason = f"its batch was begun more than {MAX_BEGUN} times and never ended"
    numbers = sorted(int(name.partition(":")[2]) for name in deadly)
    settle_as_failed(drive.ledger, drive.request, drive.plan, numbers, reason)
    return deadly


def _stalled(drive: Drive, standing: Standing, outstanding: bool) -> bool:
    return (
        outstanding
        and not standing.leased
        and standing.idle_s >= STALL_S
        and not any(drive.ledger.has_queued_task(queue, drive.job_id) for queue in _queues(drive.request))
    )


def _queues(request: JobRequest) -> list[str]:
    return [copy_queue(request.queue), parking_queue(request.queue, request.job_id)]
