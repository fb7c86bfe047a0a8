"""
How a job stands and how it ended, in words for people.

What comes from stores, such as paths, may hold anything: what is put into words
goes through `printable`, so that it cannot steer a terminal.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from snapferry.orchestrator.driving.snapshot_rows import SnapshotRow
from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import printable
from snapferry.workers.copying.describe import short
from snapferry.workers.ledger import JobStatus, State, Waiting
from snapferry.workers.limits import StoreLimits
from snapferry.workers.messages import Limits
from snapferry.workers.queues import Priority
from snapferry.workers.reachability.records import Trouble

from .failures import DeadLetter
from .receipt import moment

# Kinds of failures that are put into words, and failed objects that the JSON document holds.
FAILURES_SHOWN: Final = 10
FAILURES_IN_JSON: Final = 1000

# Ids of manifests to be deleted, and places of a failed object, that are put into words.
IDS_SHOWN: Final = 20
PLACES_SHOWN: Final = 20

# The greatest share of bytes that is shown while few objects are left.
ALMOST: Final = 0.99

# A job of which nothing moves for this long is worth a word.
PATIENCE_S: Final = 10.0

# A batch of which nothing moves for this long is worth a word, whatever else of its job moves.
LONG_QUIET_S: Final = 60.0

JOBS_HEAD: Final = ("JOB", "STATE", "SNAPSHOTS", "OBJECTS", "BYTES", "WHEN", "FROM → TO")
SNAPSHOTS_HEAD: Final = (
    "SNAPSHOT", "STATE", "OBJECTS", "BYTES", "COPIED", "PRESENT", "SHARED", "MISSING", "REASON",
)  # fmt: skip


def state_words(status: JobStatus) -> str:
    """Return a job's state, with what else holds of it."""
    said = [str(status.state)]
    if not status.state.final:
        said += ["paused"] if status.paused else []
        said += ["cancelling"] if status.cancelling else []
    said += ["dry run"] if status.dry_run else []
    return ", ".join(said)


def hint(status: JobStatus) -> str:
    """Return what may be in the way of a job of which nothing moves, "" if there is nothing to say."""
    if status.paused or status.cancelling:
        return ""
    if status.waiting is not None:
        return waiting_words(status.waiting)
    if _idle_s(status) <= PATIENCE_S:
        return _quiet_words(status, LONG_QUIET_S)
    if status.state is State.QUEUED:
        return "waiting for an orchestrator to take the job (is one running?)"
    said = _quiet_words(status, PATIENCE_S)
    if status.state is State.COPYING and not said and not status.workers:
        first = "the first objects" if not status.objects_settled else "more objects"
        serving = f" with --queue {status.queue}" if status.queue else ""
        said = f"waiting for {first} (is a worker{serving} running, and free?)"
    return said if status.state is State.COPYING else ""


def waiting_words(waiting: Waiting) -> str:
    """Return what a job waits for, since when, and why."""
    since = duration(time.time() - waiting.since)
    return printable(f"waiting for {waiting.store} since {since}: {waiting.reason}")


def _idle_s(status: JobStatus) -> float:
    return time.time() - max(status.moved_at, status.submitted_at)


def _quiet_words(status: JobStatus, longer_s: float) -> str:
    """Return where nothing has moved for *longer_s* seconds though a batch runs, "" if that is nowhere."""
    now = time.time()
    quiet = [run for run in status.running if run.moved_at and now - run.moved_at > longer_s]
    if not quiet or status.state is not State.COPYING:
        return ""
    in_flight = sum(run.in_flight for run in quiet)
    longest = duration(now - min(run.moved_at for run in quiet))
    workers = sorted({run.worker for run in quiet})
    others = f" and {counted(len(workers) - 1, 'other worker')}" if len(workers) > 1 else ""
    what = (
        f"{counted(in_flight, 'object')} in flight" if in_flight else counted(len(quiet), "batch", "batches")
    )
    return f"{what} without progress for {longest} at {workers[0]}{others}"


def share(status: JobStatus) -> float:
    """
    Return the settled share, 0.0 to 1.0: of the bytes, or of the objects where there are no bytes.

    It is 1.0 only if every object is settled.
    """
    if not status.objects_total:
        return 0.0
    of_objects = status.objects_settled / status.objects_total
    if not status.bytes_total:
        return of_objects
    of_bytes = status.bytes_settled / status.bytes_total
    # The last objects may have no bytes, or only few.
    return of_bytes if of_objects >= 1.0 else min(of_bytes, max(ALMOST, of_objects))


def percent(status: JobStatus) -> int:
    """Return the settled share in percent, rounded down: 100 only if every object is settled."""
    # A share such as 0.29 is a little less than that in binary.
    return int(100 * share(status) + 1e-9)


def rate(status: JobStatus) -> float:
    """Return how many bytes were settled in a second, 0.0 if that is not known."""
    elapsed = _elapsed(status)
    return status.bytes_settled / elapsed if elapsed > 0 else 0.0


def seconds_left(status: JobStatus) -> float | None:
    """Return how long the rest takes at the speed so far, None if that is not known."""
    done = share(status)
    if status.state is not State.COPYING or status.paused or status.cancelling or not 0.0 < done < 1.0:
        return None
    if _idle_s(status) > PATIENCE_S:
        # Nothing moves, so the speed so far says nothing.
        return None
    return max(0.0, _elapsed(status)) * (1 - done) / done


def left_words(status: JobStatus) -> str:
    """Return how long the rest takes, in words, "" if that is not known."""
    left = seconds_left(status)
    return "" if left is None else f"{duration(max(1.0, left))} left"


def _elapsed(status: JobStatus) -> float:
    return (status.ended_at or time.time()) - status.started_at if status.started_at else 0.0


def duration(seconds: float) -> str:
    """Return a length of time in its greatest unit, as in ``5 min``."""
    seconds = max(0.0, seconds)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"


def failure_lines(letters: Iterable[DeadLetter], total: int) -> list[str]:
    """Return failures in words, alike ones in one line."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for letter in letters:
        if letter.known is not None:
            failure = letter.known.failure
            alike.setdefault((failure.error, failure.store, failure.detail), []).append(failure.address)
    lines = [
        printable(
            f"  {len(addresses):,} x {error} at {store}: {detail}"
            f" ({addresses[0]}{', ...' if len(addresses) > 1 else ''})"
        )
        for (error, store, detail), addresses in list(alike.items())[:FAILURES_SHOWN]
    ]
    shown = sum(len(addresses) for addresses in list(alike.values())[:FAILURES_SHOWN])
    if total > shown:
        lines.append(f"  and {total - shown:,} more (--json lists the first {FAILURES_IN_JSON:,})")
    return lines


def done_words(status: JobStatus) -> str:
    """Return the account of a job that is done, in one line."""
    objects = f"{status.objects_total:,} object{_s(status.objects_total)}"
    seconds = f" in {status.ended_at - status.submitted_at:.1f} s"
    also = f", {status.healed:,} healed" if status.healed else ""
    also += f"; {status.deleted:,} manifest{_s(status.deleted)} deleted" if status.deleted else ""
    what = _published_words(status)
    if not status.snapshots_total:
        return f"nothing to do: the source lists no snapshot{also},{seconds}"
    if status.snapshots_trusted == status.snapshots_total:
        return f"nothing to do: {what}{also},{seconds}"
    if not status.copied:
        return f"nothing to do: all {objects} were present; {what}{also},{seconds}"
    return (
        f"{what}: {objects}, {status.copied:,} copied ({size(status.bytes_copied)}),"
        f" {status.present:,} were present{also},{seconds}"
    )


def next_steps(status: JobStatus) -> str:
    """Return what can be done about a job of a fleet that did not get done, "" if it is to be submitted anew."""
    job = status.job_id
    if status.state is State.DONE:
        return ""
    if status.state is State.FAILED and status.failed and status.batches_done == status.batches_total:
        return f"see: snapferry failures {job}; once that is put right: snapferry retry {job}"
    if status.state is State.CANCELLED or status.batches_handed:
        return f"to go on: snapferry resume {job}"
    return ""


def _published_words(status: JobStatus) -> str:
    there = status.snapshots_there
    trusted = ""
    if status.snapshots_trusted:
        which = f"{status.snapshots_trusted:,} of them" if there > 1 else "it was there already,"
        trusted = f" ({which} not checked: --trust-manifest)"
    if status.snapshots_total == 1:
        return f"snapshot {status.first_snapshot} is published{trusted}"
    return f"{there:,} of {status.snapshots_total:,} snapshots are published{trusted}"


def dry_run_lines(status: JobStatus, estimate: Mapping[str, Any]) -> list[str]:
    """Return what a dry run found."""
    objects, bytes_ = estimate["objects"], estimate["bytes"]
    snapshots = estimate["snapshots"]
    copied = f"{objects['to_copy']:,} of {objects['total']:,} objects"
    copied += f", {size(bytes_['to_copy'])} of {size(bytes_['total'])}"
    lines = [
        f"would copy {copied}; {objects['present']:,} are present. Nothing was written.",
        f"  snapshots  {snapshots['total']:,}"
        + (f", {snapshots['trusted']:,} there already and not checked" if snapshots["trusted"] else "")
        + (f", {snapshots['unreadable']:,} UNREADABLE at the source" if snapshots["unreadable"] else ""),
        f"  batches    {estimate['batches']:,}",
    ]
    about = "" if estimate.get("exact", True) else "about "
    for side in ("source", "destination"):
        if sent := {name: count for name, count in sorted(estimate["requests"][side].items()) if count}:
            counts = ", ".join(f"{count:,} {name}" for name, count in sent.items())
            store = status.source if side == "source" else status.destination
            lines.append(printable(f"  requests   {about}{counts} at {bare(store)}"))
    if estimate["cost"] is not None:
        lines.append(printable(f"  cost       {about}{estimate['cost']:.4f} {estimate['currency']}"))
    if "delete" in estimate:
        lines += _delete_lines(estimate)
    if estimate.get("refused"):
        lines.append(printable(f"  REFUSED    {estimate['refused']}"))
    return lines


def _delete_lines(estimate: Mapping[str, Any]) -> list[str]:
    doomed, refused = estimate["delete"], estimate["delete_refused"]
    verb = "would NOT delete" if refused else "would delete"
    lines = [f"  deletions  {verb} {len(doomed):,} manifest{_s(len(doomed))} at the destination"]
    lines += [f"             {refused}"] if refused else []
    lines += [f"    {snapshot_id}" for snapshot_id in doomed[:IDS_SHOWN]]
    if len(doomed) > IDS_SHOWN:
        lines.append(f"    and {len(doomed) - IDS_SHOWN:,} more")
    return lines


def status_lines(
    status: JobStatus,
    by_class: Mapping[str, int],
    store_limits: Mapping[str, Limits] | None = None,
    unreached: Sequence[Trouble] = (),
) -> list[str]:
    """
    Return everything that is known of a job, in words, a line for each kind of thing.

    *store_limits* are those of ``source`` and ``destination``, *unreached* what workers have with its stores.
    """
    trusted = f", {status.snapshots_trusted:,} trusted" if status.snapshots_trusted else ""
    healed = f", {status.healed:,} healed" if status.healed else ""
    classes = f" ({_classes(by_class)})" if by_class else ""
    speed = f"{size(rate(status))}/s" if rate(status) else ""
    fields = {
        "job": status.job_id,
        "state": state_words(status),
        "from": status.source,
        "to": status.destination,
        "snapshots": f"{status.snapshots_published:,} published{trusted}, {status.snapshots_failed:,} failed, of"
        f" {status.snapshots_total:,}",
        "objects": f"{status.objects_settled:,} of {status.objects_total:,} settled: {status.copied:,} copied,"
        f" {status.present:,} present, {status.failed:,} failed{classes}{healed}",
        "bytes": f"{size(status.bytes_settled)} of {size(status.bytes_total)} settled ({percent(status)}%),"
        f" {size(status.bytes_copied)} copied",
        "rate": ", ".join(part for part in (speed, left_words(status)) if part),
        "batches": f"{status.batches_done:,} done, {status.batches_handed:,} handed out, of"
        f" {status.batches_total:,}",
        "priority": status.priority if status.priority != Priority.NORMAL else "",
        "queue": status.queue,
        "limits": limit_words(status.limits),
        **{
            f"at {'to' if side == 'destination' else 'from'}": f"{words}, for all jobs together"
            for side, limits in (store_limits or {}).items()
            if (words := limit_words(limits))
        },
        "workers": ", ".join(status.workers),
        "deleted": f"{status.deleted:,} manifest{_s(status.deleted)}" if status.deleted else "",
        "submitted": _when(status.submitted_at),
        "started": _when(status.started_at),
        "ended": _when(status.ended_at),
        "reason": status.error,
    }
    lines = [printable(f"{name:<10} {value}") for name, value in fields.items() if value]
    if not status.state.final:
        lines += [trouble_words(one) for one in unreached]
    if said := hint(status):
        lines.append(said)
    return lines


def trouble_words(trouble: Trouble) -> str:
    """Return which worker cannot reach which store, since when, and why."""
    since = duration(time.time() - trouble.since)
    return printable(f"{trouble.worker} cannot reach {trouble.store} since {since}: {trouble.detail}")


def limit_words(limits: Limits) -> str:
    """Return what a job or a store keeps to, "" if it has no limits."""
    default = " (default)" if isinstance(limits, StoreLimits) and limits.by_default else ""
    parts = {
        "rate": f"{size(limits.rate)}/s" if limits.rate else "",
        "requests": f"{limits.requests:,} request{_s(limits.requests)}/s{default}" if limits.requests else "",
        "jobs": f"{limits.jobs:,} object{_s(limits.jobs)} in flight" if limits.jobs else "",
    }
    return ", ".join(part for part in parts.values() if part)


def _when(seconds: float) -> str:
    return f"{moment(seconds)} ({duration(time.time() - seconds)} ago)" if seconds else ""


def _classes(by_class: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(by_class.items()))


def job_row(status: JobStatus) -> tuple[str, ...]:
    """Return a job as a row of `JOBS_HEAD`."""
    ended = f"{duration(time.time() - status.ended_at)} ago" if status.ended_at else ""
    return (
        short(status.job_id),
        state_words(status),
        f"{status.snapshots_there:,}/{status.snapshots_total:,}",
        f"{100 * status.objects_settled // status.objects_total}%" if status.objects_total else "-",
        size(status.bytes_total),
        ended or f"for {duration(time.time() - status.submitted_at)}",
        printable(f"{bare(status.source)} → {bare(status.destination)}"),
    )


def snapshot_row(row: SnapshotRow) -> tuple[str, ...]:
    """Return a snapshot of a job as a row of `SNAPSHOTS_HEAD`."""
    if row.state == "pending":
        # What it has is known when it comes to its end; until then nothing is counted of it alone.
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


def failures_head(status: JobStatus, by_class: Mapping[str, int]) -> str:
    """Return how many objects of a job failed, and by what."""
    if not status.failed:
        return f"no object failed in job {status.job_id}"
    classes = f": {_classes(by_class)}" if by_class else ""
    return printable(f"{status.failed:,} object{_s(status.failed)} failed in job {status.job_id}{classes}")


def letter_lines(letter: DeadLetter) -> list[str]:
    """Return an object that failed, in words: what happened, and the places that wait for it."""
    if letter.known is None:
        lines = [f"{letter.address}  why is not kept: it is of the first failures only"]
    else:
        failure = letter.known.failure
        lines = [
            printable(f"{letter.address}  {failure.error} at {failure.store}: {failure.detail}"),
            printable(
                f"    tried {letter.known.attempts} time{_s(letter.known.attempts)}, last by {letter.known.worker}"
            ),
        ]
    shown = letter.places[:PLACES_SHOWN]
    lines += [f"    {short(snapshot_id)}  {printable(path)}" for snapshot_id, path in shown]
    if letter.places_total > len(shown):
        lines.append(f"    and {letter.places_total - len(shown):,} more")
    return lines


def bare(url: str) -> str:
    """Return a store's *url* without its parameters."""
    return url.split("?", 1)[0]


def _s(count: int) -> str:
    return "" if count == 1 else "s"
