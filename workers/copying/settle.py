"""Account for a batch, and log its outcome."""

from __future__ import annotations

import logging
from collections import Counter

from snapferry.stores.text.format import counted
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import BatchMessage
from snapferry.workers.outcome import BatchOutcome
from snapferry.workers.telemetry.logs import fields
from snapferry.workers.telemetry.metrics import counters

from .describe import describe_failures, describe_outcome

log = logging.getLogger(__name__)


class ObjectsFailed(Exception):
    """
    Some objects of a batch could not be copied; the message has the counts and one reason.

    The whole batch is accounted for. The exception makes Celery show the task as failed. The chord's errback then
    does what its callback would have done.
    """


def fail_batch(
    batch: BatchMessage,
    ledger: Ledger,
    holder: str,
    outcome: BatchOutcome,
    *,
    attempts: int,
    worker: str,
    end: str,
    submitted: str,
) -> str:
    """
    Account for a batch that will not be run again, and release its lease.

    *end* labels the metric, and *submitted* is that of `snapferry.workers.ledger.Begun`. Returns the outcome in words.
    Raises `ObjectsFailed`.
    """
    counters.gave_up(outcome, end=end)
    ledger.account(batch, outcome, attempts=attempts, worker=worker, submitted=submitted)
    ledger.release(batch, holder)
    log_failures(outcome, attempts)
    return result_text(batch, outcome, 0.0)


def log_end(batch: BatchMessage, outcome: BatchOutcome, seconds: float, attempts: int) -> None:
    """Log the outcome of a batch that is accounted for."""
    log_failures(outcome, attempts)
    log.info(
        "batch ended: %s",
        describe_outcome(outcome, seconds, batch.action),
        extra=fields(
            source=batch.source.url,
            destination=batch.destination.url,
            copied=outcome.copied,
            present=outcome.present,
            failed=len(outcome.failures),
            bytes=outcome.bytes_copied,
            seconds=round(seconds, 3),
        ),
    )


def result_text(batch: BatchMessage, outcome: BatchOutcome, seconds: float) -> str:
    """Return the outcome of a batch that is accounted for, in words. Raises `ObjectsFailed`."""
    if outcome.failures:
        raise ObjectsFailed(describe_failures(outcome, seconds, batch.job_id, batch.action))
    return describe_outcome(outcome, seconds, batch.action)


def log_failures(outcome: BatchOutcome, attempts: int) -> None:
    """Log the failed objects: one line for each kind of error."""
    for (error, store), count in Counter((f.error, f.store) for f in outcome.failures).items():
        first = next(f for f in outcome.failures if (f.error, f.store) == (error, store))
        log.error(
            "%s failed%s, the first: %s",
            counted(count, "object"),
            f" after {counted(attempts, 'pass', 'passes')}" if first.transient else "",
            first.detail,
            extra=fields(error=error, store=store, objects=count, object=first.address),
        )
