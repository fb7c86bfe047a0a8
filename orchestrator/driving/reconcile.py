"""
Drive every open job that needs it: its chord never called back, or the machine that drove it died.

Celery can lose a chord, a message can die with the worker that held it, and an orchestrator can die in the middle of
a step. The ledger shows all of these: an expired lease, a job that wants a drive and has no driver, a job without
outstanding batches. Every few seconds one orchestrator reads all open jobs, and queues a drive of each that needs
one. The drive decides what to do.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import Final

from celery import Celery

from snapferry.orchestrator.periodic import Periodic
from snapferry.workers.ledger import Ledger, Standing, State, UnknownJob, UnreadableJob
from snapferry.workers.queues import PLAN_QUEUE
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.logs import fields

from .dispatch import queue_drive
from .steps.requeue import STALL_S

log = logging.getLogger(__name__)

# Seconds between two rounds, and between two drives that are queued for the same job.
ROUND_S: Final = 5
QUEUED_S: Final = 20

# Seconds between two renewals of the expiry of an open job's record.
KEEP_S: Final = 600

# Seconds between two removals of jobs from the list of all jobs whose records have expired, and the most jobs that are
# looked at.
EXPIRED_S: Final = 60
MOST_EXPIRED: Final = 1000

# Seconds between two drives of a job that waits for a store.
WAITING_S: Final = 300.0

# A job's chord is lost if it has not called back this many seconds after the last batch was accounted for.
CALLBACK_S: Final = 10.0


class DriveReason(StrEnum):
    """Why a job needs a drive, as text for the log and Flower."""

    ORCHESTRATOR_GONE = "its orchestrator is gone"
    CANCELLING = "cancelling"
    WORKER_GONE = "one of its workers is gone"
    RETRY_LOST = "the retry of a batch was lost"
    RESUMING = "resuming after a pause"
    NOT_PLANNED = "not planned yet"
    NO_CALLBACK = "its chord did not call back"
    IDLE = "no activity"


def why_drive(  # noqa: PLR0911 - one return a reason
    standing: Standing, *, neglected: bool, driven: bool
) -> DriveReason | None:
    """Return why a job needs a drive, None if it does not. *driven*: an orchestrator drives it now."""
    if driven or standing.state.final:
        return None
    if neglected:
        return DriveReason.ORCHESTRATOR_GONE
    if standing.cancelling:
        return DriveReason.CANCELLING
    if standing.paused:
        return None
    if standing.expired:
        return DriveReason.WORKER_GONE
    if standing.overdue:
        return DriveReason.RETRY_LOST
    if standing.held:
        return DriveReason.RESUMING
    if standing.state in (State.QUEUED, State.PLANNING):
        return DriveReason.NOT_PLANNED if standing.idle_s > STALL_S else None
    if standing.leased:
        return None
    if standing.handed == standing.done and standing.idle_s > CALLBACK_S:
        return DriveReason.NO_CALLBACK
    # A job that waits for a store shows no activity. A drive now and then still finds lost batches.
    longest = WAITING_S if standing.waiting else STALL_S
    return DriveReason.IDLE if standing.idle_s > longest else None


def reconcile(app: Celery, ledger: Ledger) -> list[tuple[str, DriveReason]]:
    """
    Queue a drive of each open job that needs one; return these jobs with the reasons.

    Raises what the broker raises. May be called at any time, by any process.
    """
    queued = []
    for job_id in ledger.open_jobs():
        try:
            standing, neglected = ledger.neglected(job_id)
        except UnreadableJob as error:
            # A damaged record costs that job, and no other.
            if ledger.claim_mark(f"keep:{job_id}", KEEP_S):
                log.warning("%s", error)
            continue
        except UnknownJob:
            ledger.forget(job_id)
            continue
        if ledger.claim_mark(f"keep:{job_id}", KEEP_S):
            ledger.renew_expiry(job_id)
        why = why_drive(standing, neglected=neglected, driven=ledger.driven(job_id))
        waits = (
            standing.state is State.QUEUED
            and not standing.cancelling
            and ledger.has_queued_task(PLAN_QUEUE, job_id)
        )
        if why and not waits and ledger.claim_mark(f"look:{job_id}", QUEUED_S):
            log.warning("drive queued: %s", why, extra=fields(job=job_id))
            queue_drive(app, job_id, why)
            queued.append((job_id, why))
    return queued


def attach(app: Celery, settings: Settings) -> None:
    """Reconcile jobs for as long as a worker of *app* runs, in each round unless another orchestrator just did."""

    def work(ledger: Ledger) -> None:
        if ledger.claim_mark("reconciler", max(1, ROUND_S - 1)):
            reconcile(app, ledger)
        if ledger.claim_mark("expired", EXPIRED_S):
            ledger.forget_expired(MOST_EXPIRED)

    Periodic(
        "reconciler",
        settings,
        work,
        every_s=ROUND_S,
        log=log,
        broker_down="cannot reconcile jobs: the broker is down",
        uncaught="uncaught exception while reconciling jobs",
    ).attach(app)
