"""The ledger as an orchestrator and an operator see it: jobs, their state, and what they came to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

import redis
from redis.client import NEVER_DECODE

from ..messages import JobRequest, Limits
from ..queues import Priority, copy_queue, lists, moves
from . import queue_scripts, scripts
from .batches import LEASE_S, BatchLedger
from .bitmaps import bit
from .keys import INDEX, KEPT, LIMITS, OPEN, PLAN, S3_REQUESTS, WORKING, done, key, keys
from .state import JobStatus, RunningBatch, Standing, State, UnknownJob, waiting_of

# A job whose orchestrator died this often while it was at it takes its orchestrators down with it.
MAX_DRIVES: Final = 15

_FIELDS: Final = (
    "state", "paused", "cancel", "dry_run", "priority", "queue", "source", "destination", "first_snapshot", "error",
    "snapshots_total", "published", "trusted", "unpublished", "objects_total", "bytes_total",
    "batches_total", "batches_handed", "batches_done", "objects_settled", "bytes_settled", "copied",
    "present", "failed", "healed", "deleted", "bytes_copied", "submitted_at", "started_at", "moved_at",
    "ended_at", "waits", "step_waits", *LIMITS.values(),
)  # fmt: skip


class Ledger(BatchLedger):
    """The whole ledger. What `BatchLedger` says of calling again and of errors holds here too, but for `drive`."""

    def __init__(self, client: redis.Redis, *, expires_s: int) -> None:
        super().__init__(client, expires_s=expires_s)

    def create(self, request: JobRequest, *, s3_requests: int | None = None) -> bool:
        """
        Open the record of a job; say whether it is new. An existing one is left as it is.

        *s3_requests* a second are what it keeps to at S3 stores whose requests nobody limited; None: any number.
        """
        ids = request.snapshot_ids
        fields: dict[str, str | float] = {
            "request": request.model_dump_json(exclude_defaults=False),
            "source": request.source.url,
            "destination": request.destination.url,
            "first_snapshot": ids[0] if ids else "",
            "snapshots_total": len(ids),
            "dry_run": int(request.dry_run),
            "priority": request.priority.value,
            "queue": request.queue,
            "patience": request.patience,
            **{LIMITS[name]: value for name, value in request.limits if value is not None},
            **({S3_REQUESTS: s3_requests} if s3_requests is not None else {}),
        }
        job_id = request.job_id
        return bool(
            self._run(scripts.CREATE, [key(job_id), INDEX, OPEN], [job_id, self._expires_s, *_pairs(fields)])
        )

    def request(self, job_id: str) -> JobRequest:
        """
        Return what was asked for, with the priority that holds now.

        Raises `UnknownJob`, and pydantic's ValidationError for another version.
        """
        request = JobRequest.model_validate_json(self.field(job_id, "request"))
        priority = Priority(self.field(job_id, "priority") or request.priority)
        return request.model_copy(update={"priority": priority})

    def prioritise(self, job_id: str, priority: Priority) -> tuple[State, int]:
        """
        Let the job's batches have *priority*, those that wait as well; return its state, and how many were moved.

        None is out of the queue for a moment. What an orchestrator hands out in that moment may still have the old
        one: called again, that is moved too. A job that has ended stays as it is. Raises `UnknownJob`.
        """
        pairs = moves(copy_queue(self.field(job_id, "queue")), priority)
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

    def note(self, job_id: str, **fields: str | float) -> bool:
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

    def drive(self, job_id: str, holder: str, *, instead_of: str = "") -> int:
        """
        Let *holder* alone drive the job for `LEASE_S` seconds; return how often that was begun and never ended.

        0: another drives it, and will be told by `park` to look again. -1: there is no such job. *instead_of*
        names a driver that is known to be dead.
        """
        return int(self._run(scripts.DRIVE, keys(job_id, "", "driver"), [holder, instead_of, LEASE_S]))

    def driver(self, job_id: str) -> str:
        """Return who drives the job, empty if nobody does."""
        return str(self._redis.get(key(job_id, "driver")) or "")

    def keep_driving(self, job_id: str, holder: str) -> None:
        """Renew the lease of *holder* on the job."""
        self._run(scripts.KEEP_DRIVING, keys(job_id, "driver"), [holder, LEASE_S])

    def park(self, job_id: str, holder: str, *, look_again: bool = True) -> bool:
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
        )
        return standing, not driven and int(job[9] or 0) > 0

    def driven(self, job_id: str) -> bool:
        """Say whether somebody drives the job."""
        return bool(self._redis.exists(key(job_id, "driver")))

    def hand_out_again(self, job_id: str, names: list[str]) -> None:
        """Note that batches are in the queue again: their leases, if any, are void."""
        if names:
            self._run(scripts.HAND_OUT_AGAIN, keys(job_id, "", "leases", "holders", "held"), [*names])

    def queued(self, queue: str, job_id: str) -> bool:
        """Say whether a task of the job is in a Celery *queue*; looks at every message."""
        return bool(self._run(queue_scripts.QUEUED, lists(queue), [_mark(job_id)]))

    def drop(self, queue: str) -> None:
        """Remove what kombu keeps of a Celery *queue* in which nothing waits."""
        self._redis.delete(f"_kombu.binding.{queue}", f"_kombu.binding_permanent.{queue}")

    def empty(self, queue: str) -> bool:
        """Say whether nothing waits in a Celery *queue*."""
        return not self._redis.exists(*lists(queue))

    def heal(self, job_id: str, group: int, *, turn: int, batches: int) -> None:
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

    def settle(self, job_id: str, group: int, rows: dict[int, list[Any]]) -> None:
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

    def tidy(self, job_id: str) -> None:
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
        return sorted(str(job_id) for job_id in self._redis.smembers(OPEN))

    def keep(self, job_id: str) -> None:
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
        return [str(job_id) for job_id in self._redis.zrevrange(INDEX, 0, -1)]

    def take(self, name: str, seconds: int) -> bool:
        """Take a mark that nobody else can take for so many seconds; say whether it was free."""
        return bool(self._redis.set(f"snapferry:mark:{name}", "1", nx=True, ex=seconds))

    def status(self, job_id: str) -> JobStatus:
        """Return where the job stands, in one consistent reading. Raises `UnknownJob`."""
        with self._redis.pipeline(transaction=True) as pipe:
            _ask(pipe, job_id)
            return self._told(job_id, pipe.execute())

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus]:
        """Return where many jobs stand, but for those that are unknown or in a state unknown to this version."""
        found = []
        for some in _pages(job_ids, 100):
            with self._redis.pipeline(transaction=True) as pipe:
                for job_id in some:
                    _ask(pipe, job_id)
                answers = pipe.execute()
            for at, job_id in enumerate(some):
                with suppress(UnknownJob, ValueError):
                    found.append(self._told(job_id, answers[3 * at : 3 * at + 3]))
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
        found = []
        for some in _pages(job_ids, 100):
            with self._redis.pipeline(transaction=True) as pipe:
                pipe.time()
                for job_id in some:
                    pipe.zrange(key(job_id, "leases"), 0, -1, withscores=True)
                    pipe.hgetall(key(job_id, "holders"))
                    pipe.hgetall(key(job_id, "running"))
                (seconds, _), *answers = pipe.execute()
            for at, job_id in enumerate(some):
                leases, holders, progress = answers[3 * at : 3 * at + 3]
                for name, ends in leases:
                    if ends >= seconds and (holder := holders.get(name)):
                        objects, size_bytes = progress.get(name, "0 0").split()
                        worker = holder.partition("@")[2]
                        found.append(RunningBatch(job_id, name, worker, int(objects), int(size_bytes)))
        return found

    @staticmethod
    def _told(job_id: str, answers: Sequence[Any]) -> JobStatus:
        values, running, holders = answers
        record = dict(zip(_FIELDS, values, strict=True))
        if record["state"] is None:
            raise UnknownJob(job_id)
        inside = [value.split() for name, value in running.items() if name.startswith(f"{PLAN}:")]

        def count(name: str) -> int:
            return int(record[name] or 0)

        def moment(name: str) -> float:
            return float(record[name] or 0)

        return JobStatus(
            job_id=job_id,
            state=State(record["state"]),
            paused=bool(record["paused"]),
            cancelling=bool(record["cancel"]),
            dry_run=record["dry_run"] == "1",
            priority=record["priority"] or Priority.NORMAL.value,
            queue=record["queue"] or "",
            source=record["source"] or "",
            destination=record["destination"] or "",
            first_snapshot=record["first_snapshot"] or "",
            error=record["error"] or "",
            snapshots_total=count("snapshots_total"),
            snapshots_published=count("published"),
            snapshots_trusted=count("trusted"),
            snapshots_failed=count("unpublished"),
            objects_total=count("objects_total"),
            bytes_total=count("bytes_total"),
            batches_total=count("batches_total"),
            batches_handed=count("batches_handed"),
            batches_done=count("batches_done"),
            objects_settled=count("objects_settled") + sum(int(objects) for objects, _ in inside),
            bytes_settled=count("bytes_settled") + sum(int(size) for _, size in inside),
            copied=count("copied"),
            present=count("present"),
            failed=count("failed"),
            healed=count("healed"),
            deleted=count("deleted"),
            bytes_copied=count("bytes_copied"),
            workers=tuple(sorted({holder.partition("@")[2] for holder in holders if holder})),
            submitted_at=moment("submitted_at"),
            started_at=moment("started_at"),
            moved_at=moment("moved_at"),
            ended_at=moment("ended_at"),
            waiting=None
            if State(record["state"]).final
            else waiting_of(record["step_waits"]) or waiting_of(record["waits"]),
            limits=Limits(**{name: count(field) or None for name, field in LIMITS.items()}),
        )


def _mark(job_id: str) -> str:
    """Return what the message of a job's task has in it, and no other."""
    return f'"root_id": "{job_id}"'


def _ask(pipe: Any, job_id: str) -> None:
    """Ask for the three things that a status is made of."""
    pipe.hmget(key(job_id), _FIELDS)
    pipe.hgetall(key(job_id, "running"))
    pipe.hvals(key(job_id, "holders"))


def _pages(job_ids: Sequence[str], length: int) -> Iterator[Sequence[str]]:
    for first in range(0, len(job_ids), length):
        yield job_ids[first : first + length]


def _pairs(fields: dict[str, str | float]) -> list[str | float]:
    return [part for name, value in fields.items() for part in (name, value)]
