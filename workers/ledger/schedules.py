"""The records of what runs on a schedule, mirrors and scrubs: the last job of each, and the runs that were skipped."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import redis
from redis.exceptions import LockError

from snapferry.stores.text.printable import printable
from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import ScheduleKind
from snapferry.workers.redis_json import parse_json

from .keys import MIRROR, SCHEDULE

MOST_SCHEDULED: Final = 1000
"""Entries of the schedule that are listed."""

LATEST: Final = 1e11
"""No time in seconds since the epoch is later."""

_is_name: Final = re.compile(r"[a-z0-9_-]{1,64}").fullmatch


def is_name(text: str) -> bool:
    """Return whether *text* can be the name of a mirror or a scrub, as `MIRROR_NAME` does, in linear time."""
    return _is_name(text) is not None and text[0] not in "_-" and text[-1] not in "_-"


@dataclass(frozen=True)
class ScheduleRecord:
    """
    The last runs of a mirror or a scrub. Times are in seconds since the epoch, 0.0: never.

    *skipped* is how many runs in a row were due and skipped, *why* is the reason of the last one.
    """

    job_id: str = ""
    started_at: float = 0.0
    skipped_at: float = 0.0
    skipped: int = 0
    why: str = ""


def _due(found: object) -> float | None:
    return float(found) if isinstance(found, int | float) else None


class ScheduleLedger:
    """
    The records of all mirrors, or of all scrubs, by name. They do not expire.

    *kind* is what they are records of, as a word for messages.
    """

    def __init__(self, client: redis.Redis, kind: ScheduleKind) -> None:
        self._redis = client
        self.kind = kind

    @property
    def client(self) -> redis.Redis:
        """The client, for other records on the same server."""
        return self._redis

    def record(self, name: str) -> ScheduleRecord:
        """Return the record of a mirror or scrub, empty if it was never due."""
        found = self._redis.hmget(self._key(name), ["job", "started_at", "skipped_at", "skipped", "why"])
        job_id, started_at, skipped_at, skipped, why = (str(value or "") for value in found)
        return ScheduleRecord(
            printable(job_id),
            number_of(started_at),
            number_of(skipped_at),
            int(number_of(skipped)),
            printable(why),
        )

    @contextmanager
    def taken(self, name: str, seconds: int) -> Iterator[bool]:
        """
        Lock the mirror or scrub for the block, for at most this many *seconds*. Yield whether the lock was free.

        The message that it is due may be delivered twice.
        """
        lock = self._redis.lock(f"{self._key(name)}:taken", timeout=seconds)
        mine = lock.acquire(blocking=False)
        try:
            yield mine
        finally:
            if mine:
                # The lock may have expired, and another process may have it now.
                with suppress(LockError):
                    lock.release()

    def started(self, name: str, job_id: str) -> None:
        """Record that a job is queued now."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._key(name), mapping={"job": job_id, "started_at": time.time(), "skipped": 0})
            pipe.hdel(self._key(name), "why", "skipped_for")
            pipe.execute()

    def skipped(self, name: str, why: str, *, message_id: str = "") -> None:
        """
        Record and count that a run was due and skipped. A second call with the same *message_id* changes nothing.

        The mirror or scrub must be locked (`taken`).
        """
        if message_id and self._redis.hget(self._key(name), "skipped_for") == message_id:
            return
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(
                self._key(name), mapping={"skipped_at": time.time(), "why": why, "skipped_for": message_id}
            )
            pipe.hincrby(self._key(name), "skipped")
            pipe.execute()

    def next_at(self, name: str) -> float | None:
        """Return when the next run is due, from the schedule of Celery beat. Return None if it is not in it."""
        return self.last_and_next([name])[name][1]

    def last_and_next(self, names: Sequence[str]) -> dict[str, tuple[str, float | None]]:
        """Return the last job of each name, "" before the first, and `next_at`; all with one request."""
        with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hget(self._key(name), "job")
                pipe.zscore(f"{SCHEDULE}:schedule", f"{SCHEDULE}{entry_name(self.kind, name)}")
            found = iter(pipe.execute() if names else [])
        return {name: (printable(str(next(found) or "")), _due(next(found))) for name in names}

    def scheduled(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the names that are in the schedule of Celery beat, with their messages, in order of their names."""
        prefix = f"{SCHEDULE}{entry_name(self.kind, '')}"
        entries = self._redis.zrange(f"{SCHEDULE}:schedule", 0, MOST_SCHEDULED - 1)
        keys = sorted(str(key) for key in entries if str(key).startswith(prefix))
        found = []
        for key in keys:
            name = key.removeprefix(prefix)
            # A damaged entry costs that one.
            with suppress(ValueError, LookupError, TypeError):
                message = parse_json(str(self._redis.hget(key, "definition")))["args"][0]
                if isinstance(message, dict) and message["name"] == name and is_name(name):
                    found.append((name, message))
        return found

    def _key(self, name: str) -> RedisKey:
        return RedisKey(f"snapferry:{self.kind}:{name}")


def entry_name(kind: ScheduleKind, name: str) -> str:
    """Return the name of an entry of the schedule. A mirror and a scrub may have the same *name*."""
    return name if kind == MIRROR else f"{kind}:{name}"


def number_of(found: str) -> float:
    """Return a number from Redis, 0 if the text is not a number that can be right."""
    try:
        number = float(found or 0)
    except ValueError:
        return 0.0
    return number if 0 <= number < LATEST else 0.0
