"""
The ledger: what is known of each job, in Redis.

*accounted once*: a batch is counted by (job, series, number) however often it
is delivered; the counters move in the same step as the mark. What one delivery
copied, another finds present: so the most that any delivery of a batch found
missing is noted before it copies, and counts as copied in the end.
*true progress*: what is settled never exceeds the plan and never goes back,
and equals it when every batch is accounted for.
*final is final*: a job in a final state stays in it, and so do its counters.
*one at a time*: a running batch is leased to its worker; a second delivery steps
aside for as long as the lease is renewed. That saves work; nothing depends on it.

Keys of one job, all expiring together: ``snapferry:job:<id>`` (hash: request,
state, totals, counters), ``:done:<series>`` (bitmap of accounted batches),
``:running`` (hash: progress inside unaccounted batches), ``:begun`` and ``:needed`` (hashes:
how often each batch or step was begun, what it found missing), ``:failures``
(list, bounded), ``:lease:<series>:<number>`` (who runs a batch).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import redis

from .messages import BatchMessage, JobRequest
from .transfer import BatchOutcome, Failure

PLAN: Final = "plan"

# The failure list keeps this many; the count of failures is exact whatever its length.
FAILURES_KEPT: Final = 1000


class State(StrEnum):
    """
    Where a job stands.

    queued -> planning -> copying -> committing -> done, with a way back from
    committing to copying; from each of these to failed and cancelled. The last
    three are final.
    """

    QUEUED = "queued"
    PLANNING = "planning"
    COPYING = "copying"
    COMMITTING = "committing"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Say whether the state is one that a job never leaves."""
        return self in (State.DONE, State.FAILED, State.CANCELLED)


class UnknownJob(Exception):
    """The ledger has no such job: it was never submitted here, or its record expired."""


@dataclass(frozen=True)
class JobStatus:
    """
    A job at one moment. Sizes in bytes, times in seconds since the epoch (0.0: not yet).

    *objects_settled* and *bytes_settled* count against *objects_total* and
    *bytes_total*, which are the plan's (advisory sizes); *bytes_copied* is what
    was really read and written. *to_copy* and *bytes_to_copy* are the answer of a dry run,
    *missing_before* is how many batches were missing when some were last handed out again.
    """

    job_id: str
    snapshot_id: str
    state: State
    error: str
    objects_total: int
    bytes_total: int
    batches_total: int
    batches_done: int
    objects_settled: int
    bytes_settled: int
    copied: int
    present: int
    failed: int
    healed: int
    bytes_copied: int
    to_copy: int
    bytes_to_copy: int
    missing_before: int
    submitted_at: float
    started_at: float
    ended_at: float


@dataclass(frozen=True)
class Begun:
    """
    What a worker is told when it begins a batch.

    *accounted*: it is done. *stopped*: the job was cancelled or has ended. *holder*: who else runs it now,
    or empty. *times*: how often it was begun and not heard of again, this time included.
    """

    accounted: bool
    stopped: bool
    holder: str
    times: int


# A running batch is leased to its worker for this long; the worker renews the lease well before.
LEASE_S: Final = 30

# A step of a job (plan, commit) that was begun this often and never ended takes its orchestrators down with it.
MAX_STEPS: Final = 15

_CREATE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('HSET', KEYS[1], 'request', ARGV[1], 'state', 'queued', 'submitted_at', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""

_ADVANCE = """
local rank = {queued = 0, planning = 1, copying = 2, committing = 3, done = 4, failed = 4, cancelled = 4}
local state = redis.call('HGET', KEYS[1], 'state')
if not state or rank[state] == 4 then return 0 end
local heals = state == 'committing' and ARGV[1] == 'copying'
if rank[ARGV[1]] < rank[state] and not heals then return 1 end
redis.call('HSET', KEYS[1], 'state', ARGV[1])
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
for i = 1, #KEYS do redis.call('EXPIRE', KEYS[i], ARGV[2]) end
return 1
"""

# Whether a job wants no more work: it was cancelled, has ended, or is unknown.
_STOPPED = """
local function stopped(job)
  local state = redis.call('HGET', job, 'state')
  if not state or state == 'done' or state == 'failed' or state == 'cancelled' then return 1 end
  return redis.call('HEXISTS', job, 'cancel')
end
"""

_BEGIN = (
    _STOPPED
    + """
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return {1, 0, '', 0} end
if stopped(KEYS[1]) == 1 then return {0, 1, '', 0} end
local holder = redis.call('GET', KEYS[4])
if holder and holder ~= ARGV[4] and holder ~= ARGV[5] then return {0, 0, holder, 0} end
redis.call('SET', KEYS[4], ARGV[4], 'EX', ARGV[6])
local times = redis.call('HINCRBY', KEYS[3], ARGV[2], 1)
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[3]) end
return {0, 0, '', times}
"""
)

_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HINCRBY', KEYS[2], ARGV[2], -1)
return 1
"""

_NEED = """
local before = redis.call('HGET', KEYS[1], ARGV[1])
if before then
  local count, size = string.match(before, '(%d+) (%d+)')
  if tonumber(count) >= tonumber(ARGV[2]) then return 0 end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""

_PROGRESS = (
    _STOPPED
    + """
if redis.call('GET', KEYS[4]) == ARGV[6] then redis.call('EXPIRE', KEYS[4], ARGV[7]) end
local stop = stopped(KEYS[1])
if stop == 0 and redis.call('GETBIT', KEYS[2], ARGV[1]) == 0 then
  local objects, size = tonumber(ARGV[3]), tonumber(ARGV[4])
  local before = redis.call('HGET', KEYS[3], ARGV[2])
  if before then
    local o, b = string.match(before, '(%d+) (%d+)')
    objects, size = math.max(objects, tonumber(o)), math.max(size, tonumber(b))
  end
  redis.call('HSET', KEYS[3], ARGV[2], string.format('%.0f %.0f', objects, size))
  for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
end
return stop
"""
)

_ACCOUNT = """
local state = redis.call('HGET', KEYS[1], 'state')
if not state or state == 'done' or state == 'failed' or state == 'cancelled' then return 0 end
redis.call('HDEL', KEYS[3], ARGV[2])
if redis.call('GETBIT', KEYS[2], ARGV[1]) == 1 then return 0 end
local copied, present, failed = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local size, own_size = tonumber(ARGV[6]), tonumber(ARGV[12])
local needed = redis.call('HGET', KEYS[5], ARGV[2])
if needed then
  local count, needed_size = string.match(needed, '(%d+) (%d+)')
  local elsewhere = tonumber(count) - copied - failed
  if elsewhere > 0 then
    copied, present = copied + elsewhere, present - elsewhere
    size = size + tonumber(needed_size) - own_size
  end
end
redis.call('HINCRBY', KEYS[1], 'bytes_copied', string.format('%.0f', size))
if ARGV[9] == '1' then
  redis.call('HINCRBY', KEYS[1], 'copied', copied)
  redis.call('HINCRBY', KEYS[1], 'present', present)
  redis.call('HINCRBY', KEYS[1], 'objects_settled', ARGV[7])
  redis.call('HINCRBY', KEYS[1], 'bytes_settled', ARGV[8])
  redis.call('HINCRBY', KEYS[1], 'batches_done', 1)
else
  redis.call('HINCRBY', KEYS[1], 'healed', copied)
  local from_copied = math.min(failed, tonumber(redis.call('HGET', KEYS[1], 'copied') or '0'))
  -- 0 - x and not -x: Lua's -0 is no integer to Redis.
  redis.call('HINCRBY', KEYS[1], 'copied', 0 - from_copied)
  redis.call('HINCRBY', KEYS[1], 'present', from_copied - failed)
end
redis.call('HINCRBY', KEYS[1], 'failed', failed)
local room = tonumber(ARGV[11]) - redis.call('LLEN', KEYS[4])
for i = 13, math.min(#ARGV, 12 + room) do redis.call('RPUSH', KEYS[4], ARGV[i]) end
redis.call('SETBIT', KEYS[2], ARGV[1], 1)
for i = 1, 5 do redis.call('EXPIRE', KEYS[i], ARGV[10]) end
return 1
"""

_UNACCOUNTED = """
local found = {}
for number = 0, tonumber(ARGV[1]) - 1 do
  if redis.call('GETBIT', KEYS[1], number) == 0 then found[#found + 1] = number end
end
return found
"""


class Ledger:
    """
    The ledger on one Redis server.

    Every method may be called again with the same arguments and changes
    nothing by it, but `begin` and `begin_step`, which count their calls. All raise
    `redis.exceptions.RedisError` once the client's patience with an outage is
    at its end; whether the last write happened is then unknown.
    """

    def __init__(self, client: redis.Redis, *, expires_s: int) -> None:
        self._redis = client
        self._expires_s = expires_s
        self._create = client.register_script(_CREATE)
        self._advance = client.register_script(_ADVANCE)
        self._begin = client.register_script(_BEGIN)
        self._release = client.register_script(_RELEASE)
        self._need = client.register_script(_NEED)
        self._progress = client.register_script(_PROGRESS)
        self._account = client.register_script(_ACCOUNT)
        self._unaccounted = client.register_script(_UNACCOUNTED)

    def create(self, request: JobRequest) -> bool:
        """Open the record of a job; say whether it is new. An existing one is left as it is."""
        arguments: list[str | float] = [request.model_dump_json(), time.time(), self._expires_s]
        return bool(self._create(keys=[_key(request.job_id)], args=arguments))

    def request(self, job_id: str) -> JobRequest:
        """Return what was asked for. Raises `UnknownJob`, and pydantic's ValidationError for another version."""
        text = self._redis.hget(_key(job_id), "request")
        if text is None:
            raise UnknownJob(job_id)
        return JobRequest.model_validate_json(str(text))

    def advance(self, job_id: str, state: State, **fields: str | float) -> bool:
        """
        Move the job to *state* and set *fields*; say whether the job is still alive for it.

        False means that the job is in a final state already, or unknown. A
        step that is delivered late does not move the job back: nothing changes
        then, and the step may go on.
        """
        if state.final:
            fields["ended_at"] = time.time()
        pairs = [part for name, value in fields.items() for part in (name, value)]
        parts = (f"done:{PLAN}", "running", "begun", "needed", "failures")
        keys = [_key(job_id), *(_key(job_id, part) for part in parts)]
        return bool(self._advance(keys=keys, args=[state.value, self._expires_s, *pairs]))

    def plan(self, job_id: str, *, objects: int, size_bytes: int, batches: int) -> bool:
        """Record the plan's totals and move on to copying; False as for `advance`."""
        return self.advance(
            job_id, State.COPYING, objects_total=objects, bytes_total=size_bytes, batches_total=batches
        )

    def cancel(self, job_id: str) -> None:
        """Ask for the job to be cancelled. Workers see it at their next object, late ones too."""
        if self._redis.exists(_key(job_id)):
            self._redis.hset(_key(job_id), "cancel", "1")

    def cancelled(self, job_id: str) -> bool:
        """Say whether cancelling was asked for."""
        return bool(self._redis.hget(_key(job_id), "cancel"))

    def begin(self, batch: BatchMessage, holder: str, *, instead_of: str = "") -> Begun:
        """
        Lease *batch* to *holder* for `LEASE_S` seconds, unless it wants no more work or another has it.

        *instead_of* names a holder that is known to be dead: its lease is taken over. `progress` renews a lease.
        """
        keys = [_key(batch.job_id), _done(batch), _key(batch.job_id, "begun"), _lease(batch)]
        arguments: list[str | float] = [
            batch.number,
            _name(batch),
            self._expires_s,
            holder,
            instead_of,
            LEASE_S,
        ]
        accounted, stopped, other, times = self._begin(keys=keys, args=arguments)
        return Begun(accounted=bool(accounted), stopped=bool(stopped), holder=str(other), times=int(times))

    def release(self, batch: BatchMessage, holder: str) -> None:
        """Give the lease of *batch* back: its worker lives, so this beginning is no sign of a deadly batch."""
        self._release(keys=[_lease(batch), _key(batch.job_id, "begun")], args=[holder, _name(batch)])

    def begin_step(self, job_id: str, step: str) -> bool:
        """Note that an orchestrator begins *step* of a job; False once it was begun too often without an end."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hincrby(_key(job_id, "begun"), step, 1)
            pipe.expire(_key(job_id, "begun"), self._expires_s)
            times, _ = pipe.execute()
        return int(times) <= MAX_STEPS

    def end_step(self, job_id: str, step: str) -> None:
        """Note that *step* of a job ended, well or not: its beginnings count from none again."""
        self._redis.hdel(_key(job_id, "begun"), step)

    def need(self, batch: BatchMessage, *, objects: int, size_bytes: int) -> None:
        """Note what this delivery of *batch* found missing, before it copies any of it."""
        arguments: list[str | float] = [_name(batch), objects, size_bytes, self._expires_s]
        self._need(keys=[_key(batch.job_id, "needed")], args=arguments)

    def progress(self, batch: BatchMessage, holder: str, *, objects: int, size_bytes: int) -> bool:
        """Note how far *holder* is with a batch, of its own plan; renew its lease; say whether it should stop."""
        keys = [_key(batch.job_id), _done(batch), _key(batch.job_id, "running"), _lease(batch)]
        counts: list[str | float] = [batch.number, _name(batch), objects, size_bytes]
        arguments: list[str | float] = [*counts, self._expires_s, holder, LEASE_S]
        return bool(self._progress(keys=keys, args=arguments))

    def account(self, batch: BatchMessage, outcome: BatchOutcome) -> bool:
        """
        Count how *batch* ended; False if it was counted before or the job has ended, and then nothing changes.

        To be called only when everything that the outcome says is durable.
        """
        keys = [
            _key(batch.job_id),
            _done(batch),
            *(_key(batch.job_id, part) for part in ("running", "failures", "needed")),
        ]
        counts = [outcome.copied, outcome.present, len(outcome.failures), outcome.bytes_copied]
        planned = [len(batch.sizes), sum(batch.sizes), int(batch.series == PLAN)]
        kept = [json.dumps(asdict(failure)) for failure in outcome.failures[:FAILURES_KEPT]]
        arguments: list[str | float] = [
            batch.number,
            _name(batch),
            *counts,
            *planned,
            self._expires_s,
            FAILURES_KEPT,
            outcome.needed_bytes,
            *kept,
        ]
        return bool(self._account(keys=keys, args=arguments))

    def unaccounted(self, job_id: str, batches: int) -> list[int]:
        """Return the numbers of those of the plan's *batches* that are not accounted for."""
        return [
            int(number) for number in self._unaccounted(keys=[_key(job_id, f"done:{PLAN}")], args=[batches])
        ]

    def failures(self, job_id: str) -> list[Failure]:
        """Return the failed objects, the first `FAILURES_KEPT` of them."""
        lines: Iterable[Any] = self._redis.lrange(_key(job_id, "failures"), 0, -1)
        return [Failure(**json.loads(line)) for line in lines]

    def status(self, job_id: str) -> JobStatus:
        """Return where the job stands, in one consistent reading. Raises `UnknownJob`."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hgetall(_key(job_id))
            pipe.hgetall(_key(job_id, "running"))
            record, running = pipe.execute()
        if not record:
            raise UnknownJob(job_id)
        inside = [value.split() for name, value in running.items() if name.startswith(f"{PLAN}:")]

        def count(name: str) -> int:
            return int(record.get(name, 0))

        return JobStatus(
            job_id=job_id,
            snapshot_id=json.loads(record["request"])["snapshot_id"],
            state=State(record["state"]),
            error=record.get("error", ""),
            objects_total=count("objects_total"),
            bytes_total=count("bytes_total"),
            batches_total=count("batches_total"),
            batches_done=count("batches_done"),
            objects_settled=count("objects_settled") + sum(int(objects) for objects, _ in inside),
            bytes_settled=count("bytes_settled") + sum(int(size) for _, size in inside),
            copied=count("copied"),
            present=count("present"),
            failed=count("failed"),
            healed=count("healed"),
            bytes_copied=count("bytes_copied"),
            to_copy=count("to_copy"),
            bytes_to_copy=count("bytes_to_copy"),
            missing_before=count("missing_before"),
            submitted_at=float(record.get("submitted_at", 0)),
            started_at=float(record.get("started_at", 0)),
            ended_at=float(record.get("ended_at", 0)),
        )


def _key(job_id: str, part: str = "") -> str:
    return f"snapferry:job:{job_id}:{part}" if part else f"snapferry:job:{job_id}"


def _done(batch: BatchMessage) -> str:
    return _key(batch.job_id, f"done:{batch.series}")


def _lease(batch: BatchMessage) -> str:
    return _key(batch.job_id, f"lease:{_name(batch)}")


def _name(batch: BatchMessage) -> str:
    return f"{batch.series}:{batch.number}"
