"""What is known of the mirrors: which job each had last, and what came of its last time."""

from __future__ import annotations

import time
from dataclasses import dataclass

import redis

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
        return MirrorRecord(job_id, float(started_at or 0), float(skipped_at or 0), int(skipped or 0), why)

    def begin(self, name: str, seconds: int) -> bool:
        """Take the mirror for so many seconds; say whether nobody else has it. A tick may be delivered twice."""
        return bool(self._redis.set(f"{self._key(name)}:taken", "1", nx=True, ex=seconds))

    def end(self, name: str) -> None:
        """Let go of the mirror."""
        self._redis.delete(f"{self._key(name)}:taken")

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
