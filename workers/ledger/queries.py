"""
The status of a job, made from its record in Redis.

*no transactions*: a full Redis refuses even reads inside MULTI. A script that only reads is one step as well, and a
full Redis and a read-only replica run it.
*nothing is trusted*: everyone who can write to Redis can write anything into a record. An unreadable record raises
`UnreadableJob` and affects that job alone. Texts are made safe for a terminal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from snapferry.stores.text.printable import printable
from snapferry.workers.job_state import State
from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import Action, Limits, is_job_id
from snapferry.workers.queues import NAME, Priority

from .keys import LIMIT_FIELDS, MIRROR, PLAN, job_keys
from .schedules import is_name
from .state import Dismissal, JobStatus, RunningBatch, UnknownJob, UnreadableJob, Waiting, waiting_of

DISMISSAL_FIELDS: Final = ("dismissed_at", "dismissed_by", "dismissed_why")
"""The fields of the record that make up a dismissal."""

WAITS: Final = ("step_waits", "waits")
"""The fields of the record that name the store for which the orchestrator of a job, or its workers, wait."""

FIELDS: Final = (
    "state", "paused", "cancel", "dry_run", "priority", "queue", "source", "destination", "first_snapshot", "error",
    "snapshots_total", "published", "trusted", "unpublished", "objects_total", "bytes_total",
    "batches_total", "batches_handed", "batches_done", "objects_settled", "bytes_settled", "copied",
    "present", "failed", "healed", "deleted", "bytes_copied", "bytes_hashed", "submitted_at", "started_at", "moved_at",
    "paused_at", "halted_s", "manifests_healed",
    "ended_at", "names_carried", "names_kept", "names_removed", "waits", "step_waits", "action", "bounded",
    "continues", "continued_by", "cause", "schedule", "chain_schedule", "source_objects", "confirmed:server",
    "snapshots_planned", "imported",
    *DISMISSAL_FIELDS,
    *LIMIT_FIELDS.values(),
)  # fmt: skip
"""The fields of the record that make up a status."""

# Counters are 64 bits in Redis.
_is_count: Final = re.compile(r"-?\d{1,19}").fullmatch
_is_time: Final = re.compile(r"\d{1,10}(\.\d{1,17})?").fullmatch
_is_moment: Final = re.compile(r"\d{1,10}\.\d{1,6}").fullmatch
BOUNDS: Final = ("max_bytes", "max_seconds")
"""The bounds that a job may reach, by the names of their options in `VerifyOptions`."""

_is_queue: Final = re.compile(NAME).fullmatch

_LONGEST_TEXT: Final = 16 * 1024

LONGEST_NOTE: Final = 500
"""Characters of who dismissed a job, and why, that are kept."""


def keys_of_statuses(job_ids: Sequence[str]) -> list[RedisKey]:
    """Return the keys that the script `STATUSES` reads for *job_ids*."""
    return [key for job_id in job_ids for key in job_keys(job_id, "", "running", "holders", "moves")]


def keys_of_running(job_ids: Sequence[str]) -> list[RedisKey]:
    """Return the keys that the script `RUNNING` reads for *job_ids*."""
    return [key for job_id in job_ids for key in job_keys(job_id, "leases", "holders", "running", "moves")]


def status_of(job_id: str, result: Sequence[Any]) -> JobStatus:
    """Return the status of a job from its *result* of `STATUSES`. Raises `UnknownJob`, `UnreadableJob`."""
    if len(result) != 4:  # The message of an error.
        raise UnreadableJob(job_id, str(result[0])[:200])
    values, running, found_holders, found_moves = result
    holders, moves, parts = (dict(_pairs(found)) for found in (found_holders, found_moves, running))
    record: dict[str, str | None] = dict(zip(FIELDS, values, strict=True))
    if record["state"] is None:
        raise UnknownJob(job_id)
    if record["state"] not in list(State):
        raise UnreadableJob(job_id, f"its state is {printable(record['state'][:40])!r}")
    action = record["action"] or Action.COPY.value
    if action not in list(Action):
        raise UnreadableJob(job_id, f"its action is {printable(action[:40])!r}")

    def count(name: str) -> int:
        found = record[name] or "0"
        if not _is_count(found):
            raise UnreadableJob(job_id, f"{name} is {printable(found[:40])!r}, not a number")
        return int(found)

    def moment(name: str) -> float:
        try:
            found = float(record[name] or 0)
        except ValueError:
            found = math.nan
        if not 0 <= found < 1e11:
            raise UnreadableJob(job_id, f"{name} is {printable(str(record[name])[:40])!r}, not a time")
        return found

    def text(name: str) -> str:
        return printable((record[name] or "")[:_LONGEST_TEXT])

    def limit(name: str) -> int | None:
        found = count(name)
        return found if found > 0 else None

    def other_job(name: str) -> str:
        found = record[name] or ""
        return found if is_job_id(found) else ""

    state = State(record["state"])
    waits = [wait for name in WAITS if (wait := waiting_of(record[name]))]
    inside = [_progress(value) for name, value in parts.items() if name.startswith(f"{PLAN}:")]
    priority, queue = record["priority"] or "", record["queue"] or ""
    return JobStatus(
        job_id=job_id,
        state=state,
        paused=bool(record["paused"]),
        cancelling=bool(record["cancel"]),
        dry_run=record["dry_run"] == "1",
        priority=priority if priority in list(Priority) else Priority.NORMAL.value,
        queue=queue if _is_queue(queue) else "",
        source=text("source"),
        destination=text("destination"),
        first_snapshot=text("first_snapshot"),
        error=text("error"),
        snapshots_total=count("snapshots_total"),
        snapshots_published=count("published"),
        snapshots_trusted=count("trusted"),
        snapshots_failed=count("unpublished"),
        objects_total=count("objects_total"),
        bytes_total=count("bytes_total"),
        batches_total=count("batches_total"),
        batches_handed=count("batches_handed"),
        batches_done=count("batches_done"),
        objects_settled=count("objects_settled") + sum(objects for objects, _ in inside),
        bytes_settled=count("bytes_settled") + sum(size for _, size in inside),
        copied=count("copied"),
        present=count("present"),
        failed=count("failed"),
        healed=count("healed"),
        copied_by_server=None
        if record["confirmed:server"] is None
        else min(count("confirmed:server"), count("copied")),
        deleted=count("deleted"),
        manifests_healed=count("manifests_healed"),
        names_carried=count("names_carried"),
        names_kept=count("names_kept"),
        names_removed=count("names_removed"),
        bytes_copied=count("bytes_copied"),
        bytes_hashed=count("bytes_hashed"),
        workers=tuple(sorted({_worker(holder) for holder in holders.values() if holder})),
        submitted_at=moment("submitted_at"),
        started_at=moment("started_at"),
        moved_at=moment("moved_at"),
        ended_at=moment("ended_at"),
        halted_at=halted_at(
            moment("paused_at") if record["paused"] else None, moment("moved_at"), waits, state
        ),
        halted_s=moment("halted_s"),
        waiting=waits[0] if waits and not state.final else None,
        action=Action(action),
        cause=text("cause"),
        source_objects=text("source_objects"),
        snapshots_planned=count("snapshots_planned"),
        imported=bool(record["imported"]),
        bounded=record["bounded"] if record["bounded"] in BOUNDS else "",
        continues=other_job("continues"),
        continued_by=other_job("continued_by"),
        mirror=mirror_of(record["schedule"] or record["chain_schedule"]),
        dismissed=dismissal_of(*(record[name] for name in DISMISSAL_FIELDS)),
        limits=Limits(**{name: limit(field) for name, field in LIMIT_FIELDS.items()}),
        running=()
        if State(record["state"]).final
        else tuple(
            _batch(job_id, name, holders[name], parts.get(name, ""), moves[name])
            for name in sorted(moves)
            if holders.get(name)
        ),
    )


def mirror_of(schedule: str | None) -> str:
    """Return the name in a field such as ``mirror:nightly``, "" for a scrub, none, and what somebody damaged."""
    kind, _, name = (schedule or "").partition(":")
    return name if kind == MIRROR and is_name(name) else ""


def dismissal_of(at: str | None, by: str | None, why: str | None) -> Dismissal | None:
    """Return the dismissal of a job from its fields, None if it was not dismissed."""
    if not at:
        return None
    found = float(at) if _is_time(at) else 0.0
    return Dismissal(found, printable((by or "")[:LONGEST_NOTE]), printable((why or "")[:LONGEST_NOTE]))


def halted_at(
    paused_at: float | None, moved_at: float, waits: Sequence[Waiting], state: State = State.COPYING
) -> float:
    """
    Return since when a job in this *state* is paused or waits for a store, 0.0 if it does neither.

    A job may have failed after a wait, or been cancelled in a pause. *paused_at* is None if the job is not paused, and
    0.0 or outdated if a process of an earlier version paused it.
    """
    found = [] if state is State.DONE else [wait.since for wait in waits]
    if paused_at is not None:
        # Objects in flight go on for a while. `moved_at` of a job that has ended is its end.
        found.append(paused_at if state.final else max(paused_at, moved_at))
    return min(found, default=0.0)


def running_of(job_id: str, seconds: int, result: Sequence[Any]) -> Iterator[RunningBatch]:
    """Yield the running batches of a job from its *result* of `RUNNING`, at the server's time in *seconds*."""
    leases, *rest = result
    holders, running, moves = (dict(_pairs(found)) for found in rest)
    for name, ends in _pairs(leases):
        holder = holders.get(name)
        if holder and float(ends) >= seconds:
            yield _batch(job_id, name, holder, running.get(name, ""), moves.get(name, ""))


def _batch(job_id: str, name: str, holder: str, running: str, moves: str) -> RunningBatch:
    """Return the batch *name*, which *holder* runs, from its fields in ``:running`` and ``:moves``."""
    objects, size_bytes = _progress(running)
    # Workers of earlier versions do not report the bytes that they move and hash.
    moved_at, in_flight, _, _, moved, hashed = [*moves.split(" "), *[""] * 6][:6]
    return RunningBatch(
        job_id,
        printable(name),
        _worker(holder),
        objects,
        size_bytes,
        max(0, int(in_flight)) if _is_count(in_flight) else 0,
        float(moved_at) if _is_moment(moved_at) else 0.0,
        max(0, int(moved)) if _is_count(moved) else 0,
        max(0, int(hashed)) if _is_count(hashed) else 0,
    )


def _progress(found: str) -> tuple[int, int]:
    """Return the settled objects and bytes of a batch, (0, 0) if the text is unreadable."""
    objects, _, size_bytes = found.partition(" ")
    return (int(objects), int(size_bytes)) if _is_count(objects) and _is_count(size_bytes) else (0, 0)


def _worker(holder: str) -> str:
    return printable(holder.partition("@")[2][:255])


def _pairs(flat: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)
