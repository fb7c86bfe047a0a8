"""Records of the jobs that have parked batches: their parking queues, and how long they have waited for a store."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import redis

from snapferry.workers.ledger.keys import PARKED, UNPARKED, job_key
from snapferry.workers.ledger.queries import WAITS, halted_at
from snapferry.workers.ledger.schedules import number_of
from snapferry.workers.ledger.state import Waiting, waiting_of
from snapferry.workers.messages import BatchMessage, JobSpec, StoreRef
from snapferry.workers.queues import parking_queue
from snapferry.workers.redis_json import parse_json
from snapferry.workers.settings.environment import PATIENCE_S

from . import clock
from .sides import StoreSide


@dataclass(frozen=True)
class ParkedJob:
    """A job with parked batches; *queue* is the name of its own queue."""

    job_id: str
    queue: str
    source: StoreRef
    destination: StoreRef
    writes: bool = True

    @property
    def sides(self) -> tuple[StoreSide, StoreSide]:
        """The stores of the job."""
        return StoreSide(self.source, writing=False), StoreSide(self.destination, writing=self.writes)


class ParkedJobState(NamedTuple):
    """What a worker must know about a job with a parking queue. *state* is "" for a job whose record is gone."""

    state: str
    patience_s: float
    waits: Waiting | None
    given_up: str

    @property
    def ended(self) -> bool:
        """Whether the job has ended."""
        return self.state in ("", "done", "failed", "cancelled")


class ParkedJobs:
    """
    The records of jobs with parked batches, on one Redis server.

    Every method may be repeated. All raise `redis.exceptions.RedisError` when the client's retries are exhausted.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def park(self, job: BatchMessage | JobSpec, queue: str) -> None:
        """Record that *job*, or the job of a batch, has a parking queue; *queue* is the name of its own queue."""
        record = {
            "queue": queue,
            "source": job.source.model_dump(),
            "destination": job.destination.model_dump(),
            **({} if job.action.writes else {"writes": False}),
        }
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hdel(UNPARKED, parking_queue(queue, job.job_id))
            pipe.hsetnx(PARKED, job.job_id, json.dumps(record))
            pipe.execute()

    def all(self) -> list[ParkedJob]:
        """Return the jobs that have a parking queue."""
        found = []
        for job_id, text in self._redis.hgetall(PARKED).items():
            # A damaged record affects only its own job.
            with suppress(ValueError, KeyError, TypeError):
                record = parse_json(text)
                source, destination = (
                    StoreRef.model_validate(record[side]) for side in ("source", "destination")
                )
                writes = record.get("writes", True) is not False
                found.append(ParkedJob(str(job_id), str(record["queue"]), source, destination, writes))
        return found

    def unpark(self, job: ParkedJob) -> None:
        """Record that a job has ended and has no parking queue any more."""
        self.drain(parking_queue(job.queue, job.job_id))
        self._redis.hdel(PARKED, job.job_id)

    def drain(self, queue: str) -> None:
        """Let workers remove what is in the parking queue *queue* of a job that has ended, and what comes there."""
        self._redis.hset(UNPARKED, queue, clock.now(self._redis))

    def unparked_queues(self, linger_s: float) -> list[str]:
        """
        Return the parking queues of jobs that ended within the last *linger_s* seconds; forget the older ones.

        Redis may still restore messages of dead workers to these queues.
        """
        at = clock.now(self._redis)
        found = self._redis.hgetall(UNPARKED)
        for queue, since in found.items():
            if not at - float(since) <= linger_s:
                self._redis.hdel(UNPARKED, queue)
        return [str(queue) for queue in found]

    def state(self, job_id: str) -> ParkedJobState:
        """Return the state of a job, what it waits for, and how long it may wait."""
        names = ["state", "patience", "waits", "given_up"]
        state, patience, waits, given_up = self._redis.hmget(job_key(job_id), names)
        return ParkedJobState(
            state=str(state or ""),
            patience_s=float(patience) if patience else PATIENCE_S,
            waits=waiting_of(waits),
            given_up=str(given_up or ""),
        )

    def has_settled_objects(self, job_id: str) -> bool:
        """Return whether a job has copied objects, or found objects present at its destination."""
        copied, present = self._redis.hmget(job_key(job_id), ["copied", "present"])
        return int(copied or 0) + int(present or 0) > 0

    def begin_waiting(self, job_id: str, field: str, store: str, reason: str) -> tuple[float, float]:
        """
        Record in *field* of a job that it waits for *store*; return since when, and for how many seconds it has.

        The start time is kept from the first call; the reason is replaced.
        """
        at = clock.now(self._redis)
        before = waiting_of(self._redis.hget(job_key(job_id), field))
        since = before.since if before else at
        if self._redis.exists(job_key(job_id)):
            record = {"store": store, "reason": reason, "since": since}
            self._redis.hset(job_key(job_id), field, json.dumps(record))
        return since, at - since

    def give_up(self, job_id: str, reason: str) -> bool:
        """Let the parked batches of a job fail for *reason*; return whether the job was not given up before."""
        return bool(
            self._redis.exists(job_key(job_id)) and self._redis.hsetnx(job_key(job_id), "given_up", reason)
        )

    def stop_waiting(self, job_id: str, *fields: str) -> None:
        """
        Record that a job no longer waits, by deleting these *fields* of its record.

        The time that it waited does not count against its speed, nor that of a pause or of another wait at the same
        time, which goes on.
        """
        key = job_key(job_id)
        with self._redis.pipeline() as pipe:
            pipe.hmget(key, [*WAITS, "paused", "paused_at", "moved_at", "started_at"])
            pipe.hdel(key, *fields)
            (*found, paused, paused_at, moved_at, started_at), _ = pipe.execute()
        waits = {name: wait for name, text in zip(WAITS, found, strict=True) if (wait := waiting_of(text))}
        if not started_at or not waits.keys() & {*fields}:
            return
        pause = number_of(paused_at or "") if paused else None
        left = [wait for name, wait in waits.items() if name not in fields]
        since = halted_at(pause, number_of(moved_at or ""), [*waits.values()])
        now = clock.now(self._redis)
        # In this order, a number that somebody damaged does not count.
        until = min(now, halted_at(pause, number_of(moved_at or ""), left) or now)
        halted_s = until - max(number_of(started_at), since)
        if halted_s > 0 and self._redis.exists(key):
            self._redis.hincrbyfloat(key, "halted_s", round(halted_s, 6))
