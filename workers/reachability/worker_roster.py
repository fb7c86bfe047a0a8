"""The roster of workers: which workers are alive, and which queues they serve."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import redis

from snapferry.stores.text.printable import printable
from snapferry.workers.ledger.keys import ROSTER_S, WORKERS
from snapferry.workers.redis_json import parse_json

from . import clock

_KEPT_S: Final = 7 * 86400

# The most queues and processes of a worker that are believed.
_MOST_QUEUES: Final = 100
_MOST_PROCESSES: Final = 1000

# What the reading of a damaged record raises. A number may be infinite, or too large for a float.
_DAMAGED: Final = (ValueError, KeyError, TypeError, OverflowError)


@dataclass(frozen=True)
class RegisteredWorker:
    """A worker that announced itself *silent_s* seconds ago, and the *queues* that it serves."""

    name: str
    queues: tuple[str, ...]
    silent_s: float


class WorkerRoster:
    """The roster on one Redis server. Every method may be repeated, and raises `redis.exceptions.RedisError`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def announce(self, worker: str, queues: Sequence[str], processes: int = 1) -> None:
        """Record that *worker* is alive and serves *queues* by so many *processes*."""
        record = {"at": clock.now(self._redis), "queues": list(queues), "processes": processes}
        self._redis.hset(WORKERS, worker, json.dumps(record))

    def registered(self) -> list[RegisteredWorker]:
        """Return the workers that announced themselves within the last week, by name. Writes nothing."""
        at = clock.now(self._redis)
        found = []
        for worker, text in sorted(self._redis.hgetall(WORKERS).items()):
            with suppress(*_DAMAGED):
                record = parse_json(text)
                silent_s, queues = (
                    at - float(record["at"]),
                    tuple(str(queue)[:256] for queue in record["queues"]),
                )
                if silent_s <= _KEPT_S:
                    found.append(
                        RegisteredWorker(
                            printable(str(worker)[:255]), queues[:_MOST_QUEUES], max(0.0, silent_s)
                        )
                    )
        return found

    def leave(self, worker: str) -> None:
        """Record that *worker* is gone. It may come back, for example after a restart."""
        before = self._redis.hget(WORKERS, worker)
        with suppress(*_DAMAGED):
            record = parse_json(before or "null")
            # A last announcement that is too old: workers of other versions understand it too.
            gone = {"at": clock.now(self._redis) - ROSTER_S - 1, "queues": record["queues"]}
            self._redis.hset(WORKERS, worker, json.dumps(gone))

    def live(self, queue: str) -> list[str]:
        """Return the workers that are alive and serve *queue*."""
        return self.serving(queue)[0]

    def processes(self, queue: str) -> int:
        """
        Return how many processes the live workers that serve *queue* have together, at least.

        A worker of an earlier version, which does not say it, counts as one.
        """
        return sum(number or 1 for number in self._processes(queue))

    def all_processes(self, queue: str) -> int | None:
        """As `processes`, but return None if a worker does not say how many it has."""
        found = self._processes(queue)
        return None if None in found else sum(number or 0 for number in found)

    def _processes(self, queue: str) -> list[int | None]:
        """Return how many processes each live worker that serves *queue* has, None if it does not say it."""
        at = clock.now(self._redis)
        found: list[int | None] = []
        for text in self._redis.hvals(WORKERS):
            with suppress(*_DAMAGED):
                record = parse_json(text)
                if at - record["at"] <= ROSTER_S and queue in record["queues"]:
                    number = record.get("processes")
                    found.append(None if number is None else min(max(1, int(number)), _MOST_PROCESSES))
        return found

    def serving(self, queue: str) -> tuple[list[str], list[str]]:
        """Return the workers that serve *queue*: the live ones, and those that were alive within the last week."""
        at = clock.now(self._redis)
        live: list[str] = []
        gone: list[str] = []
        for worker, text in self._redis.hgetall(WORKERS).items():
            with suppress(*_DAMAGED):
                record = parse_json(text)
                age_s = at - record["at"]
                if age_s > _KEPT_S:
                    self._redis.hdel(WORKERS, worker)
                elif queue in record["queues"]:
                    (live if age_s <= ROSTER_S else gone).append(str(worker))
        return sorted(live), sorted(gone)
