"""
Notifications that wait, and problems that were told, in Redis.

*nothing lost*: a message is recorded in the same step in which its events count as told. It is removed only when each
receiver has it, or was given up.
*one sender*: that step is taken only while the sender holds the lock. A sender that lost it decides nothing.
*at least once*: a sender that dies after a receiver got a message sends it again, with the same id.
*bounded*: while `MOST_MESSAGES` wait, no further one is made, and events are gathered. At most `MOST_PROBLEMS` problems
of jobs are remembered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import redis
from redis.exceptions import LockError, WatchError
from redis.lock import Lock

from snapferry.workers.ledger.keys import DELIVERIES, OUTBOX, PROBLEMS, UNTOLD
from snapferry.workers.ledger.schedules import number_of
from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import is_job_id
from snapferry.workers.redis_json import parse_json

MOST_MESSAGES: Final = 100
MOST_PROBLEMS: Final = 10_000

# Seconds without activity after which another process may send.
LOCK_S: Final = 90

_LOCK: Final = RedisKey("snapferry:notify:lock")
_TOLD_AT: Final = RedisKey("snapferry:notify:told_at")

# The longest record of a message or a problem that is read.
_LONGEST: Final = 64 * 1024


@dataclass(frozen=True)
class Problem:
    """
    What was told of a mirror, scrub or job. Times are in seconds since the epoch, 0.0: not so.

    It has failed since *failed*, in *job*, and is late since *late*. It was last *told* then.
    """

    failed: float = 0.0
    late: float = 0.0
    told: float = 0.0
    job: str = ""


@dataclass(frozen=True)
class Delivery:
    """How often sending a message to a receiver failed, and when it is sent next, in seconds since the epoch."""

    tries: int = 0
    next_at: float = 0.0


@dataclass(frozen=True)
class PendingMessage:
    """A message that waits: its *id*, texts and *kind*, when it was made, and the receivers that do not have it."""

    id: str
    title: str
    body: str
    kind: str
    made_at: float
    left: dict[str, Delivery] = field(default_factory=dict)


class NotLocked(Exception):
    """Another process holds the lock by now: nothing was recorded."""


class NotificationLedger:
    """The records of notifications. All methods raise `redis.exceptions.RedisError`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def lock(self) -> Lock:
        """Return the lock of the one process that sends."""
        lock: Lock = self._redis.lock(_LOCK, timeout=LOCK_S, thread_local=False)
        return lock

    def untold(self, most: int) -> list[str]:
        """Return the ids of the *most* oldest jobs that have ended and count as not told."""
        return [str(job_id) for job_id in self._redis.zrange(UNTOLD, 0, most - 1) if is_job_id(str(job_id))]

    def problems(self) -> dict[str, Problem]:
        """Return what was told and is not over: "mirror:nightly" or "job:ID" -> the problem."""
        found = {}
        for subject, text in self._redis.hgetall(PROBLEMS).items():
            # A damaged record costs that one.
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                record = _record(text)
                found[str(subject)] = Problem(
                    failed=number_of(str(record["failed"])),
                    late=number_of(str(record["late"])),
                    told=number_of(str(record["told"])),
                    job=str(record["job"]) if is_job_id(str(record["job"])) else "",
                )
        return found

    def told_at(self) -> float:
        """Return when the last message was made, in seconds since the epoch, 0.0: never."""
        return number_of(str(self._redis.get(_TOLD_AT) or ""))

    def waiting(self) -> list[PendingMessage]:
        """Return the messages that wait, the oldest first."""
        found = []
        for message_id, text in self._redis.hgetall(OUTBOX).items():
            with suppress(ValueError, TypeError, KeyError, AttributeError, OverflowError):
                record = _record(text)
                left = {
                    str(name): Delivery(int(one["tries"]), number_of(str(one["next_at"])))
                    for name, one in record["left"].items()
                }
                title, body, kind = (str(record[name]) for name in ("title", "body", "kind"))
                made_at = number_of(str(record["made_at"]))
                found.append(PendingMessage(str(message_id), title, body, kind, made_at, left))
        return sorted(found, key=lambda one: (one.made_at, one.id))

    def commit(
        self,
        lock: Lock,
        message: PendingMessage | None,
        *,
        told: Iterable[str],
        problems: Mapping[str, Problem | None],
    ) -> None:
        """
        Record a decision in one step: the *message* to send if there is one, and the jobs that are *told* by it.

        *problems* are those that changed, None for one that is over. Raises `NotLocked` if another process has the
        lock. May be repeated.
        """
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.watch(_LOCK)  # type: ignore[no-untyped-call]
            if not lock.owned():
                raise NotLocked
            pipe.multi()
            if message is not None:
                pipe.hset(OUTBOX, message.id, _text(message))
                pipe.set(_TOLD_AT, message.made_at)
            for page in _pages(list(told), 1000):
                pipe.zrem(UNTOLD, *page)
            for subject, problem in problems.items():
                if problem is None:
                    pipe.hdel(PROBLEMS, subject)
                else:
                    pipe.hset(PROBLEMS, subject, json.dumps(asdict(problem)))
            try:
                pipe.execute()
            except WatchError:
                raise NotLocked from None

    def delivered(self, message: PendingMessage, result: str = "") -> None:
        """
        Record to whom a message is *left* to be sent; remove it if there is nobody.

        The *result* of the try, "sent", "failed" or "given_up", is counted in the same step; "" counts nothing.
        """
        with self._redis.pipeline(transaction=True) as pipe:
            if message.left:
                pipe.hset(OUTBOX, message.id, _text(message))
            else:
                pipe.hdel(OUTBOX, message.id)
            if result:
                pipe.hincrby(DELIVERIES, result, 1)
            pipe.execute()


def release(lock: Lock) -> None:
    """Give the lock back, unless another process has it by now."""
    with suppress(LockError):
        lock.release()


def _record(text: object) -> dict[str, Any]:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise ValueError("no record")
    found: dict[str, Any] = parse_json(text)
    return found


def _text(message: PendingMessage) -> str:
    record = asdict(message)
    del record["id"]
    return json.dumps(record)


def _pages(items: list[str], length: int) -> list[list[str]]:
    return [items[first : first + length] for first in range(0, len(items), length)]
