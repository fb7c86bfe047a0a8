"""The end of a job: its final state, and what is kept of it."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from snapferry.orchestrator.planning.prepare import forget
from snapferry.stores.text.printable import shortened
from snapferry.workers.copying.commit import SnapshotState
from snapferry.workers.ledger import JobStatus, Ledger, State, UnknownJob
from snapferry.workers.queues import parking_queue
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.telemetry import logs, tracing
from snapferry.workers.telemetry.metrics import counters

from .outcome import DriveOutcome, Result
from .snapshot_rows import final_fields, snapshot_rows
from .steps.abandon import fail_unsettled

log = logging.getLogger(__name__)

# Characters of the reason why a job failed that are kept.
LONGEST_REASON: Final = 2000

_CLASS: Final = re.compile(r"([A-Z][A-Za-z]{2,40}): ")

_RESULTS: Final = {
    State.DONE: Result.DONE,
    State.FAILED: Result.FAILED,
    State.CANCELLED: Result.CANCELLED,
}


def fail_job(ledger: Ledger, job_id: str, reason: str, *, cause: str = "") -> DriveOutcome:
    """
    End the job as failed for *reason*, one sentence for a person. *cause* as for `end_job`. A job that has ended stays
    as it is.

    Its unsettled objects fail as well, so that they are listed and can be retried.
    """
    fail_unsettled(ledger, job_id, f"the job ended before: {reason}")
    return end_job(ledger, job_id, State.FAILED, error=reason, cause=cause)


def end_job(
    ledger: Ledger,
    job_id: str,
    state: State,
    *,
    error: str = "",
    cause: str = "",
    fields: Mapping[str, str | float] | None = None,
) -> DriveOutcome:
    """
    Bring the job to a final state, and set *fields* of its record. A job that has ended stays as it is.

    *cause* is why it failed, in one word, as in `snapferry.workers.job_state`; by default the class of error that most
    of its failed objects have, or that of the first snapshot that could not be read or published.

    Return the outcome for a drive that ends so: it tells whether this call ended the job.
    """
    error = shortened(error, LONGEST_REASON)
    if state is State.FAILED:
        cause = cause or _cause(ledger, job_id)
    texts = {name: text for name, text in {"error": error, "cause": cause}.items() if text}
    kept = {**(fields or {}), **texts, **final_fields(ledger, job_id)}
    # Before the end, after which nobody may come any more who removes the plan. It can be computed again.
    forget(job_id)
    if not ledger.advance(job_id, state, **kept):
        return DriveOutcome(result=Result.ALREADY_ENDED)
    counters.job_ended(state)
    ended = ledger.status(job_id)
    _log_end(ended)
    ledger.remove_working_keys(job_id)
    left = parking_queue(ended.queue, job_id)
    if not ledger.is_queue_empty(left):
        # A failover of Redis may have lost the record by which workers find and empty it.
        ParkedJobs(ledger.client).drain(left)
    tracing.job_ended(ledger, job_id)
    return DriveOutcome(result=_RESULTS[state], reason=error)


def _cause(ledger: Ledger, job_id: str) -> str:
    by_class = ledger.failed_by_class(job_id)
    if by_class:
        return max(sorted(by_class), key=lambda name: by_class[name])
    try:
        reasons = [row.reason for row in snapshot_rows(ledger, job_id) if row.state == SnapshotState.FAILED]
    except (UnknownJob, ValidationError):
        return ""
    # Such a reason begins with the class of its error.
    return next((found[1] for reason in reasons if (found := _CLASS.match(reason))), "")


def _log_end(ended: JobStatus) -> None:
    log.log(
        logging.WARNING if ended.state is State.FAILED else logging.INFO,
        "job %s%s",
        ended.state,
        f": {ended.error}" if ended.error else "",
        extra=logs.fields(
            job=ended.job_id,
            state=ended.state.value,
            published=ended.snapshots_published,
            snapshots=ended.snapshots_total,
            copied=ended.copied,
            present=ended.present,
            failed=ended.failed,
            bytes=ended.bytes_copied,
            seconds=round(ended.ended_at - ended.submitted_at, 3),
        ),
    )
