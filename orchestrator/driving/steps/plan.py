"""The first step of a job: check its stores, plan it, and refuse or answer a job that needs no copying."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

from snapferry.orchestrator.driving.actions import STEPS
from snapferry.orchestrator.driving.context import Drive, PlannedDrive, planned
from snapferry.orchestrator.driving.ending import end_job, fail_job
from snapferry.orchestrator.driving.outcome import DriveOutcome, PlanSize, Result
from snapferry.orchestrator.driving.retry import request_of
from snapferry.orchestrator.driving.store_outage import ANSWERED, may_wait_for
from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.prepare import prepare, prepare_rest
from snapferry.orchestrator.planning.snapshots import PLANNED, Snapshots
from snapferry.stores.errors import StoreError
from snapferry.workers.job_state import BUDGET
from snapferry.workers.ledger import State, request_text
from snapferry.workers.messages import Action
from snapferry.workers.telemetry import logs

from .window import GrowingWindow, may_grow

log = logging.getLogger(__name__)


def plan_job(drive: Drive) -> PlannedDrive | DriveOutcome:
    """
    Plan the job; return the drive with its plan, or the outcome if the job has ended.

    The first batches of a copy are queued while later manifests are still read, if its plan takes long. A dry run ends
    here, as does a job whose estimate is over its budget. Raises `StoreError` where a store gives no
    answer; then the job can be planned again.
    """
    ledger, spec, job_id = drive.ledger, drive.spec, drive.job_id
    steps = STEPS[spec.action]
    if not ledger.advance(job_id, State.PLANNING):
        return DriveOutcome(result=Result.ALREADY_ENDED)
    log.info(
        "job begins",
        extra=logs.fields(
            source=spec.source.url,
            destination=spec.destination.url,
            snapshots="all" if spec.everything else len(spec.snapshot_ids),
        ),
    )
    try:
        if not spec.more_sources:
            # One of several sources that is away stops nothing.
            drive.source.check()
        if spec.action is Action.HEAL:
            # A heal makes no store: one that is not there is misspelt, or its mount is missing.
            drive.destination.check(for_writing=False)
        drive.destination.check(for_writing=spec.action.writes)
    except StoreError as error:
        if may_wait_for(ledger, spec, error):
            raise
        # A store that cannot be reached before the job began is more likely misspelt than down. Fail at once.
        return fail_job(ledger, job_id, f"{type(error).__name__}: {error}", cause=type(error).__name__)
    ledger.set_fields(job_id, **{ANSWERED: 1})
    drive = replace(drive, spec=request_of(drive))
    snapshots, plan, grown = _planned(drive, growing=may_grow(spec))
    totals = _totals(drive, snapshots, plan, whole=grown)
    if drive.spec is not spec:
        totals["request"] = request_text(drive.spec)
        spec = drive.spec
    if spec.dry_run or spec.budget.limited:
        estimate = steps.estimate(spec, snapshots, plan, drive.source, drive.destination)
        totals["estimate"] = json.dumps(estimate)
        if spec.dry_run:
            counts = estimate["objects"]
            totals["present"] = counts["present"]
            size = plan_size(planned(drive, snapshots, plan))
            ended = end_job(ledger, job_id, State.DONE, fields=totals)
            done_to = "to_copy" if spec.action in (Action.COPY, Action.PULL) else "to_read"
            return replace(ended, action=spec.action, planned=size, to_do=counts[done_to])
        if estimate["refused"]:
            reason = f"{estimate['refused']}. Nothing was written."
            return end_job(ledger, job_id, State.FAILED, error=reason, cause=BUDGET, fields=totals)
    if spec.action.writes:
        drive.destination.prepare()
    if not ledger.advance(job_id, State.COPYING, **totals):
        return DriveOutcome(result=Result.ALREADY_ENDED)
    return planned(drive, snapshots, plan)


def plan_rest(drive: Drive) -> PlannedDrive | DriveOutcome:
    """
    Plan the rest of a job that was planned in part; return as `plan_job` does.

    Its first batches are queued already. Raises `StoreError` where a store gives no answer; then the rest can be
    planned again.
    """
    growing = GrowingWindow(drive, begun=True)
    snapshots, plan = prepare_rest(drive.ledger, drive.spec, drive.source, drive.destination, growing)
    totals = _totals(drive, snapshots, plan, whole=True)
    if not drive.ledger.advance(drive.job_id, State.COPYING, **totals):
        return DriveOutcome(result=Result.ALREADY_ENDED)
    return planned(drive, snapshots, plan)


def _planned(drive: Drive, *, growing: bool) -> tuple[Snapshots, Plan, bool]:
    """Plan the job; return its snapshots, its plan, and whether batches were queued before the plan was complete."""
    stores = drive.source, drive.destination
    if not growing:
        return *STEPS[drive.spec.action].prepare(drive.ledger, drive.spec, *stores), False
    window = GrowingWindow(drive)
    return *prepare(drive.ledger, drive.spec, *stores, growing=window), window.begun


def _totals(drive: Drive, snapshots: Snapshots, plan: Plan, *, whole: bool) -> dict[str, str | float]:
    """Return the fields of the job's record that hold its plan. *whole*: the record had a part of it before."""
    return {
        "objects_total": plan.objects,
        "bytes_total": plan.size_bytes,
        "batches_total": plan.batches,
        **STEPS[drive.spec.action].freeze(drive.spec, snapshots),
        **({"snapshots_planned": len(snapshots.ids)} if whole else {}),
    }


def plan_size(drive: PlannedDrive) -> PlanSize:
    """Return how much the job's plan has."""
    plan = drive.plan
    return PlanSize(len(drive.snapshots.of(PLANNED)), plan.objects, plan.size_bytes, plan.batches)
