"""Words for people: sizes, durations and outcomes, as Flower and the terminal show them."""

from __future__ import annotations

from snapferry.stores.text.format import counted, size
from snapferry.workers.messages import BatchMessage
from snapferry.workers.outcome import BatchOutcome, Failure


def short(identifier: str) -> str:
    """Return the head of an id, enough to tell it from others on a page."""
    return identifier[:8]


def describe_snapshots(first: str, count: int | None) -> str:
    """Return snapshots in words: the head of the *first* one's id, how many others; None: all of the source."""
    if count is None:
        return "every snapshot"
    others = f" and {count - 1} more" if count > 1 else ""
    return f"{first[:6]}…{others}" if count else "no snapshot"


def describe_job(job_id: str, first: str, count: int | None) -> str:
    """Return the head of a task's description: the job, to search for, and its snapshots."""
    return f"job {short(job_id)} · {describe_snapshots(first, count)}"


def describe_batch(batch: BatchMessage, snapshots: str, batches: int) -> str:
    """Return a batch in words: whose it is, which of how many, how much it carries."""
    kind = "batch" if batch.series == "plan" else "healing batch"
    return (
        f"job {short(batch.job_id)} · {snapshots} · {kind} {batch.number + 1}/{batches}"
        f" · {counted(len(batch.sizes), 'object')} · {size(sum(batch.sizes))}"
    )


def describe_outcome(outcome: BatchOutcome, seconds: float) -> str:
    """Return how a batch ended, in words."""
    failed = f", {len(outcome.failures)} FAILED" if outcome.failures else ""
    return (
        f"{outcome.copied} copied, {outcome.present} present{failed}"
        f", {size(outcome.bytes_copied)} in {seconds:.1f} s"
    )


def describe_failure(failure: Failure) -> str:
    """Return why an object failed, in words: which, at which store, and what kind of error it is."""
    where = f" at {failure.store}" if failure.store else ""
    return f"object {short(failure.address)}…{where}: {failure.detail} ({failure.error})"


def describe_failures(outcome: BatchOutcome, seconds: float, job_id: str) -> str:
    """Return how a batch with failed objects ended: the figures, one reason, and where all of them are told."""
    more = f", and {len(outcome.failures) - 1} more" if len(outcome.failures) > 1 else ""
    return (
        f"{describe_outcome(outcome, seconds)}. {describe_failure(outcome.failures[0])}{more}."
        f" To see which paths need what failed: snapferry failures {short(job_id)}"
    )
