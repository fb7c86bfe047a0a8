"""The state of a job in words: in one phrase, in full, and as rows of tables."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Final

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.orchestrator.reporting.measures import IDLE_S, idle_s, percent, rate, seconds_left
from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.describe import short
from snapferry.workers.copying.words import WORDS
from snapferry.workers.ledger import SUPERSEDED, JobStatus, State, Waiting
from snapferry.workers.messages import Action, Limits
from snapferry.workers.queues import Priority
from snapferry.workers.reachability.store_problems import StoreProblem

from .failures import classes_text
from .format import duration, moment, names_text, without_options
from .limits import limit_text
from .outcome import bound_text, deleted_text

# Seconds without progress after which a batch is mentioned, even if the rest of its job makes progress.
BATCH_IDLE_S: Final = 60.0

JOBS_HEAD: Final = ("JOB", "STATE", "SNAPSHOTS", "DONE", "BYTES", "WHEN", "FROM → TO")
SNAPSHOTS_HEAD: Final = (
    "SNAPSHOT", "STATE", "OBJECTS", "BYTES", "COPIED", "PRESENT", "SHARED", "MISSING", "REASON",
)  # fmt: skip


def state_text(status: JobStatus) -> str:
    """
    Return the state of a job, and whether it is paused, being cancelled, or a dry run.

    A failed job whose continuation is done is superseded.
    """
    parts = [SUPERSEDED if status.superseded else str(status.state)]
    if not status.state.final:
        parts += ["paused"] if status.paused else []
        parts += ["cancelling"] if status.cancelling else []
    parts += ["dry run"] if status.dry_run else []
    return ", ".join(parts)


def ended_text(status: JobStatus) -> str:
    """Return that a job has ended, for a command that cannot change it any more."""
    return f"job {status.job_id} has already ended: it is {state_text(status)}"


def stall_text(status: JobStatus) -> str:
    """Return why a job may make no progress, "" if it does, or is paused or being cancelled."""
    if status.paused or status.cancelling:
        return ""
    if status.waiting is not None:
        return waiting_text(status.waiting)
    if idle_s(status) <= IDLE_S:
        return _stuck_batches(status, BATCH_IDLE_S)
    if status.state is State.QUEUED:
        return "waiting for an orchestrator (is one running?)"
    stuck = _stuck_batches(status, IDLE_S)
    if status.state is State.COPYING and not stuck and not status.workers:
        serving = f" that serves --queue {status.queue}" if status.queue else ""
        return f"waiting for a worker{serving} (is one running, and free?)"
    return stuck


def waiting_text(waiting: Waiting) -> str:
    """Return which store a job waits for, how long it has waited, and why."""
    return printable(
        f"waiting for {waiting.store} ({duration(time.time() - waiting.since)} so far): {waiting.reason}"
    )


def _stuck_batches(status: JobStatus, longer_s: float) -> str:
    """Return which workers run batches without progress for more than *longer_s* seconds, "" for none."""
    now = time.time()
    stuck = [run for run in status.running if run.moved_at and now - run.moved_at > longer_s]
    if not stuck or status.state is not State.COPYING:
        return ""
    in_flight = sum(run.in_flight for run in stuck)
    longest = duration(now - min(run.moved_at for run in stuck))
    workers = sorted({run.worker for run in stuck})
    others = f" and {counted(len(workers) - 1, 'other worker')}" if len(workers) > 1 else ""
    what = (
        f"{counted(in_flight, 'object')} in flight" if in_flight else counted(len(stuck), "batch", "batches")
    )
    return f"{what} without progress for {longest} at {workers[0]}{others}"


def time_left_text(status: JobStatus) -> str:
    """Return how long the rest of a job takes, "" if that is not known."""
    left = seconds_left(status)
    return "" if left is None else f"{duration(max(1.0, left))} left"


def status_lines(
    status: JobStatus,
    by_class: Mapping[str, int],
    store_limits: Mapping[str, Limits] | None = None,
    unreached: Sequence[StoreProblem] = (),
) -> list[str]:
    """
    Return everything that is known about a job, one line for each aspect.

    *by_class*: failed objects by class of error; *store_limits*: those of ``source`` and ``destination``;
    *unreached*: which workers cannot reach which of its stores.
    """
    words = WORDS[status.action]
    trusted = f", {status.snapshots_trusted:,} trusted" if status.snapshots_trusted else ""
    changed = f"{status.copied:,} {words.changed}, " if words.changed else ""
    healed = f", {status.healed:,} healed" if status.healed else ""
    classes = f" ({classes_text(by_class)})" if by_class else ""
    speed = f"{size(rate(status))}/s" if rate(status) else ""
    fields = {
        "job": status.job_id,
        "state": state_text(status),
        "action": str(status.action) if status.action is not Action.COPY else "",
        **stores_of(status),
        "snapshots": f"{status.snapshots_published:,} of {status.snapshots_total:,} {words.snapshot}{trusted},"
        f" {status.snapshots_failed:,} failed",
        "objects": f"{status.objects_settled:,} of {status.objects_total:,} done: {changed}"
        f"{status.present:,} {words.right}, {status.failed:,} failed{classes}{healed}",
        "bytes": f"{size(status.bytes_settled)} of {size(status.bytes_total)} done ({percent(status)}%),"
        f" {size(status.bytes_copied)}{words.moved or ' copied'}",
        "bound": bound_text(status),
        "rate": ", ".join(part for part in (speed, time_left_text(status)) if part),
        "batches": f"{status.batches_done:,} of {status.batches_total:,} done, {status.batches_handed:,} queued so far",
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
        "submitted": _when(status.submitted_at),
        "started": _when(status.started_at),
        "ended": _when(status.ended_at),
        "reason": status.error,
    }
    lines = [printable(f"{name:<11} {value}") for name, value in fields.items() if value]
    if not status.state.final:
        lines += [trouble_text(one) for one in unreached]
    if stall := stall_text(status):
        lines.append(stall)
    return lines


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
        f"{100 * status.objects_settled // status.objects_total}%" if status.objects_total else "-",
        size(status.bytes_total),
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
