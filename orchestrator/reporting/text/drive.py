"""The result of a drive as text: for the log, and for the result of its task, which Flower shows."""

from __future__ import annotations

from collections.abc import Iterator

from snapferry.orchestrator.driving.outcome import DriveOutcome, PlanSize, Result
from snapferry.stores.text.format import counted, size
from snapferry.workers.copying.words import WORDS


def describe_drive(outcome: DriveOutcome) -> str:
    """Return *outcome* in words, one line."""
    return "; ".join(_parts(outcome)) or "waiting for batches"


def _parts(outcome: DriveOutcome) -> Iterator[str]:
    if outcome.to_do is not None and outcome.planned is not None:
        words = WORDS[outcome.action]
        yield f"dry run: {counted(outcome.to_do, words.unit, of=outcome.planned.objects)} would be {words.would}"
    elif outcome.planned is not None:
        yield _plan(outcome.planned)
    if outcome.requeued:
        yield f"{_batches(outcome.requeued)} queued again"
    if outcome.abandoned:
        yield f"{_batches(outcome.abandoned)} abandoned"
    if outcome.queued:
        yield f"{_batches(outcome.queued)} queued"
    if outcome.published:
        yield f"{counted(outcome.published, 'snapshot')} {WORDS[outcome.action].snapshot}"
    if outcome.unpublished:
        yield f"{counted(outcome.unpublished, 'snapshot')} not {WORDS[outcome.action].snapshot}"
    if outcome.healing:
        yield f"healing {counted(outcome.healing, 'group')}"
    if outcome.result is not Result.CONTINUES:
        yield _result(outcome)


def _result(outcome: DriveOutcome) -> str:
    running = f"{_batches(outcome.running)} still running"
    texts = {
        Result.FAILED: f"failed: {outcome.reason}",
        Result.ALREADY_ENDED: f"the job has already ended{f': {outcome.state}' if outcome.state else ''}",
        Result.BUSY: "another orchestrator drives the job",
        Result.CANCELLING: f"cancelling; {running}",
        Result.STOPPING: f"{outcome.reason}; {running}",
        Result.WAITING: f"waiting for a store: {outcome.reason}",
        Result.UNKNOWN: "the job's record is gone",
    }
    return texts.get(outcome.result, outcome.result.value)


def _plan(plan: PlanSize) -> str:
    content = (
        f"{counted(plan.snapshots, 'snapshot')}, {counted(plan.objects, 'object')}, {size(plan.size_bytes)}"
    )
    return f"{content} in {_batches(plan.batches)}"


def _batches(count: int) -> str:
    return counted(count, "batch", "batches")
