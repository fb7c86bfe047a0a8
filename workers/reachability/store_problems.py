"""
Records of which worker cannot reach which store.

*kinds*: a store that is *away* gave no answer, so jobs wait for it. A store that *refused* the worker answered: missing
permissions, no such bucket, nothing mounted here. Jobs do not wait for that, unless another worker may still succeed.
*trial*: a check succeeded, but no object was copied yet. The worker takes batches again. If the next batch fails too,
the problem continues with its old start time.
"""

from __future__ import annotations

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

import redis

from snapferry.stores.errors import NotAllowed, StoreError
from snapferry.workers.ledger.keys import job_key
from snapferry.workers.redis_json import parse_json

from . import clock
from .sides import StoreSide

RECENT_S: Final = 30
"""For this long after a store was away, transient errors of its objects count as part of the same outage."""

# How long a record of a worker and a store is kept.
_KEPT_S: Final = 7 * 86400

# Pauses between two checks: the first and the longest.
_AWAY_PAUSES: Final = 0.5, 5.0
_REFUSED_PAUSES: Final = 5.0, 60.0


class Kind(StrEnum):
    """Why a worker cannot reach a store."""

    AWAY = "away"
    REFUSED = "refused"


@dataclass(frozen=True)
class StoreProblem:
    """
    The problem of one worker with one store.

    *store* is the label of the store, *error* the name of the error's class, *detail* its message. *since* is when the
    problem began, *at* when it was last found, *next* when the store is checked again, all by the clock of Redis.
    *tries*: checks that failed. *trial*: the last check succeeded.
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

    @property
    def may_change(self) -> bool:
        """Whether the problem may end without a restart of the worker, unlike one with its own configuration."""
        return self.error != NotAllowed.__name__


class BatchProblems(NamedTuple):
    """
    What a worker must know before it copies a batch: its own *problems* with the two stores, and the state of the job.

    *waits*: the job waits for a store. *given_up*: why the job was given up, "" if it was not.
    """

    problems: tuple[StoreProblem, ...]
    waits: bool
    given_up: str


class StoreProblems:
    """
    The records of problems between workers and stores, on one Redis server.

    Every method may be repeated. All raise `redis.exceptions.RedisError` when the client's retries are exhausted.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def of_batch(self, job_id: str, worker: str, sides: Sequence[StoreSide]) -> BatchProblems:
        """Return what *worker* must know before it copies a batch."""
        with self._redis.pipeline(transaction=False) as pipe:
            for side in sides:
                pipe.hget(_problem_key(side), worker)
            pipe.hmget(job_key(job_id), ["waits", "flaps", "given_up"])
            *found, (waits, flaps, given_up) = pipe.execute()
        problems = tuple(_parse(text) for text in found if text)
        return BatchProblems(problems, bool(waits or flaps), str(given_up or ""))

    def of_sides(self, sides: Collection[StoreSide]) -> dict[str, list[StoreProblem]]:
        """Return the problems of all workers with each of *sides*, by the name of the side."""
        with self._redis.pipeline(transaction=False) as pipe:
            for side in sides:
                pipe.hvals(_problem_key(side))
            answers = pipe.execute()
        return {
            side.name: sorted((_parse(text) for text in found), key=lambda problem: problem.worker)
            for side, found in zip(sides, answers, strict=True)
        }

    def record_failure(
        self, side: StoreSide, worker: str, error: StoreError, kind: Kind, *, pause_s: float
    ) -> StoreProblem:
        """Record that *worker* cannot reach a store; the next check is due *pause_s* seconds from now."""
        at = clock.now(self._redis)
        before = self._redis.hget(_problem_key(side), worker)
        known = _parse(before) if before else None
        problem = StoreProblem(
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
        self._put(side, problem)
        if kind is Kind.AWAY:
            self._redis.set(_recent_key(side), "1", ex=RECENT_S)
        return problem

    def record_answer(self, side: StoreSide, problem: StoreProblem) -> None:
        """Record that a check of a store succeeded: the worker may try a batch again."""
        self._put(side, replace(problem, trial=True))

    def record_copy(self, side: StoreSide, worker: str) -> None:
        """Record that *worker* copied from or to a store: it has no problem with the store, and has reached it."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hdel(_problem_key(side), worker)
            pipe.hset(_reached_key(side), worker, "1")
            pipe.expire(_reached_key(side), _KEPT_S)
            pipe.execute()

    def record_reached(self, side: StoreSide, worker: str) -> None:
        """Record that *worker* has reached a store, whatever problem it has with the store now."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(_reached_key(side), worker, "1")
            pipe.expire(_reached_key(side), _KEPT_S)
            pipe.execute()

    def forget(self, side: StoreSide, worker: str) -> None:
        """Delete the problem of *worker* with a store."""
        self._redis.hdel(_problem_key(side), worker)

    def reached_before(self, side: StoreSide, worker: str) -> bool:
        """Return whether *worker* has reached a store before."""
        return bool(self._redis.hexists(_reached_key(side), worker))

    def recently_away(self, sides: Sequence[StoreSide]) -> bool:
        """Return whether any worker found one of *sides* away within the last `RECENT_S` seconds."""
        return bool(self._redis.exists(*map(_recent_key, sides)))

    def claim_check(self, side: StoreSide, seconds: float) -> bool:
        """Claim the check of a store for this many seconds; return whether no other worker had claimed it."""
        return bool(self._redis.set(_claim_key(side), "1", nx=True, px=max(1, int(1000 * seconds))))

    def release_check(self, side: StoreSide) -> None:
        """Let all other workers check a store at once, because it answers."""
        self._redis.delete(_claim_key(side))

    def _put(self, side: StoreSide, problem: StoreProblem) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(_problem_key(side), problem.worker, json.dumps(asdict(problem)))
            pipe.expire(_problem_key(side), _KEPT_S)
            pipe.execute()


def pause_before_check(kind: Kind, tries: int) -> float:
    """
    Return the seconds to wait before the next check of a store, after *tries* failed checks.

    With jitter, so that many workers do not check at once. A store that is away is checked by one worker of the fleet
    at a time. A store that refused a worker is checked by that worker alone, and less often.
    """
    base, longest = _AWAY_PAUSES if kind is Kind.AWAY else _REFUSED_PAUSES
    return min(longest, base * 2.0 ** min(tries, 16)) * random.uniform(0.6, 1.0)


def _parse(text: Any) -> StoreProblem:
    # A newer version may record more fields.
    found = parse_json(text)
    return StoreProblem(
        **{field.name: found[field.name] for field in fields(StoreProblem) if field.name in found}
    )


def _problem_key(side: StoreSide) -> str:
    return f"snapferry:reach:{side.name}"


def _reached_key(side: StoreSide) -> str:
    return f"snapferry:reach:{side.name}:known"


def _recent_key(side: StoreSide) -> str:
    return f"snapferry:reach:{side.name}:away"


def _claim_key(side: StoreSide) -> str:
    return f"snapferry:reach:{side.name}:turn"
