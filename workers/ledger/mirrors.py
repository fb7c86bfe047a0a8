"""The records of mirrors: the last job of each, and the runs that were skipped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import redis
from redis.exceptions import LockError

from snapferry.stores.text.printable import printable
from snapferry.workers.lua import RedisKey

from .keys import MIRROR, SCHEDULE


@dataclass(frozen=True)
class MirrorRecord:
    """
    The last runs of a mirror. Times are in seconds since the epoch, 0.0: never.

    *skipped* is how many runs in a row were due and skipped, *why* is the reason of the last one.
    """

    job_id: str = ""
    started_at: float = 0.0
    skipped_at: float = 0.0
    skipped: int = 0
    why: str = ""


class MirrorLedger:
    """The records of mirrors, by name. They do not expire."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def record(self, name: str) -> MirrorRecord:
        """Return the record of a mirror, empty if the mirror was never due."""
        job_id, started_at, skipped_at, skipped, why = (
            str(value or "")
            for value in self._redis.hmget(_key(name), ["job", "started_at", "skipped_at", "skipped", "why"])
        )
        return MirrorRecord(
            printable(job_id), _number(started_at), _number(skipped_at), int(_number(skipped)), printable(why)
        )

    @contextmanager
    def taken(self, name: str, seconds: int) -> Iterator[bool]:
        """
        Lock the mirror for the block, for at most this many *seconds*. Yield whether the lock was free.

        The message that a mirror is due may be delivered twice.
        """
        lock = self._redis.lock(f"{_key(name)}:taken", timeout=seconds)
        mine = lock.acquire(blocking=False)
        try:
            yield mine
        finally:
            if mine:
                # The lock may have expired, and another process may have it now.
                with suppress(LockError):
                    lock.release()

    def started(self, name: str, job_id: str) -> None:
        """Record that a job was queued for the mirror."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(_key(name), mapping={"job": job_id, "started_at": time.time(), "skipped": 0})
            pipe.hdel(_key(name), "why")
            pipe.execute()

    def skipped(self, name: str, why: str) -> None:
        """Record that the mirror was due and skipped. Not to be repeated: it counts."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(_key(name), mapping={"skipped_at": time.time(), "why": why})
            pipe.hincrby(_key(name), "skipped")
            pipe.execute()

    def next_at(self, name: str) -> float | None:
        """Return when the mirror is due next, from the schedule of Celery beat. Return None if it is not in it."""
        found = self._redis.zscore(f"{SCHEDULE}:schedule", f"{SCHEDULE}{name}")
        return float(found) if isinstance(found, int | float) else None


def _key(name: str) -> RedisKey:
    return RedisKey(f"{MIRROR}:{name}")


def _number(found: str) -> float:
    """Return a number from Redis, 0 if the text is not a number that can be right."""
    try:
        number = float(found or 0)
    except ValueError:
        return 0.0
    return number if 0 <= number < 1e11 else 0.0
