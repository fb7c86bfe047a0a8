"""
Drive a job: read the ledger and the stores, and take the next steps.

There is one way to advance a job, whatever calls for it: the task that plans the job, the callback of a chord, its
errback, or the reconciler. The next step follows from the ledger and the stores alone, never from the content of a
message or the result of a chord. So a drive may come early, late, twice, or not at all; only time depends on it.
"""

from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from typing import Final

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.stores.access import STRICT, AccessPolicy
from snapferry.stores.runtime.interruption import interruptible
from snapferry.stores.runtime.liveness import identity, is_dead
from snapferry.workers.copying.transfer import JobPaused, JobStopped
from snapferry.workers.copying.transfer.budget import over_budget_reason
from snapferry.workers.job_state import BUDGET
from snapferry.workers.ledger import MAX_DRIVES, Ledger, Standing, State, UnknownJob
from snapferry.workers.lifecycle import shutdown
from snapferry.workers.lifecycle.heartbeat import Heartbeat
from snapferry.workers.limits import LimitStore, Throttle
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.reachability.sides import sides_of
from snapferry.workers.reachability.store_check import missing_store
from snapferry.workers.telemetry.metrics import counters

from .actions import STEPS
from .context import Drive, PlannedDrive, open_stores, planned
from .control import JobControl
from .dispatch import queue_drive
from .ending import end_job, fail_job
from .outcome import DriveOutcome, Result
from .steps.plan import plan_job, plan_rest, plan_size
from .steps.publish import Published, Publisher
from .steps.requeue import requeue_lost
from .steps.window import fill_window
from .store_outage import StepWatch

log = logging.getLogger(__name__)

# Seconds between two renewals of a driver's lease. It also reads then whether the job was cancelled or paused.
RENEW_S: Final = 3.0

# Seconds between two drives of a job that is being cancelled, until no batch of it runs.
CANCEL_PAUSE_S: Final = 1.0

_drives = itertools.count()


def drive_job(app: Celery, ledger: Ledger, job_id: str, access: AccessPolicy = STRICT) -> DriveOutcome:
    """
    Take the next steps of a job, at stores that *access* allows; return what they came to.

    If another orchestrator drives the job, that one is told to drive it once more. Raises `UnknownJob`, `StoreError`
    where the job cannot continue, transient or not, and what the broker raises. May be repeated at any time.
    """
    me = f"{identity()}#{next(_drives)}"
    times = ledger.start_driving(job_id, me)
    if times == 0 and is_dead((dead := ledger.driver(job_id)).partition("#")[0]):
        times = ledger.start_driving(job_id, me, instead_of=dead)
    if times < 0:
        raise UnknownJob(job_id)
    if times == 0:
        return DriveOutcome(result=Result.BUSY)
    if times > MAX_DRIVES:
        reason = f"its orchestrator died {MAX_DRIVES} times while it drove the job; do orchestrators run out of memory?"
        outcome = fail_job(ledger, job_id, reason)
        ledger.stop_driving(job_id, me, look_again=False)
        return outcome

    control = JobControl(ledger, job_id)

    def renew() -> None:
        try:
            control.read()
            if control.stuck:
                log.warning("step does not stop; another orchestrator takes the job over")
                ledger.stop_driving(job_id, me, look_again=False)
                queue_drive(app, job_id, "its orchestrator is stuck")
                shutdown.end_stuck_process()
            ledger.keep_driving(job_id, me)
        except (RedisError, OperationalError) as error:
            log.warning("cannot renew the lease on the job: %s", error)

    try:
        with Heartbeat(renew, RENEW_S), interruptible(control.check):
            outcome = _drive_once(app, ledger, job_id, control, access)
            while ledger.stop_driving(job_id, me):
                latest = _drive_once(app, ledger, job_id, control, access)
                # Otherwise the outcome of the drive that ended the job would be lost.
                outcome = outcome if latest.result is Result.ALREADY_ENDED else latest
            return outcome
    except BaseException:
        ledger.stop_driving(job_id, me, look_again=False)
        raise


def _drive_once(
    app: Celery, ledger: Ledger, job_id: str, control: JobControl, access: AccessPolicy
) -> DriveOutcome:
    control.reset()
    standing = ledger.standing(job_id)
    if stopped := _stopped(app, ledger, job_id, standing):
        return stopped
    spec = ledger.spec(job_id)
    # A directory that planning has made is not made again: if it is missing then, its mount is gone.
    is_planned = standing.state not in (State.QUEUED, State.PLANNING)
    source, destination = open_stores(spec, access, create=not is_planned)
    parked, writing = ParkedJobs(ledger.client), sides_of(spec)[1]
    if is_planned and (gone := missing_store(parked, job_id, writing, access, destination)):
        raise gone
    try:
        with (
            StepWatch(ledger, spec, access),
            counters.requests_of(source, destination),
            Throttle(
                LimitStore(ledger.client), job_id, spec.source, spec.destination, control.check
            ) as throttle,
        ):
            throttle.attach(source, destination, at_once=True)
            drive = Drive(app, ledger, spec, source, destination)
            return _advance(drive, standing, is_planned=is_planned)
    except JobPaused:
        return DriveOutcome(result=Result.PAUSED)
    except JobStopped:
        # The job was cancelled, or another orchestrator ended it.
        return _stopped(app, ledger, job_id, ledger.standing(job_id)) or DriveOutcome()


def _stopped(app: Celery, ledger: Ledger, job_id: str, standing: Standing) -> DriveOutcome | None:
    """Handle a job that must not continue; return the outcome, None for a job that continues."""
    if standing.state.final:
        # The process that ended it may have died before it removed them.
        ledger.remove_working_keys(job_id)
        return DriveOutcome(result=Result.ALREADY_ENDED, state=standing.state)
    if standing.cancelling:
        return _cancel(app, ledger, job_id, standing)
    if standing.paused:
        return DriveOutcome(result=Result.PAUSED)
    if spent := ledger.over_budget(job_id):
        why = over_budget_reason(ledger.spec(job_id).budget, spent)
        return _stop_over_budget(app, ledger, job_id, standing, why)
    return None


def _advance(drive: Drive, standing: Standing, *, is_planned: bool) -> DriveOutcome:
    """Plan the job, or queue its lost batches again; then queue further batches, publish, and end the job."""
    if is_planned and not standing.partly_planned:
        recall = STEPS[drive.spec.action].recall
        job = planned(drive, *recall(drive.ledger, drive.spec, drive.catalogue))
        if standing.bounded:
            return _end_at_bound(job, standing)
        outcome = requeue_lost(job, standing)
    else:
        begun = plan_rest(drive) if standing.partly_planned else plan_job(drive)
        if isinstance(begun, DriveOutcome):
            return begun
        now = drive.ledger.standing(drive.job_id)
        # Batches that were queued while the plan grew may be lost since.
        lost = requeue_lost(begun, now) if now.handed else DriveOutcome()
        job, outcome = begun, replace(lost, planned=plan_size(begun), queued=now.handed - standing.handed)
    queued = outcome.queued + fill_window(job)
    published = Publisher(job).publish()
    # Batches end while snapshots are published.
    queued += fill_window(job)
    return _conclude(job, replace(outcome, queued=queued), published)


def _end_at_bound(job: PlannedDrive, standing: Standing) -> DriveOutcome:
    """End a job that has reached its bound, once its running batches have ended and are accounted for."""
    if standing.running:
        queue_drive(job.app, job.job_id, "bound reached", in_s=CANCEL_PAUSE_S)
        return DriveOutcome(result=Result.STOPPING, reason="bound reached", running=standing.running)
    return _conclude(job, DriveOutcome(), Publisher(job).publish(bounded=True))


def _conclude(job: PlannedDrive, outcome: DriveOutcome, published: Published) -> DriveOutcome:
    ended = STEPS[job.spec.action].conclude(job) or outcome
    return replace(
        outcome,
        result=ended.result,
        reason=ended.reason,
        action=job.spec.action,
        published=published.published,
        unpublished=published.unpublished,
        healing=published.healing,
    )


def _cancel(app: Celery, ledger: Ledger, job_id: str, standing: Standing) -> DriveOutcome:
    if standing.running:
        queue_drive(app, job_id, "cancelling", in_s=CANCEL_PAUSE_S)
        return DriveOutcome(result=Result.CANCELLING, running=standing.running)
    return end_job(ledger, job_id, State.CANCELLED)


def _stop_over_budget(app: Celery, ledger: Ledger, job_id: str, standing: Standing, why: str) -> DriveOutcome:
    """End a job whose budget is spent, once its running batches have ended and are accounted for."""
    if standing.running:
        queue_drive(app, job_id, "over budget", in_s=CANCEL_PAUSE_S)
        return DriveOutcome(result=Result.STOPPING, reason=why, running=standing.running)
    return fail_job(
        ledger,
        job_id,
        f"{why}. What was copied stays; no manifest was written that lacks objects.",
        cause=BUDGET,
    )
