"""The ledger as an orchestrator and an operator see it: jobs, their state, and what they came to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import redis
from redis.client import NEVER_DECODE
from redis.exceptions import NoPermissionError, ResponseError

from snapferry.stores.text.printable import printable
from snapferry.workers.messages import JobSpec, is_job_id
from snapferry.workers.queues import Priority, copy_queue, lists, moves, parking_queue

from . import queries, queue_scripts, scripts
from .batches import LEASE_S, BatchLedger
from .bitmaps import bit
from .keys import BUDGET, INDEX, KEPT, LIMITS, OPEN, PLAN, S3_REQUESTS, WORKING, done, key, keys
from .state import Directive, JobStatus, RunningBatch, Spent, Standing, State, UnknownJob, UnreadableJob

# A job whose orchestrator died this often while it was at it takes its orchestrators down with it.
MAX_DRIVES: Final = 15


class Ledger(BatchLedger):
    """The whole ledger. What `BatchLedger` promises holds here too, except that `start_driving` counts its calls."""

    def __init__(self, client: redis.Redis, *, expires_s: int) -> None:
        super().__init__(client, expires_s=expires_s)

    def create(self, spec: JobSpec, *, s3_requests: int | None = None) -> bool:
        """
        Open the record of a job; say whether it is new. An existing one is left as it is.

        *s3_requests* a second are what it keeps to at S3 stores whose requests nobody limited; None: any number.
        """
        ids = spec.snapshot_ids
        fields: dict[str, str | float] = {
            "request": spec.model_dump_json(exclude=spec.new_defaults()),
            "source": spec.source.url,
            "destination": spec.destination.url,
            "first_snapshot": ids[0] if ids else "",
            "snapshots_total": len(ids),
            "dry_run": int(spec.dry_run),
            "priority": spec.priority.value,
            "queue": spec.queue,
            "patience": spec.patience,
            **({BUDGET: spec.budget.model_dump_json()} if spec.budget.limited else {}),
            **{LIMITS[name]: value for name, value in spec.limits if value is not None},
            **({S3_REQUESTS: s3_requests} if s3_requests is not None else {}),
        }
        job_id = spec.job_id
        return bool(
            self._run(scripts.CREATE, [key(job_id), INDEX, OPEN], [job_id, self._expires_s, *_pairs(fields)])
        )

    def withdraw(self, job_id: str) -> bool:
        """Remove the record of a job that nobody has begun; say whether it is gone now. May be called again."""
        return bool(self._run(scripts.WITHDRAW, [key(job_id), INDEX, OPEN], [job_id]))

    def spec(self, job_id: str) -> JobSpec:
        """
        Return what was asked for, with the priority that holds now.

        Raises `UnknownJob`, and pydantic's ValidationError for another version.
        """
        spec = JobSpec.model_validate_json(self.field(job_id, "request"))
        if spec.job_id != job_id:
            raise UnreadableJob(job_id, "it has the request of another job")
        found = self.field(job_id, "priority")
        priority = Priority(found) if found in list(Priority) else spec.priority
        return spec.model_copy(update={"priority": priority})

    def prioritise(self, job_id: str, priority: Priority) -> tuple[State, int]:
        """
        Let the job's batches have *priority*, those that wait as well; return its state, and how many were moved.

        None is out of the queue for a moment. What an orchestrator hands out in that moment may still have the old
        one: called again, that is moved too. A job that has ended stays as it is. Raises `UnknownJob`.
        """
        name = self.field(job_id, "queue")
        pairs = [*moves(copy_queue(name), priority), *moves(parking_queue(name, job_id), priority)]
        queues = [name for pair in pairs for name in pair]
        state, moved = self._run(
            queue_scripts.PRIORITISE, [key(job_id), *queues], [priority.value, _mark(job_id)]
        )
        return self._state(job_id, state), int(moved)

    def field(self, job_id: str, name: str) -> str:
        """Return one field of the job's record, "" where it has none. Raises `UnknownJob`."""
        state, value = self._redis.hmget(key(job_id), ["state", name])
        if state is None:
            raise UnknownJob(job_id)
        return str(value or "")

    def over_budget(self, job_id: str) -> Spent | None:
        """Return what a job has spent that is over its budget, None for every other one."""
        names = ("over", "spent_bytes", "spent_objects", "spent_cost")
        over, *totals = self._redis.hmget(key(job_id), names)
        size_bytes, objects, cost = (int(total or 0) for total in totals)
        return Spent(str(over), size_bytes, objects, cost) if over else None

    def advance(self, job_id: str, state: State, **fields: str | float) -> bool:
        """
        Move the job to *state* and set *fields*; say whether the job is still alive for it.

        False means that the job is in a final state already, or unknown. A
        step that is delivered late does not move the job back: nothing changes
        then, and the step may go on.
        """
        all_keys = [OPEN, key(job_id), done(job_id, PLAN), *keys(job_id, *KEPT, *WORKING)]
        return bool(
            self._run(scripts.ADVANCE, all_keys, [job_id, self._expires_s, state.value, *_pairs(fields)])
        )

    def set_fields(self, job_id: str, **fields: str | float) -> bool:
        """Set *fields* of a job; False, and nothing is set, if it has ended or is unknown."""
        return bool(self._run(scripts.NOTE, [key(job_id)], [self._expires_s, *_pairs(fields)]))

    def cancel(self, job_id: str) -> State:
        """
        Ask for the job to be cancelled; return its state. Workers see it at their next object, late ones too.

        A job that nobody has begun is cancelled at once. Raises `UnknownJob`.
        """
        return self._state(job_id, self._run(scripts.CANCEL, [key(job_id), OPEN], [job_id]))

    def pause(self, job_id: str, *, paused: bool) -> State:
        """Hold the hand-out of batches, or let it go on; return the job's state. Raises `UnknownJob`."""
        return self._state(job_id, self._run(scripts.PAUSE, [key(job_id)], [int(paused)]))

    @staticmethod
    def _state(job_id: str, state: str) -> State:
        if not state:
            raise UnknownJob(job_id)
        return State(state)

    def start_driving(self, job_id: str, holder: str, *, instead_of: str = "") -> int:
        """
        Let *holder* alone drive the job for `LEASE_S` seconds; return how often that was begun and never ended.

        0: another drives it, and will be told by `stop_driving` to look again. -1: there is no such job. *instead_of*
        names a driver that is known to be dead.
        """
        return int(self._run(scripts.DRIVE, keys(job_id, "", "driver"), [holder, instead_of, LEASE_S]))

    def directive(self, job_id: str) -> Directive:
        """Return what the job wants of what is done for it: to go on, to stop, or to be held until it goes on."""
        state, cancel, paused = self._redis.hmget(key(job_id), ["state", "cancel", "paused"])
        if state is None or State(str(state)).final or cancel is not None:
            return Directive.STOP
        return Directive.HOLD if paused is not None else Directive.CONTINUE

    def driver(self, job_id: str) -> str:
        """Return who drives the job, empty if nobody does."""
        return str(self._redis.get(key(job_id, "driver")) or "")

    def keep_driving(self, job_id: str, holder: str) -> None:
        """Renew the lease of *holder* on the job."""
        self._run(scripts.KEEP_DRIVING, keys(job_id, "driver"), [holder, LEASE_S])

    def stop_driving(self, job_id: str, holder: str, *, look_again: bool = True) -> bool:
        """Drive the job no longer; True, and the lease is kept, if somebody wanted it driven in the meantime."""
        arguments: list[str | float] = [holder, LEASE_S, int(look_again)]
        return bool(self._run(scripts.PARK, keys(job_id, "", "driver"), arguments))

    def standing(self, job_id: str) -> Standing:
        """Return what decides on the job's next step. Raises `UnknownJob`."""
        return self._standing(job_id)[0]

    def neglected(self, job_id: str) -> tuple[Standing, bool]:
        """Return the same, and whether somebody drove the job, did not end it, and is gone. Raises `UnknownJob`."""
        return self._standing(job_id)

    def _standing(self, job_id: str) -> tuple[Standing, bool]:
        try:
            return self._read_standing(job_id)
        except NoPermissionError:
            raise
        except (ValueError, TypeError, ResponseError) as error:
            # What is in it is no number, or a key is of another type.
            raise UnreadableJob(job_id, printable(str(error)[:200])) from error

    def _read_standing(self, job_id: str) -> tuple[Standing, bool]:
        found = self._run(
            scripts.STANDING, keys(job_id, "", "leases", "held", "heals", "driver", "holders"), []
        )
        if not found:
            raise UnknownJob(job_id)
        job, expired, overdue, leased, running, held, heals, driven = found
        turns = {int(group): json.loads(turn) for group, turn in zip(heals[::2], heals[1::2], strict=True)}
        standing = Standing(
            state=State(job[0]),
            paused=bool(job[1]),
            cancelling=bool(job[2]),
            handed=int(job[3] or 0),
            done=int(job[4] or 0),
            failed=int(job[5] or 0),
            expired=tuple(expired),
            overdue=tuple(overdue),
            held=tuple(held),
            leased=int(leased),
            running=int(running),
            idle_s=float(job[6]),
            heals={group: (turn, batches) for group, (turn, batches) in turns.items()},
            stalls=int(job[7] or 0),
            stalled_done=int(job[8] or 0),
            waiting=bool(job[10]),
            begins=int(job[11] or 0),
            stalled_begins=int(job[12] or 0),
        )
        return standing, not driven and int(job[9] or 0) > 0

    def driven(self, job_id: str) -> bool:
        """Say whether somebody drives the job."""
        return bool(self._redis.exists(key(job_id, "driver")))

    def note_requeued(self, job_id: str, names: list[str]) -> None:
        """Note that batches are in the queue again: their leases, if any, are void."""
        if names:
            self._run(scripts.HAND_OUT_AGAIN, keys(job_id, "", "leases", "holders", "held"), [*names])

    def has_queued_task(self, queue: str, job_id: str) -> bool:
        """Say whether a task of the job is in a Celery *queue*; looks at every message."""
        return bool(self._run(queue_scripts.QUEUED, lists(queue), [_mark(job_id)]))

    def remove_queue(self, queue: str) -> None:
        """Remove a Celery *queue*, with what is in it and what kombu keeps of it."""
        self._redis.delete(*lists(queue), f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}")

    def is_queue_empty(self, queue: str) -> bool:
        """Say whether nothing waits in a Celery *queue*."""
        return not self._redis.exists(*lists(queue))

    def note_healing(self, job_id: str, group: int, *, turn: int, batches: int) -> None:
        """Note that *group* is being healed, for the *turn*-th time, by so many batches."""
        self._redis.hset(key(job_id, "heals"), str(group), json.dumps([turn, batches]))
        self._redis.expire(key(job_id, "heals"), self._expires_s)

    def unaccounted(self, job_id: str, series: str, batches: range) -> list[int]:
        """Return the numbers of those of *batches* of a series that are not accounted for."""
        found = self._bits(done(job_id, series))
        return [number for number in batches if not bit(found, number)]

    def bitmap(self, job_id: str, part: str) -> bytes:
        """Return a bitmap over the plan's objects: ``copied`` or ``failed``. Bit 0 is the highest of the first byte."""
        return self._bits(key(job_id, part))

    def _bits(self, name: str) -> bytes:
        # Not text: the one answer that must come as it is.
        ask: Any = self._redis.execute_command
        found: bytes | None = ask("GET", name, **{NEVER_DECODE: []})
        return found or b""

    def record_group(self, job_id: str, group: int, rows: dict[int, list[Any]]) -> None:
        """Record how snapshots of *group* ended: index -> row."""
        self._redis.hset(key(job_id, "groups"), str(group), json.dumps(rows, separators=(",", ":")))
        self._redis.expire(key(job_id, "groups"), self._expires_s)

    def groups(self, job_id: str) -> dict[int, dict[int, list[Any]]]:
        """Return how the snapshots ended that did: group -> index -> row."""
        found = self._redis.hgetall(key(job_id, "groups"))
        return {
            int(group): {int(index): row for index, row in json.loads(rows).items()}
            for group, rows in found.items()
        }

    def remove_working_keys(self, job_id: str) -> None:
        """Remove what only a job that goes on needs."""
        series = [done(job_id, f"heal-{name}") for name in self._heal_names(job_id)]
        self._redis.delete(*keys(job_id, *WORKING, "driver"), *series)

    def _heal_names(self, job_id: str) -> list[str]:
        heals: dict[str, str] = self._redis.hgetall(key(job_id, "heals"))  # type: ignore[assignment]
        return [
            f"{group}-{turn}"
            for group, record in heals.items()
            for turn in range(1, json.loads(record)[0] + 1)
        ]

    def failed_by_class(self, job_id: str) -> dict[str, int]:
        """Return how many objects failed, by the class of their errors; exact however many there are."""
        return {str(name): int(count) for name, count in self._redis.hgetall(key(job_id, "classes")).items()}

    def open_jobs(self) -> list[str]:
        """Return the ids of all jobs that have not ended."""
        return sorted(filter(is_job_id, map(str, self._redis.smembers(OPEN))))

    def renew_expiry(self, job_id: str) -> None:
        """Let no part of the job's record expire before the others: count from now on for all of them."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in (key(job_id), done(job_id, PLAN), *keys(job_id, *KEPT, *WORKING)):
                pipe.expire(name, self._expires_s)
            pipe.execute()

    def forget(self, job_id: str) -> None:
        """Drop an id from the lists of jobs, if its record is gone."""
        if not self._redis.exists(key(job_id)):
            self._redis.srem(OPEN, job_id)
            self._redis.zrem(INDEX, job_id)

    def job_ids(self) -> list[str]:
        """Return the ids of all jobs, the latest first."""
        return list(filter(is_job_id, map(str, self._redis.zrevrange(INDEX, 0, -1))))

    def claim_mark(self, name: str, seconds: int) -> bool:
        """Take a mark that nobody else can take for so many seconds; say whether it was free."""
        return bool(self._redis.set(f"snapferry:mark:{name}", "1", nx=True, ex=seconds))

    def status(self, job_id: str) -> JobStatus:
        """Return where the job stands, in one consistent reading. Raises `UnknownJob`."""
        (answer,) = self._run(queries.STATUSES, queries.keys_of_statuses([job_id]), [*queries.FIELDS])
        return queries.status_of(job_id, answer)

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return where many jobs stand, but for those that are unknown or cannot be read by this version."""
        found = []
        for some in _pages(job_ids, 100):
            answers = self._run(queries.STATUSES, queries.keys_of_statuses(some), [*queries.FIELDS])
            for job_id, answer in zip(some, answers, strict=True):
                with suppress(UnknownJob):
                    found.append(queries.status_of(job_id, answer))
        return found

    def states(self, job_ids: Sequence[str]) -> list[str]:
        """Return the state of each job, "" for one that is unknown."""
        found: list[str] = []
        for some in _pages(job_ids, 1000):
            with self._redis.pipeline(transaction=False) as pipe:
                for job_id in some:
                    pipe.hget(key(job_id), "state")
                found += [str(state or "") for state in pipe.execute()]
        return found

    def running(self, job_ids: Sequence[str]) -> list[RunningBatch]:
        """Return the batches of these jobs that a worker has right now: those whose leases are renewed."""
        found: list[RunningBatch] = []
        for some in _pages(job_ids, 100):
            seconds, *answers = self._run(queries.RUNNING, queries.keys_of_running(some), [])
            for job_id, answer in zip(some, answers, strict=True):
                found += queries.running_of(job_id, int(seconds), answer)
        return found


def _mark(job_id: str) -> str:
    """Return what the message of a job's task has in it, and no other."""
    return f'"root_id": "{job_id}"'


def _pages(job_ids: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(job_ids), length):
        yield job_ids[first : first + length]


def _pairs(fields: dict[str, str | float]) -> list[str | float]:
    return [part for name, value in fields.items() for part in (name, value)]
