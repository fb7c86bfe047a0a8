"""Find keys of the fleet that another program damaged, and set them aside."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import redis
from redis.exceptions import ResponseError

from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.keys import INDEX, OPEN, job_key
from snapferry.workers.lua import LuaScript, RedisKey, ScriptRunner
from snapferry.workers.messages import is_job_id

from .key_types import LONGEST_LOCK_S, PATTERN, SHARED, type_of

DAMAGED: Final = "snapferry:damaged:"
"""The prefix of keys that were set aside. They expire after `KEPT_S`."""

KEPT_S: Final = 7 * 86400

# Keys that Redis looks at in one step of a scan, and steps in one round.
_STEP: Final = 1000
_STEPS: Final = 10

# A set-aside key whose name would be longer is named by its beginning.
_LONGEST: Final = 512

_SET_ASIDE: Final = LuaScript.load(__package__, "set_aside")

_WORDS: Final = {"zset": "sorted set"}


@dataclass(frozen=True)
class DamagedKey:
    """A *key* of type *found* instead of *expected*; if they are the same, a lock that would not expire in time."""

    key: RedisKey
    found: str
    expected: str

    def __str__(self) -> str:
        if self.found == self.expected:
            return f"{printable(self.key)} is a lock that does not expire"
        found, expected = (_WORDS.get(name, name) for name in (self.found, self.expected))
        return f"{printable(self.key)} is a {found} instead of a {expected}"


def is_wrong_type(error: Exception) -> bool:
    """Return whether *error* is Redis' answer to a command for a key of another type."""
    return isinstance(error, ResponseError) and "WRONGTYPE" in str(error)


def damaged_keys(client: redis.Redis, keys: Collection[str]) -> list[DamagedKey]:
    """Return those of *keys* that are damaged. Writes nothing."""
    known = [(key, expected) for key in keys if (expected := type_of(key)) is not None]
    with client.pipeline(transaction=False) as pipe:
        for key, _ in known:
            pipe.type(key)
            pipe.pttl(key)
        answers = pipe.execute()
    damaged = []
    for (key, expected), found, left in zip(known, answers[::2], answers[1::2], strict=True):
        wrong_type = found not in ("none", expected.type, expected.other)
        stays = expected.expires and found != "none" and (left == -1 or left > 1000 * LONGEST_LOCK_S)
        if wrong_type or stays:
            damaged.append(DamagedKey(RedisKey(key), str(found), expected.type))
    return damaged


def shared_damage(client: redis.Redis) -> list[DamagedKey]:
    """Return the damaged keys among those with fixed names. Writes nothing."""
    return damaged_keys(client, SHARED)


class KeyRepair:
    """
    Sets damaged keys aside, under `DAMAGED`: for the fleet they are then gone.

    The lists of jobs are made anew from the records of the jobs. All other keys are as if somebody had deleted them.
    All methods raise `redis.exceptions.RedisError`, and may be called by several processes at once.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._runner = ScriptRunner(client)
        self._cursor = 0
        self._relists = False

    def round(self) -> list[DamagedKey]:
        """Look at the keys with fixed names and at a part of the others; return those that were set aside."""
        found = [one for one in damaged_keys(self._redis, {*SHARED, *self._next()}) if self._set_aside(one)]
        self._relists = self._relists or any(one.key in (INDEX, OPEN) for one in found)
        if self._relists:
            self._relist()
            self._relists = False
        return found

    def _relist(self) -> None:
        """List the jobs again whose records exist."""
        prefix = job_key("")
        cursor = 0
        while True:
            cursor, keys = self._redis.scan(cursor, match=f"{prefix}*", count=_STEP)
            ids = [job_id for key in keys if is_job_id(job_id := str(key).removeprefix(prefix))]
            if ids:
                self._runner.run(scripts.RELIST, [INDEX, OPEN, *map(job_key, ids)], list(ids))
            if not cursor:
                return

    def _next(self) -> list[str]:
        """Return the next part of the keys with names of mirrors, stores and queues in them."""
        found: list[str] = []
        for _ in range(_STEPS):
            self._cursor, keys = self._redis.scan(self._cursor, match=PATTERN, count=_STEP)
            found += map(str, keys)
            if not self._cursor:
                break
        return found

    def _set_aside(self, damaged: DamagedKey) -> bool:
        aside = RedisKey(f"{DAMAGED}{damaged.key}"[:_LONGEST])
        lock = int(damaged.found == damaged.expected)
        arguments: list[str | float] = [damaged.found, lock, 1000 * LONGEST_LOCK_S, KEPT_S]
        return bool(self._runner.run(_SET_ASIDE, [damaged.key, aside], arguments))
