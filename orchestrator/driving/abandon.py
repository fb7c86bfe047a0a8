"""Give up what never ends: what is not settled becomes a failure, so that it is listed and can be retried."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from snapferry.orchestrator.planning.plan import Plan
from snapferry.orchestrator.planning.prepare import read_snapshots, recalled
from snapferry.stores.errors import StoreFault
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.text.format import counted
from snapferry.workers.ledger import PLAN, Ledger, State, UnknownJob
from snapferry.workers.messages import JobRequest
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.telemetry.logs import fields

from .dispatch import batch_message

log = logging.getLogger(__name__)

# The attempts of an object that the orchestrator gives up: nobody counted them.
_ATTEMPTS: Final = 0


def settle_as_failed(
    ledger: Ledger, request: JobRequest, plan: Plan, numbers: Iterable[int], reason: str
) -> int:
    """
    Account for batches of the plan by their *numbers*: all of their objects failed for *reason*.

    Return how many batches were not accounted for before. May be called again.
    """
    settled = 0
    for number in numbers:
        checkpoint()
        batch = batch_message(request, plan.batch(number), PLAN)
        error = StoreFault("", "", reason)
        outcome = BatchOutcome(failures=[Failure.of(address, error) for address in batch.objects()])
        settled += ledger.account(batch, outcome, attempts=_ATTEMPTS)
    if settled:
        log.warning(
            "given up: the objects of %s fail",
            counted(settled, "batch", "batches"),
            extra=fields(job=request.job_id, reason=reason),
        )
    return settled


def settle_rest(ledger: Ledger, job_id: str, reason: str) -> None:
    """
    Let every object that a job has not settled fail for *reason*, if this machine still has the job's plan.

    Asks no store: the job may be failing because of one. Without a plan nothing is done; the job can be resumed.
    """
    try:
        if ledger.standing(job_id).state not in (State.COPYING, State.COMMITTING):
            return
        request = ledger.request(job_id)
        plan = recalled(request, read_snapshots(ledger, request))
    except (UnknownJob, ValidationError):
        return
    if plan is not None:
        missing = ledger.unaccounted(job_id, PLAN, range(plan.batches))
        settle_as_failed(ledger, request, plan, missing, reason)
