"""Record as failed what will not end, so that it is listed and can be retried."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from snapferry.orchestrator.driving.dispatch import batch_message
from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.prepare import recalled
from snapferry.orchestrator.planning.snapshots import read_snapshots
from snapferry.stores.errors import StoreFault
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import PLAN, Ledger, State, UnknownJob
from snapferry.workers.messages import JobSpec
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.telemetry.logs import fields

log = logging.getLogger(__name__)

# The attempts of an object that the orchestrator abandons: they were not counted.
_ATTEMPTS: Final = 0


def fail_batches(ledger: Ledger, spec: JobSpec, plan: Plan, numbers: Iterable[int], reason: str) -> int:
    """
    Account for batches of the plan by their *numbers*: all of their objects failed for *reason*.

    Return how many of the batches were not accounted for before. May be called again.
    """
    failed = 0
    for number in numbers:
        checkpoint()
        batch = batch_message(spec, plan.batch(number), PLAN)
        error = StoreFault("", "", reason)
        outcome = BatchOutcome(failures=[Failure.of(address, error) for address in batch.objects()])
        failed += ledger.account(batch, outcome, attempts=_ATTEMPTS)
    if failed:
        log.warning(
            "%s abandoned: their objects fail",
            counted(failed, "batch", "batches"),
            extra=fields(job=spec.job_id, reason=reason),
        )
    return failed


def fail_unsettled(ledger: Ledger, job_id: str, reason: str) -> None:
    """
    Record every unsettled object of a job as failed for *reason*, if this machine still has the job's plan.

    Asks no store: the job may be failing because of one. Without a plan nothing is done; the job can be resumed.
    """
    try:
        if ledger.standing(job_id).state not in (State.COPYING, State.COMMITTING):
            return
        spec = ledger.spec(job_id)
        plan = recalled(spec, read_snapshots(ledger, spec))
    except (UnknownJob, ValidationError):
        return
    if plan is not None:
        missing = ledger.unaccounted(job_id, PLAN, range(plan.batches))
        fail_batches(ledger, spec, plan, missing, reason)
