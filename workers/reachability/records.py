"""
Which worker cannot reach which store, and which jobs wait for that: as Redis knows it, for the whole fleet.

A worker that finds a store away, or itself refused by it, records that here. It
then takes no batch that needs the store until a check of the store succeeds. Its
batches go to the parking queue of their job, from which workers take that can
reach both stores. If no live worker can, the job waits.

*kinds*: a store that is *away* gave no answer, so it is waited for. A store that
*refused* the worker answered: missing rights, no such bucket, no mount here. That
is not waited for unless another worker may still succeed.
*trial*: a check succeeded, but no object was copied yet. The worker takes batches
again. If the next batch fails as well, the trouble goes on from its old beginning.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

import redis

from snapferry.stores.errors import StoreError
from snapferry.workers.ledger.keys import PARKED, UNPARKED, job_key
from snapferry.workers.ledger.state import Waiting, waiting_of
from snapferry.workers.messages import BatchMessage, JobSpec, StoreRef
from snapferry.workers.queues import parking_queue
from snapferry.workers.settings.environment import PATIENCE_S

# A worker that has not announced itself for so long is gone.
ROSTER_S: Final = 20.0

# A job is not given up for what the live workers are refused, within this time, if other workers may come back.
RETURN_S: Final = 60.0

# A job whose patience is over is given up only if a store was found away within this time.
LATELY_S: Final = 30.0

# How long what is known of a worker and a store is kept, at most.
_KEPT_S: Final = 7 * 86400

# After a store was away, so long an object's passing trouble is taken for more of the same.
RECENT_S: Final = 30

# A job begins to wait so long after its first batch was parked, at most.
NEW_S: Final = 5.0

# Pauses between two checks: the first one and the longest.
_AWAY_PAUSES: Final = 0.5, 5.0
_REFUSED_PAUSES: Final = 5.0, 60.0

_ROSTER: Final = "snapferry:workers"


class Kind(StrEnum):
    """Why a worker cannot reach a store."""

    AWAY = "away"
    REFUSED = "refused"


class StoreSide(NamedTuple):
    """A store of a job as one of its two sides: *writing* for the destination."""

    ref: StoreRef
    writing: bool

    @property
    def name(self) -> str:
        """What the side goes by in Redis."""
        text = json.dumps([self.writing, self.ref.url, self.ref.objects_url])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def sides_of(work: BatchMessage | JobSpec) -> tuple[StoreSide, StoreSide]:
    """Return source and destination of a batch or of a job."""
    return StoreSide(work.source, writing=False), StoreSide(work.destination, writing=True)


@dataclass(frozen=True)
class Trouble:
    """
    What one worker has with one store.

    *store* is the label, *error* the class's name, *detail* its words; *since* is when it began, *at* when it was
    last found, *next* when the store is checked again, all by the clock of Redis. *tries* is how many checks failed,
    *trial* whether the last one succeeded.
    """

    worker: str
    store: str
    kind: str
    error: str
    detail: str
    since: float
    at: float = 0.0
    tries: int = 0
    next: float = 0.0
    trial: bool = False


@dataclass(frozen=True)
class ParkedJob:
    """A job some of whose batches were parked; *queue* is the name of its own queue."""

    job_id: str
    queue: str
    source: StoreRef
    destination: StoreRef

    @property
    def sides(self) -> tuple[StoreSide, StoreSide]:
        """The stores of the job."""
        return StoreSide(self.source, writing=False), StoreSide(self.destination, writing=True)


class Reach(NamedTuple):
    """What a worker is told when it begins a batch: its *troubles* with the two stores, and the state of the job."""

    troubles: tuple[Trouble, ...]
    waits: bool
    given_up: str


class ReachBook:
    """
    What is known of workers and stores, on one Redis server.

    Every method may be called again. All raise `redis.exceptions.RedisError`
    once the client's patience with an outage is at its end.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    # Of a worker and a store

    def of_batch(self, job_id: str, worker: str, sides: Sequence[StoreSide]) -> Reach:
        """Return what *worker* must know before it copies a batch."""
        with self._redis.pipeline(transaction=False) as pipe:
            for side in sides:
                pipe.hget(_trouble_key(side), worker)
            pipe.hmget(job_key(job_id), ["waits", "flaps", "given_up"])
            *found, (waits, flaps, given_up) = pipe.execute()
        return Reach(
            tuple(_trouble(text) for text in found if text), bool(waits or flaps), str(given_up or "")
        )

    def troubles(self, sides: Collection[StoreSide]) -> dict[str, list[Trouble]]:
        """Return the troubles of all workers with each of *sides*, by the name of the side."""
        with self._redis.pipeline(transaction=False) as pipe:
            for side in sides:
                pipe.hvals(_trouble_key(side))
            answers = pipe.execute()
        return {
            side.name: sorted((_trouble(text) for text in found), key=lambda one: one.worker)
            for side, found in zip(sides, answers, strict=True)
        }

    def failed(
        self, side: StoreSide, worker: str, error: StoreError, kind: Kind, *, pause_s: float
    ) -> Trouble:
        """Record that *worker* does not reach a store; it is to be checked again *pause_s* seconds from now."""
        at = self.now()
        before = self._redis.hget(_trouble_key(side), worker)
        known = _trouble(before) if before else None
        trouble = Trouble(
            worker=worker,
            store=error.store,
            kind=kind.value,
            error=type(error).__name__,
            detail=error.detail,
            since=known.since if known else at,
            at=at,
            tries=known.tries + 1 if known else 1,
            next=at + pause_s,
        )
        self._put(side, trouble)
        if kind is Kind.AWAY:
            self._redis.set(_recent_key(side), "1", ex=RECENT_S)
        return trouble

    def answered(self, side: StoreSide, trouble: Trouble) -> None:
        """Record that a check of a store succeeded: the worker may try a batch again."""
        self._put(side, replace(trouble, trial=True))

    def reached(self, side: StoreSide, worker: str) -> None:
        """Record that *worker* copied something from or to a store: it has no trouble there, and knows the store."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hdel(_trouble_key(side), worker)
            pipe.hset(_reached_key(side), worker, "1")
            pipe.expire(_reached_key(side), _KEPT_S)
            pipe.execute()

    def forget(self, side: StoreSide, worker: str) -> None:
        """Drop what is known of *worker*'s trouble with a store."""
        self._redis.hdel(_trouble_key(side), worker)

    def reached_before(self, side: StoreSide, worker: str) -> bool:
        """Say whether *worker* has reached a store before."""
        return bool(self._redis.hexists(_reached_key(side), worker))

    def recently_away(self, sides: Sequence[StoreSide]) -> bool:
        """Say whether one of *sides* was found away within the last `RECENT_S` seconds, by any worker."""
        return bool(self._redis.exists(*map(_recent_key, sides)))

    def _put(self, side: StoreSide, trouble: Trouble) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(_trouble_key(side), trouble.worker, json.dumps(asdict(trouble)))
            pipe.expire(_trouble_key(side), _KEPT_S)
            pipe.execute()

    # Of workers

    def announce(self, worker: str, queues: Sequence[str]) -> None:
        """Record that *worker* lives and serves *queues*."""
        self._redis.hset(_ROSTER, worker, json.dumps({"at": self.now(), "queues": list(queues)}))

    def leave(self, worker: str) -> None:
        """Record that *worker* lives no longer. It may come back: it is restarted, for example."""
        before = self._redis.hget(_ROSTER, worker)
        with suppress(ValueError, KeyError, TypeError):
            record = json.loads(before or "null")
            # Its last sign of life is just too old, also for a worker of another version.
            gone = {"at": self.now() - ROSTER_S - 1, "queues": record["queues"]}
            self._redis.hset(_ROSTER, worker, json.dumps(gone))

    def live_workers(self, queue: str) -> list[str]:
        """Return the workers that have announced themselves lately and serve *queue*."""
        return self.workers(queue)[0]

    def workers(self, queue: str) -> tuple[list[str], list[str]]:
        """Return the workers that serve *queue*: those that live, and those that lived within the last week."""
        at = self.now()
        live: list[str] = []
        gone: list[str] = []
        for worker, text in self._redis.hgetall(_ROSTER).items():
            with suppress(ValueError, KeyError, TypeError):
                record = json.loads(text)
                age_s = at - record["at"]
                if age_s > _KEPT_S:
                    self._redis.hdel(_ROSTER, worker)
                elif queue in record["queues"]:
                    (live if age_s <= ROSTER_S else gone).append(str(worker))
        return sorted(live), sorted(gone)

    def now(self) -> float:
        """Return the time by the clock of Redis."""
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    # Of jobs

    def park(self, batch: BatchMessage, queue: str) -> None:
        """Record that the job of *batch*, whose own queue is called *queue*, has a parking queue."""
        record = {
            "queue": queue,
            "source": batch.source.model_dump(),
            "destination": batch.destination.model_dump(),
        }
        self._redis.hsetnx(PARKED, batch.job_id, json.dumps(record))

    def parked(self) -> list[ParkedJob]:
        """Return the jobs that have a parking queue."""
        found = []
        for job_id, text in self._redis.hgetall(PARKED).items():
            # A record that somebody damaged costs that job, and no other.
            with suppress(ValueError, KeyError, TypeError):
                record = json.loads(text)
                refs = (StoreRef.model_validate(record[side]) for side in ("source", "destination"))
                found.append(ParkedJob(str(job_id), str(record["queue"]), *refs))
        return found

    def is_parked(self, job_id: str) -> bool:
        """Say whether a job has a parking queue."""
        return bool(self._redis.hexists(PARKED, job_id))

    def unpark(self, job: ParkedJob) -> None:
        """Record that a job, which has ended, has no parking queue any more."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(UNPARKED, parking_queue(job.queue, job.job_id), self.now())
            pipe.hdel(PARKED, job.job_id)
            pipe.execute()

    def unparked(self, linger_s: float) -> list[str]:
        """
        Return the parking queues of jobs that have ended.

        What a worker that died had taken may come back to them for *linger_s* seconds. Then they are forgotten.
        """
        at = self.now()
        found = self._redis.hgetall(UNPARKED)
        for queue, since in found.items():
            if not at - float(since) <= linger_s:
                self._redis.hdel(UNPARKED, queue)
        return [str(queue) for queue in found]

    def state(self, job_id: str) -> JobReach:
        """Return what a job waits for and for how long it may."""
        fields = ["state", "patience", "waits", "given_up"]
        state, patience, waits, given_up = self._redis.hmget(job_key(job_id), fields)
        return JobReach(
            state=str(state or ""),
            patience_s=float(patience) if patience else PATIENCE_S,
            waits=waiting_of(waits),
            given_up=str(given_up or ""),
        )

    def has_settled(self, job_id: str) -> bool:
        """Say whether a job has copied objects, or found them at its destination."""
        copied, present = self._redis.hmget(job_key(job_id), ["copied", "present"])
        return int(copied or 0) + int(present or 0) > 0

    def begin_waiting(self, job_id: str, field: str, store: str, reason: str) -> tuple[float, float]:
        """
        Record in *field* of a job that it waits for *store*; return since when, and for how many seconds it has.

        The moment at which it began stays; the reason is the latest one.
        """
        at = self.now()
        before = waiting_of(self._redis.hget(job_key(job_id), field))
        since = before.since if before else at
        if self._redis.exists(job_key(job_id)):
            record = {"store": store, "reason": reason, "since": since}
            self._redis.hset(job_key(job_id), field, json.dumps(record))
        return since, at - since

    def give_up(self, job_id: str, reason: str) -> bool:
        """Let the parked batches of a job fail for *reason*; say whether that is new."""
        return bool(
            self._redis.exists(job_key(job_id)) and self._redis.hsetnx(job_key(job_id), "given_up", reason)
        )

    def stop_waiting(self, job_id: str, *fields: str) -> None:
        """Record that a job waits no longer."""
        self._redis.hdel(job_key(job_id), *fields)

    def take_turn(self, side: StoreSide, seconds: float) -> bool:
        """Take the turn to check a store, which nobody else has for so many seconds; say whether it was free."""
        return bool(self._redis.set(_turn_key(side), "1", nx=True, px=max(1, int(1000 * seconds))))

    def end_turn(self, side: StoreSide) -> None:
        """Let all others check a store at once: it answers."""
        self._redis.delete(_turn_key(side))


class JobReach(NamedTuple):
    """What a worker must know of a job that has a parking queue; *state* is "" for a job that is gone."""

    state: str
    patience_s: float
    waits: Waiting | None
    given_up: str

    @property
    def ended(self) -> bool:
        """Say whether the job has ended."""
        return self.state in ("", "done", "failed", "cancelled")


def pause_before_check(kind: Kind, tries: int) -> float:
    """
    Return how many seconds to wait before a store is checked again, after so many checks that failed.

    With jitter, so that many workers do not come at once. A store that is away is checked by one worker of the fleet
    at a time; one that refused this worker is checked by this worker alone, and less often.
    """
    base, longest = _AWAY_PAUSES if kind is Kind.AWAY else _REFUSED_PAUSES
    return min(longest, base * 2.0 ** min(tries, 16)) * random.uniform(0.6, 1.0)


def verdict(
    workers: Sequence[str],
    troubles: Mapping[str, Sequence[Trouble]],
    since: float,
    waited_s: float,
    patience_s: float,
    others: Collection[str] = (),
) -> str:
    """
    Return why a job whose stores no worker reaches is given up, "" if it is not.

    *troubles* are those with either store, by worker, of every live worker. A worker that was refused cannot do the
    job; one for which a store is away can, when the store is back. Nothing is concluded from what was found before the
    job began to wait, at *since*: it may be the trouble of another job, and over. *others* are workers that do not live
    now and were not refused: they have `RETURN_S` seconds to come back. Whether the patience is over is
    decided by a store that was just found away: before, Redis may have been away as well.
    """
    now = since + waited_s

    def is_new(one: Trouble) -> bool:
        return one.at >= since - NEW_S

    hopeless = all(
        any(one.kind == Kind.REFUSED and is_new(one) for one in troubles[worker]) for worker in workers
    )
    hopeless = hopeless and (not others or waited_s >= RETURN_S)
    impatient = waited_s >= patience_s and any(
        is_new(one) and one.at >= now - LATELY_S for found in troubles.values() for one in found
    )
    if not hopeless and not impatient:
        return ""
    reasons: dict[str, list[str]] = {}
    for worker in workers:
        for one in troubles[worker]:
            reasons.setdefault(f"{one.error} at {one.store}: {one.detail}", []).append(worker)
    said = "; ".join(f"{reason} ({', '.join(found)})" for reason, found in reasons.items())
    head = "no live worker can reach both stores" if hopeless else f"waited for {waited_s:.0f} s"
    return f"{head}: {said}"[:1000]


def _trouble(text: Any) -> Trouble:
    # Another version may know more.
    found = json.loads(text)
    return Trouble(**{field.name: found[field.name] for field in fields(Trouble) if field.name in found})


def _trouble_key(side: StoreSide) -> str:
    return f"snapferry:reach:{side.name}"


def _reached_key(side: StoreSide) -> str:
    return f"snapferry:reach:{side.name}:known"


def _recent_key(side: StoreSide) -> str:
    return f"snapferry:reach:{side.name}:away"


def _turn_key(side: StoreSide) -> str:
    return f"snapferry:reach:{side.name}:turn"
