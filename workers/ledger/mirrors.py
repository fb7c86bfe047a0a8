"""What is known of the mirrors: which job each had last, and what came of its last time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import redis
from redis.exceptions import LockError

from snapferry.stores.text.printable import printable

from .keys import MIRROR, SCHEDULE


@dataclass(frozen=True)
class MirrorRecord:
    """
    What became of a mirror's last times; moments in seconds since the epoch, 0.0: never.

    *skipped*: how many times in a row it was due and not run, *why* the last of them.
    """

    job_id: str = ""
    started_at: float = 0.0
    skipped_at: float = 0.0
    skipped: int = 0
    why: str = ""


class MirrorLedger:
    """The records of mirrors, by name. They do not expire. Every method may be called again."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def record(self, name: str) -> MirrorRecord:
        """Return the record of a mirror, empty if it never was due."""
        job_id, started_at, skipped_at, skipped, why = (
            str(value or "")
            for value in self._redis.hmget(
                self._key(name), ["job", "started_at", "skipped_at", "skipped", "why"]
            )
        )
        return MirrorRecord(
            printable(job_id), _number(started_at), _number(skipped_at), int(_number(skipped)), printable(why)
        )

    @contextmanager
    def taken(self, name: str, seconds: int) -> Iterator[bool]:
        """
        Take the mirror in the block, for so many seconds at most; give whether nobody else has it.

        The message that it is due may be delivered twice.
        """
        lock = self._redis.lock(f"{self._key(name)}:taken", timeout=seconds)
        mine = lock.acquire(blocking=False)
        try:
            yield mine
        finally:
            if mine:
                # It may have run out, and be another's by now.
                with suppress(LockError):
                    lock.release()

    def started(self, name: str, job_id: str) -> None:
        """Record that a job was queued for the mirror."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._key(name), mapping={"job": job_id, "started_at": time.time(), "skipped": 0})
            pipe.hdel(self._key(name), "why")
            pipe.execute()

    def skipped(self, name: str, why: str) -> None:
        """Record that the mirror was due and not run."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._key(name), mapping={"skipped_at": time.time(), "why": why})
            pipe.hincrby(self._key(name), "skipped")
            pipe.execute()

    def next_at(self, name: str) -> float | None:
        """Return when the mirror is due next, by the schedule that Celery beat keeps; None if it is in none."""
        found = self._redis.zscore(f"{SCHEDULE}:schedule", f"{SCHEDULE}{name}")
        return float(found) if isinstance(found, int | float) else None

    @staticmethod
    def _key(name: str) -> str:
        return f"{MIRROR}:{name}"


def _number(found: str) -> float:
    """Return a number that somebody wrote into Redis, 0 if it is none."""
    try:
        number = float(found or 0)
    except ValueError:
        return 0.0
    return number if 0 <= number < 1e11 else 0.0
