"""
When mirrors, scrubs and stores last succeeded, and when they should have.

What is expected outlives the schedule: a mirror that was removed from the schedule, or whose scheduler died, is late
like any other, until an operator forgets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import redis

from snapferry.workers.lua import RedisKey
from snapferry.workers.messages import ScheduleKind
from snapferry.workers.settings.durations import interval_of
from snapferry.workers.settings.schedule_tables import next_run

from .keys import ENDED, MIRROR, MIRROR_SUCCESSES, MOST_ENDED, SCHEDULE_FIELD, SCRUB, UNTOLD, job_key
from .schedules import LATEST, MOST_SCHEDULED, is_name, number_of

# The names of what is expected to run, as "mirror:nightly".
EXPECTED: Final = RedisKey("snapferry:expected")

# When each store was last written by a job that ended well, by the store's id; the latest ones are kept.
_STORES: Final = RedisKey("snapferry:success:store")
_MOST_STORES: Final = 10_000

# Seconds after which the end of a job is not worth a notification any more: no process sends any.
FORGOTTEN_S: Final = 86400

# Jobs that are followed back from one that continues others.
_LONGEST_CHAIN: Final = 100

# The longest text of a schedule that is read from Redis.
_LONGEST_EVERY: Final = 256

_FIELDS: Final = ("every", "late_after", "since", "removed_at")


@dataclass(frozen=True)
class Expected:
    """
    A mirror or scrub that is expected to run.

    *every* is its interval or cron expression; *late_after* is in seconds, None for the default: two runs.
    """

    kind: ScheduleKind
    name: str
    every: str
    late_after: float | None = None

    @property
    def key(self) -> str:
        """The kind and the name in one word."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Freshness:
    """
    When a mirror or scrub last succeeded. Times are in seconds since the epoch, 0.0: never.

    It is expected *since* a scheduler or an orchestrator first saw it. *late_at* is when it is late unless a run ends
    well before, 0.0 if that cannot be computed. *removed_at* is when it was removed from the schedule. *now* is the
    time of Redis at which this was read.
    """

    expected: Expected
    since: float
    success_at: float
    late_at: float
    removed_at: float
    now: float

    @property
    def late(self) -> bool:
        """Whether no run ended well in time."""
        return 0 < self.late_at < self.now

    @property
    def age_s(self) -> float | None:
        """Seconds since the last success, None if there is none."""
        return max(0.0, self.now - self.success_at) if self.success_at else None


def late_at(expected: Expected, base: float) -> float:
    """
    Return when a mirror or scrub is late that last succeeded, or was first expected, at *base*.

    By default that is when the second run since then is due: the first one had the time until then to end well.
    Return 0.0 for a schedule that has no next run.
    """
    interval = interval_of(expected.every)
    try:
        if expected.late_after is not None:
            at = base + expected.late_after
        elif interval is not None:
            at = base + 2 * interval
        else:
            first = next_run(expected.every, datetime.fromtimestamp(base, UTC))
            at = next_run(expected.every, first).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
    return at if at < LATEST else 0.0


class FreshnessLedger:
    """
    The successes of mirrors, scrubs and stores, and what is expected of them. They do not expire.

    Every method may be repeated. All raise `redis.exceptions.RedisError`.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def now(self) -> float:
        """Return the time of Redis, in seconds since the epoch."""
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6

    def expect(self, all_expected: Iterable[Expected], *, replace: bool) -> None:
        """
        Record what is expected to run.

        With *replace*, this is the whole schedule: it replaces what was recorded of each mirror and scrub, and all
        others are marked as removed. Otherwise only those are recorded that are not known.
        """
        now = self.now()
        found = {one.key: one for one in all_expected}
        known = {str(key) for key in self._redis.smembers(EXPECTED)}
        with self._redis.pipeline(transaction=True) as pipe:
            for key, one in found.items():
                if key in known and not replace:
                    continue
                record = _record_key(one.kind, one.name)
                pipe.sadd(EXPECTED, key)
                pipe.hset(record, "every", one.every)
                if one.late_after is None:
                    pipe.hdel(record, "late_after")
                else:
                    pipe.hset(record, "late_after", one.late_after)
                pipe.hsetnx(record, "since", now)
                pipe.hdel(record, "removed_at")
            for key in known - found.keys() if replace else ():
                if (kind_and_name := _parsed(key)) is not None:
                    pipe.hsetnx(_record_key(*kind_and_name), "removed_at", now)
            pipe.execute()

    def forget(self, kind: ScheduleKind, name: str) -> bool:
        """Expect a mirror or scrub no longer; return whether it was expected. The records of its runs stay."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.srem(EXPECTED, f"{kind}:{name}")
            pipe.hdel(_record_key(kind, name), *_FIELDS)
            if kind == MIRROR:
                pipe.zrem(MIRROR_SUCCESSES, name)
            removed, *_ = pipe.execute()
        return bool(removed)

    def freshness(self) -> list[Freshness]:
        """
        Return how fresh everything is that is expected to run, in order of kinds and names.

        A damaged record is left out.
        """
        keys = sorted(str(key) for key in self._redis.smembers(EXPECTED))[:MOST_SCHEDULED]
        names = [parsed for key in keys if (parsed := _parsed(key)) is not None]
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for kind, name in names:
                pipe.hmget(_record_key(kind, name), _FIELDS)
                if kind == MIRROR:
                    pipe.zscore(MIRROR_SUCCESSES, name)
                else:
                    # A scrub has succeeded when it has read what it had to, whatever it found.
                    pipe.hmget(RedisKey(f"{_record_key(SCRUB, name)}:state"), ["succeeded_at", "began_at"])
            (seconds, microseconds), *answers = pipe.execute(raise_on_error=False)
        now = float(seconds) + float(microseconds) / 1e6
        found = []
        for (kind, name), record, success in zip(names, answers[::2], answers[1::2], strict=True):
            if isinstance(record, list) and (one := _freshness(kind, name, record, success, now)) is not None:
                found.append(one)
        return found

    def ended_jobs(self, most: int) -> list[str]:
        """Return the ids of the *most* oldest jobs that have ended and are not settled."""
        return [str(job_id) for job_id in self._redis.zrange(ENDED, 0, most - 1)]

    def settle(
        self,
        ended: Iterable[str],
        *,
        untold: Mapping[str, float],
        mirrors: Mapping[str, float],
        stores: Mapping[str, float],
    ) -> None:
        """
        Record what follows from jobs that have *ended*, in one step: each map holds times in seconds since the epoch.

        *untold* jobs are left to whoever notifies; *mirrors* (by name) and *stores* (by id) have succeeded. A success
        never replaces a later one.
        """
        with self._redis.pipeline(transaction=True) as pipe:
            if untold:
                pipe.zadd(UNTOLD, dict(untold))
                pipe.zremrangebyrank(UNTOLD, 0, -1 - MOST_ENDED)
            if mirrors:
                pipe.zadd(MIRROR_SUCCESSES, dict(mirrors), gt=True)
            if stores:
                pipe.zadd(_STORES, dict(stores), gt=True)
                pipe.zremrangebyrank(_STORES, 0, -1 - _MOST_STORES)
            pipe.zrem(ENDED, *ended)
            pipe.execute()

    def forget_untold(self) -> None:
        """Forget jobs that ended so long ago that their notification would be no news."""
        self._redis.zremrangebyscore(UNTOLD, 0, self.now() - FORGOTTEN_S)

    def schedules_of(self, job_ids: Iterable[str]) -> dict[str, str]:
        """Return job id -> the mirror or scrub, as "mirror:nightly", that queued the job or one that it continues."""
        found: dict[str, str] = {}
        ahead = {job_id: job_id for job_id in job_ids}
        for _ in range(_LONGEST_CHAIN):
            if not ahead:
                break
            with self._redis.pipeline(transaction=False) as pipe:
                for at in ahead.values():
                    pipe.hmget(job_key(at), [SCHEDULE_FIELD, "continues"])
                answers = pipe.execute(raise_on_error=False)
            before, ahead = ahead, {}
            for job_id, answer in zip(before, answers, strict=True):
                schedule, continues = answer if isinstance(answer, list) else (None, None)
                if schedule and _parsed(str(schedule)) is not None:
                    found[job_id] = str(schedule)
                elif continues:
                    ahead[job_id] = str(continues)
        return found

    def store_successes(self, store_ids: Iterable[str]) -> dict[str, float]:
        """Return when jobs that wrote to these stores last ended well: id of the store -> seconds since the epoch."""
        ids = list(store_ids)
        found = self._redis.zmscore(_STORES, ids) if ids else []
        return {store: float(at) for store, at in zip(ids, found, strict=True) if at}


def _freshness(
    kind: ScheduleKind, name: str, record: list[Any], success: object, now: float
) -> Freshness | None:
    every, late_after, since, removed_at = (str(value or "") for value in record)
    if not every or len(every) > _LONGEST_EVERY:
        return None
    expected = Expected(kind, name, every, number_of(late_after) or None)
    succeeded, cycle = success if isinstance(success, list) else (success, "")
    success_at = number_of(str(succeeded or ""))
    # A scrub of another store begins anew.
    began = max(number_of(since), number_of(str(cycle or "")))
    return Freshness(
        expected=expected,
        since=began,
        success_at=success_at,
        late_at=late_at(expected, max(success_at, began)),
        removed_at=number_of(removed_at),
        now=now,
    )


def _record_key(kind: ScheduleKind, name: str) -> RedisKey:
    return RedisKey(f"snapferry:{kind}:{name}")


def _parsed(key: str) -> tuple[ScheduleKind, str] | None:
    kind, _, name = key.partition(":")
    if not is_name(name):
        return None
    return (MIRROR, name) if kind == MIRROR else (SCRUB, name) if kind == SCRUB else None
