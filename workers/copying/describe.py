"""Texts for people about jobs, batches and outcomes, as Flower and the terminal show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from snapferry.stores.text.format import counted, size
from snapferry.workers.messages import Action, BatchMessage
from snapferry.workers.outcome import BatchOutcome, Failure

from .words import WORDS


def short(identifier: str) -> str:
    """Return the first characters of an id, enough to tell ids apart on a page."""
    return identifier[:8]


def describe_snapshots(first: str, count: int | None) -> str:
    """Return the start of the *first* snapshot's id, and how many others there are. *count* None: every snapshot."""
    if count is None:
        return "every snapshot"
    others = f" and {count - 1} more" if count > 1 else ""
    return f"{first[:6]}…{others}" if count else "no snapshot"


def describe_job(job_id: str, first: str, count: int | None, action: Action = Action.COPY) -> str:
    """Return the start of a task's description: the job, for searches, what it does, and its snapshots."""
    return f"job {short(job_id)} · {_does(action)}{describe_snapshots(first, count)}"


class Described(NamedTuple):
    """What `describe_batch` needs of a batch, as `BatchMessage` has it."""

    job_id: str
    series: str
    number: int
    sizes: Sequence[int]
    action: Action


def describe_batch(batch: BatchMessage | Described, snapshots: str, batches: int) -> str:
    """Return a batch in words: its job, its number of *batches* (0: not known yet), and its objects and bytes."""
    kind = "batch" if batch.series == "plan" else "healing batch"
    number = f"{batch.number + 1}/{batches}" if batches else f"{batch.number + 1}"
    return (
        f"job {short(batch.job_id)} · {_does(batch.action)}{snapshots} · {kind} {number}"
        f" · {counted(len(batch.sizes), 'object')} · {size(sum(batch.sizes))}"
    )


def _does(action: Action) -> str:
    """Return the action before the snapshots, "" for a copy."""
    return "" if action is Action.COPY else f"{action} "


def describe_outcome(outcome: BatchOutcome, seconds: float, action: Action = Action.COPY) -> str:
    """Return the outcome of a batch in words."""
    words = WORDS[action]
    changed = f"{outcome.copied} {words.changed}, " if words.changed else ""
    failed = f", {len(outcome.failures)} FAILED" if outcome.failures else ""
    return (
        f"{changed}{outcome.present} {words.right}{failed}"
        f", {size(outcome.bytes_copied)}{words.moved} in {seconds:.1f} s"
    )


def describe_failure(failure: Failure) -> str:
    """Return the failure of an object in words: the kind of error, the reason, the object and the store."""
    where = f" at {failure.store}" if failure.store else ""
    return f"{failure.error}: {failure.detail} · object {short(failure.address)}…{where}"


def describe_failures(
    outcome: BatchOutcome, seconds: float, job_id: str, action: Action = Action.COPY
) -> str:
    """
    Return the outcome of a batch with failed objects: one reason, the counts, and the command that shows all.

    The reason comes first, because tables of tasks cut long texts.
    """
    more = f", and {len(outcome.failures) - 1} more" if len(outcome.failures) > 1 else ""
    return (
        f"{describe_failure(outcome.failures[0])}{more}. {describe_outcome(outcome, seconds, action)}."
        f" To list the paths of failed objects: snapferry failures {short(job_id)}"
    )
