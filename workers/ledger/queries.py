"""
What is told of jobs, read from Redis without a write.

*no transactions*: a full Redis refuses even reads inside MULTI. A script that only reads is one step as well, and is
answered by a full Redis and by a read-only replica.
*nothing is trusted*: whoever can write to Redis can write anything into a record. A record that cannot be read is
`UnreadableJob`, and costs that one job; texts are made fit for a terminal.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from snapferry.stores.text.printable import printable
from snapferry.workers.messages import Limits
from snapferry.workers.queues import NAME, Priority

from .keys import LIMITS, PLAN, keys
from .state import JobStatus, RunningBatch, State, UnknownJob, UnreadableJob, waiting_of

FIELDS: Final = (
    "state", "paused", "cancel", "dry_run", "priority", "queue", "source", "destination", "first_snapshot", "error",
    "snapshots_total", "published", "trusted", "unpublished", "objects_total", "bytes_total",
    "batches_total", "batches_handed", "batches_done", "objects_settled", "bytes_settled", "copied",
    "present", "failed", "healed", "deleted", "bytes_copied", "submitted_at", "started_at", "moved_at",
    "ended_at", "waits", "step_waits", *LIMITS.values(),
)  # fmt: skip
"""The fields of a record that a status is made of."""

# KEYS: job, running, holders, moves of each job. ARGV: fields.
# What is of another type than ours is an error of that job.
STATUSES: Final = """
local found = {}
for i = 1, #KEYS, 4 do
  local record = redis.pcall('HMGET', KEYS[i], unpack(ARGV))
  local running = redis.pcall('HGETALL', KEYS[i + 1])
  local holders = redis.pcall('HGETALL', KEYS[i + 2])
  local moves = redis.pcall('HGETALL', KEYS[i + 3])
  local wrong = record.err or running.err or holders.err or moves.err
  table.insert(found, wrong and {wrong} or {record, running, holders, moves})
end
return found
"""

# KEYS: leases, holders, running, moves of each job. Returns the server's time in seconds, then what is in them.
RUNNING: Final = """
local found = {redis.call('TIME')[1]}
for i = 1, #KEYS, 4 do
  local leases = redis.pcall('ZRANGE', KEYS[i], 0, -1, 'WITHSCORES')
  local holders = redis.pcall('HGETALL', KEYS[i + 1])
  local running = redis.pcall('HGETALL', KEYS[i + 2])
  local moves = redis.pcall('HGETALL', KEYS[i + 3])
  local wrong = leases.err or holders.err or running.err or moves.err
  table.insert(found, wrong and {{}, {}, {}, {}} or {leases, holders, running, moves})
end
return found
"""

# Counters are 64 bits in Redis.
_is_count: Final = re.compile(r"-?\d{1,19}").fullmatch
_is_moment: Final = re.compile(r"\d{1,10}\.\d{1,6}").fullmatch
_is_queue: Final = re.compile(NAME).fullmatch

_LONGEST_TEXT: Final = 16 * 1024


def keys_of_statuses(job_ids: Sequence[str]) -> list[str]:
    """Return the keys of `STATUSES` for *job_ids*."""
    return [name for job_id in job_ids for name in keys(job_id, "", "running", "holders", "moves")]


def keys_of_running(job_ids: Sequence[str]) -> list[str]:
    """Return the keys of `RUNNING` for *job_ids*."""
    return [name for job_id in job_ids for name in keys(job_id, "leases", "holders", "running", "moves")]


def status_of(job_id: str, answer: Sequence[Any]) -> JobStatus:
    """Return the status that one *answer* of `STATUSES` tells. Raises `UnknownJob`, `UnreadableJob`."""
    if len(answer) != 4:  # The server's words.
        raise UnreadableJob(job_id, str(answer[0])[:200])
    values, running, found_holders, found_moves = answer
    holders, moves, parts = (dict(_pairs(found)) for found in (found_holders, found_moves, running))
    record: dict[str, str | None] = dict(zip(FIELDS, values, strict=True))
    if record["state"] is None:
        raise UnknownJob(job_id)
    if record["state"] not in list(State):
        raise UnreadableJob(job_id, f"its state is {printable(record['state'][:40])!r}")

    def count(name: str) -> int:
        found = record[name] or "0"
        if not _is_count(found):
            raise UnreadableJob(job_id, f"{name} is {printable(found[:40])!r} and no number")
        return int(found)

    def moment(name: str) -> float:
        try:
            found = float(record[name] or 0)
        except ValueError:
            found = math.nan
        if not 0 <= found < 1e11:
            raise UnreadableJob(job_id, f"{name} is {printable(str(record[name])[:40])!r} and no time")
        return found

    def text(name: str) -> str:
        return printable((record[name] or "")[:_LONGEST_TEXT])

    def limit(name: str) -> int | None:
        found = count(name)
        return found if found > 0 else None

    inside = [progress(value) for name, value in parts.items() if name.startswith(f"{PLAN}:")]
    priority, queue = record["priority"] or "", record["queue"] or ""
    return JobStatus(
        job_id=job_id,
        state=State(record["state"]),
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
        deleted=count("deleted"),
        bytes_copied=count("bytes_copied"),
        workers=tuple(sorted({_worker(holder) for holder in holders.values() if holder})),
        submitted_at=moment("submitted_at"),
        started_at=moment("started_at"),
        moved_at=moment("moved_at"),
        ended_at=moment("ended_at"),
        waiting=None
        if State(record["state"]).final
        else waiting_of(record["step_waits"]) or waiting_of(record["waits"]),
        limits=Limits(**{name: limit(field) for name, field in LIMITS.items()}),
        running=()
        if State(record["state"]).final
        else tuple(
            _batch(job_id, name, holders[name], parts.get(name, ""), moves[name])
            for name in sorted(moves)
            if holders.get(name)
        ),
    )


def running_of(job_id: str, seconds: int, answer: Sequence[Any]) -> Iterator[RunningBatch]:
    """Yield the batches of a job that run, as *answer* of `RUNNING` tells them at the server's time in *seconds*."""
    leases, *rest = answer
    held, running, moves = (dict(_pairs(found)) for found in rest)
    for name, ends in _pairs(leases):
        holder = held.get(name)
        if holder and float(ends) >= seconds:
            yield _batch(job_id, name, holder, running.get(name, ""), moves.get(name, ""))


def _batch(job_id: str, name: str, holder: str, inside: str, moves: str) -> RunningBatch:
    """Return a batch that *holder* has, of which the ledger notes *inside* and *moves*."""
    objects, size_bytes = progress(inside)
    moved, _, rest = moves.partition(" ")
    in_flight = rest.partition(" ")[0]
    return RunningBatch(
        job_id,
        printable(name),
        _worker(holder),
        objects,
        size_bytes,
        max(0, int(in_flight)) if _is_count(in_flight) else 0,
        float(moved) if _is_moment(moved) else 0.0,
    )


def progress(found: str) -> tuple[int, int]:
    """Return the objects and bytes that a batch noted, none if that is no progress of a batch."""
    objects, _, size_bytes = found.partition(" ")
    return (int(objects), int(size_bytes)) if _is_count(objects) and _is_count(size_bytes) else (0, 0)


def _worker(holder: str) -> str:
    return printable(holder.partition("@")[2][:255])


def _pairs(flat: Sequence[str]) -> Iterator[tuple[str, str]]:
    return zip(flat[::2], flat[1::2], strict=True)
