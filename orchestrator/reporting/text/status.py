"""The state of a job in words: in one phrase, in full, and as rows of tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.reporting.measures import (
    BatchState,
    ObjectState,
    SnapshotEnd,
    Stall,
    batch_counts,
    object_counts,
    percent,
    rate,
    seconds_left,
    snapshot_counts,
    stall,
    stuck_batches,
)
from snapferry.orchestrator.reporting.nodes import Lack, Role
from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.describe import short
from snapferry.workers.copying.words import WORDS
from snapferry.workers.job_state import BUDGET
from snapferry.workers.ledger import DISMISSED, SUPERSEDED, JobStatus, ObjectInParts, RunningBatch, Waiting
from snapferry.workers.messages import Action, Limits
from snapferry.workers.queues import Priority
from snapferry.workers.reachability.store_problems import StoreProblem

from .failures import classes_text
from .format import duration, moment, names_text, span, without_options
from .limits import limit_text
from .outcome import bound_text, deleted_text

JOBS_HEAD: Final = ("JOB", "STATE", "SNAPSHOTS", "DONE", "BYTES", "WHEN", "FROM → TO")
SNAPSHOTS_HEAD: Final = (
    "SNAPSHOT", "STATE", "OBJECTS", "BYTES", "COPIED", "PRESENT", "SHARED", "MISSING", "REASON",
)  # fmt: skip


def state_text(status: JobStatus) -> str:
    """
    Return the state of a job, and whether it is paused, being cancelled, or a dry run.

    A failed job is superseded if a later job did its work, and may be dismissed.
    """
    parts = [SUPERSEDED if status.superseded else str(status.state)]
    if status.dismissed is not None and not status.superseded:
        parts.append(DISMISSED)
    if not status.state.final:
        parts += ["paused"] if status.paused else []
        parts += ["cancelling"] if status.cancelling else []
    parts += ["dry run"] if status.dry_run else []
    parts += ["still planning"] if status.partly_planned and not status.state.final else []
    return ", ".join(parts)


def dismissal_text(status: JobStatus) -> str:
    """Return when, by whom and why a job was dismissed, "" if it was not."""
    found = status.dismissed
    if found is None:
        return ""
    by = f" by {found.by}" if found.by else ""
    return f"{_when(found.at)}{by}{f': {found.why}' if found.why else ''}".strip()


def reason_text(status: JobStatus) -> str:
    """Return why a job failed, with the error of most of its failed objects, "" if it did not fail."""
    if not status.failed or status.cause in ("", BUDGET) or status.cause in status.error:
        return status.error
    return f"{status.error} The error{' of most of them' if status.failed > 1 else ''}: {status.cause}."


def over_text(status: JobStatus) -> str:
    """Return what made a failed job good, "" if nothing did."""
    if not status.superseded:
        return ""
    later = f" or a later run of mirror {status.mirror}" if status.mirror else ""
    if status.continued_by:
        return f"A job that continues this one{later} is done: nothing is left to do."
    return f"{later.removeprefix(' or ').capitalize()} is done: nothing is left to do."


def kept_text(status: JobStatus) -> str:
    """Return what of a failed copy or push is at the destination, "" for other jobs, and if nothing is."""
    kept = status.copied + status.present
    if not status.unresolved or status.dry_run or status.action not in (Action.COPY, Action.PUSH):
        return ""
    if not kept:
        return "Snapshots that the destination had before are unchanged."
    of = None if status.partly_planned else status.objects_total
    objects = counted(kept, WORDS[status.action].unit, of=of, verb="is")
    return f"{objects} at the destination and will not be copied again. Snapshots that it had before are unchanged."


def ended_text(status: JobStatus) -> str:
    """Return that a job has ended, for a command that cannot change it any more."""
    return f"job {status.job_id} has already ended: it is {state_text(status)}"


def stall_text(status: JobStatus, lacks: Lack = None) -> str:
    """
    Return why a job may make no progress, "" if it does, has ended, or is paused or being cancelled.

    *lacks* is the role of which no process runs that could take the next step: "" if each role has one, None if that is
    not known.
    """
    if status.state.final or status.paused or status.cancelling:
        return ""
    if lacks:
        text = lack_text(status, lacks)
    elif status.waiting is not None:
        text = waiting_text(status.waiting)
    else:
        text = _quiet_text(status, lacks)
    return text


def _quiet_text(status: JobStatus, lacks: Lack) -> str:
    """Return why a job may make no progress that waits for no store, "" if it does."""
    match stall(status):
        case Stall.ORCHESTRATOR | Stall.WORKER if lacks is not None:
            return ""
        case Stall.ORCHESTRATOR:
            return "waiting for an orchestrator (is one running?)"
        case Stall.WORKER:
            serving = f" that serves --queue {status.queue}" if status.queue else ""
            return f"waiting for a worker{serving} (is one running, and free?)"
        case Stall.BATCHES:
            return _stuck_text(stuck_batches(status))
        case None:
            return ""


def lack_text(status: JobStatus, lacks: Role) -> str:
    """Return that nothing of a job can run, because no process of the role *lacks* runs."""
    serving = f" that serves --queue {status.queue}" if lacks == "worker" and status.queue else ""
    return f"nothing can run: no {lacks}{serving} is running"


def waiting_text(waiting: Waiting) -> str:
    """Return which store a job waits for, how long it has waited, and why."""
    return printable(
        f"waiting for {waiting.store} ({duration(time.time() - waiting.since)} so far): {waiting.reason}"
    )


def _stuck_text(stuck: Sequence[RunningBatch]) -> str:
    """Return which workers run the batches *stuck* that make no progress, and for how long."""
    now = time.time()
    in_flight = sum(run.in_flight for run in stuck)
    longest = duration(now - min(run.moved_at for run in stuck))
    workers = sorted({run.worker for run in stuck})
    others = f" and {counted(len(workers) - 1, 'other worker')}" if len(workers) > 1 else ""
    what = (
        f"{counted(in_flight, 'object')} in flight" if in_flight else counted(len(stuck), "batch", "batches")
    )
    return f"{what} without progress for {longest} at {workers[0]}{others}"


def at_least(status: JobStatus) -> str:
    """Return what stands before the totals of a job: nothing, unless its plan is not complete."""
    return "at least " if status.partly_planned else ""


def time_left_text(status: JobStatus) -> str:
    """Return how long the rest of a job takes, "" if that is not known."""
    left = seconds_left(status)
    return "" if left is None else f"{span(max(1.0, left))} left"


def status_lines(
    status: JobStatus,
    by_class: Mapping[str, int],
    store_limits: Mapping[str, Limits] | None = None,
    unreached: Sequence[StoreProblem] = (),
    lacks: Lack = None,
) -> list[str]:
    """
    Return everything that is known about a job, one line for each aspect.

    *by_class*: failed objects by class of error; *store_limits*: those of ``source`` and ``destination``;
    *unreached*: which workers cannot reach which of its stores. *lacks* as for `stall_text`.
    """
    words = WORDS[status.action]
    speed = f"{size(rate(status))}/s" if rate(status) else ""
    done = "" if status.partly_planned else f"{percent(status)}%"
    fields = {
        "job": status.job_id,
        "state": state_text(status),
        "action": str(status.action) if status.action is not Action.COPY else "",
        **stores_of(status),
        "done": ", ".join(filter(None, (done, speed, time_left_text(status)))),
        "snapshots": _snapshots_text(status),
        f"{words.unit}s": _objects_text(status, by_class),
        "bytes": f"{at_least(status)}{size(status.bytes_total)}: {size(status.bytes_moved)}{words.moved or ' copied'}",
        "bound": bound_text(status),
        "batches": _batches_text(status),
        "priority": status.priority if status.priority != Priority.NORMAL else "",
        "queue": status.queue,
        "limits": limit_text(status.limits),
        **{
            f"{'to' if side == 'destination' else 'from'} limits": f"{text}, for all jobs together"
            for side, limits in (store_limits or {}).items()
            if (text := limit_text(limits))
        },
        "workers": ", ".join(status.workers),
        "deleted": deleted_text(status),
        "names": names_text(status),
        "continues": status.continues and f"job {status.continues}",
        "continued": status.continued_by and f"by job {status.continued_by}",
        "dismissed": dismissal_text(status),
        "submitted": _when(status.submitted_at),
        "started": _when(status.started_at),
        "ended": _when(status.ended_at),
        "reason": status.error,
        "over": over_text(status),
    }
    lines = [printable(f"{name:<11} {value}") for name, value in fields.items() if value]
    lines += [in_parts_text(one) for one in status.in_parts]
    if not status.state.final:
        lines += [trouble_text(one) for one in unreached]
    if stall := stall_text(status, lacks):
        lines.append(stall)
    return lines


def in_parts_text(found: ObjectInParts) -> str:
    """Return how much of an object is copied in parts, and which workers copy parts of it now."""
    by = f", now by {', '.join(found.workers)}" if found.workers else ""
    done = f"{found.done:,} of {counted(found.parts, 'part')} copied"
    return f"object {short(found.address)} of {size(found.size_bytes)}: {done}{by}"


def objects_in_states(status: JobStatus, classes: str = "") -> str:
    """Return how many objects are in each state, those that failed with their *classes*. The counts add up to all."""
    words = WORDS[status.action]
    counts = object_counts(status)
    parts = (
        f"{counts[ObjectState.COPIED]:,} {words.changed}" if words.changed else "",
        f"{counts[ObjectState.PRESENT]:,} {words.right}",
        f"{counts[ObjectState.FAILED]:,} failed{classes}",
        _unless_zero(
            counts[ObjectState.RUNNING], "stopped" if status.state.final else "in unfinished batches"
        ),
        _unless_zero(counts[ObjectState.LEFT], "not tried" if status.state.final else "left"),
    )
    return ", ".join(filter(None, parts))


def _objects_text(status: JobStatus, by_class: Mapping[str, int]) -> str:
    """Return how many objects are in each state. The counts add up to the total, which comes first."""
    classes = f" ({classes_text(by_class)})" if by_class else ""
    again = f"; {status.healed:,} copied again, because the destination lost them" if status.healed else ""
    return f"{at_least(status)}{status.objects_total:,}: {objects_in_states(status, classes)}{again}"


def _snapshots_text(status: JobStatus) -> str:
    """Return how many snapshots are in each state. The counts add up to the total, which comes first."""
    counts = snapshot_counts(status)
    parts = (
        f"{counts[SnapshotEnd.GOOD]:,} {WORDS[status.action].snapshot}",
        _unless_zero(counts[SnapshotEnd.TRUSTED], "trusted"),
        f"{counts[SnapshotEnd.FAILED]:,} failed",
        _unless_zero(counts[SnapshotEnd.LEFT], "not ended" if status.state.final else "left"),
    )
    return f"{status.snapshots_total:,}: {', '.join(filter(None, parts))}"


def _batches_text(status: JobStatus) -> str:
    """Return how many batches are in each state. The counts add up to the total, which comes first."""
    counts = batch_counts(status, len(status.running))
    parts = (
        f"{counts[BatchState.DONE]:,} done",
        _unless_zero(counts[BatchState.RUNNING], "running"),
        _unless_zero(counts[BatchState.QUEUED], "queued"),
        _unless_zero(counts[BatchState.UNQUEUED], "not run" if status.state.final else "not queued yet"),
    )
    return f"{at_least(status)}{status.batches_total:,}: {', '.join(filter(None, parts))}"


def _unless_zero(count: int, text: str) -> str:
    return f"{count:,} {text}" if count else ""


def stores_of(status: JobStatus) -> dict[str, str]:
    """Return the stores of a job by what they are to it: one for a job that only reads."""
    if not status.action.writes:
        return {"store": status.source}
    return {"from": status.source, "to": status.destination}


def trouble_text(trouble: StoreProblem) -> str:
    """Return which worker cannot reach which store, for how long, and why."""
    outage = duration(time.time() - trouble.since)
    return printable(f"{trouble.worker} cannot reach {trouble.store} ({outage} so far): {trouble.detail}")


def _when(seconds: float) -> str:
    return f"{moment(seconds)} ({duration(time.time() - seconds)} ago)" if seconds else ""


def job_row(status: JobStatus) -> tuple[str, ...]:
    """Return a job as a row of `JOBS_HEAD`."""
    ended = f"{duration(time.time() - status.ended_at)} ago" if status.ended_at else ""
    return (
        short(status.job_id),
        state_text(status),
        f"{status.snapshots_there:,}/{status.snapshots_total:,}",
        f"{percent(status)}%" if status.objects_total and not status.partly_planned else "-",
        ("≥ " if status.partly_planned else "") + size(status.bytes_total),
        ended or f"for {duration(time.time() - status.submitted_at)}",
        printable(route_text(status)),
    )


def route_text(status: JobStatus) -> str:
    """Return the stores of a job in short, with the action of a job that does not copy."""
    action = "" if status.action is Action.COPY else f"{status.action} "
    return action + " → ".join(map(without_options, stores_of(status).values()))


def snapshot_row(row: SnapshotRow) -> tuple[str, ...]:
    """Return a snapshot of a job as a row of `SNAPSHOTS_HEAD`."""
    if row.state == "pending":
        # Its counts are known only when it ends.
        return (row.id, row.state, *["-"] * 6, "")
    return (
        row.id,
        row.state,
        f"{row.objects:,}",
        size(row.size_bytes),
        f"{row.copied:,}",
        f"{row.present:,}",
        f"{row.shared:,}",
        f"{row.missing:,}",
        printable(row.reason),
    )
