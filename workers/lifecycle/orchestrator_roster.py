"""
The roster of orchestrators: which run, by what they announce in Redis every few seconds.

Workers have a roster of their own (`snapferry.workers.reachability.worker_roster`), because they also announce their
queues. Every process of a fleet may read this one: a worker that serves metrics reports that no orchestrator runs.
"""

from __future__ import annotations

from typing import Any, Final

import redis

from snapferry.stores.text.printable import printable
from snapferry.workers.lua import RedisKey

ANNOUNCE_S: Final = 5.0
"""Seconds between two announcements of an orchestrator."""

SILENT_S: Final = 20.0
"""An orchestrator that has not announced itself for this long is gone."""

# Orchestrators that are gone are remembered for a week, the latest of them, so that pages can name them.
_KEPT_S: Final = 7 * 86400
_MOST_KEPT: Final = 1000

# The names of orchestrators by the time of the last announcement, in seconds since the epoch by Redis.
_KEY: Final = RedisKey("snapferry:orchestrators")

_LONGEST_NAME: Final = 255


class OrchestratorRoster:
    """The roster on one Redis server. Every method may be repeated, and raises `redis.exceptions.RedisError`."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def announce(self, name: str) -> None:
        """Record that the orchestrator *name* runs. The record of all of them expires after a week without one."""
        now = self._now()
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zadd(_KEY, {name: now})
            pipe.zremrangebyscore(_KEY, 0, now - _KEPT_S)
            pipe.zremrangebyrank(_KEY, 0, -1 - _MOST_KEPT)
            pipe.expire(_KEY, _KEPT_S)
            pipe.execute()

    def leave(self, name: str) -> None:
        """Record that the orchestrator *name* is gone. It may come back, for example after a restart."""
        # Only an announced name: an outage of Redis may have cost the record, and then there is nothing to correct.
        self._redis.zadd(_KEY, {name: self._now() - SILENT_S - 1}, xx=True)

    def announced(self) -> dict[str, float]:
        """
        Return name -> seconds since the last announcement, of the orchestrators of the last week.

        Empty if none of this version announced itself: orchestrators of earlier versions do not. Writes nothing.
        """
        found: Any = self._redis.zrange(_KEY, 0, -1, withscores=True)
        if not found:
            return {}
        now = self._now()
        return {
            printable(str(name)[:_LONGEST_NAME]): max(0.0, now - at)
            for name, at in sorted(found[-_MOST_KEPT:])
            if now - at <= _KEPT_S
        }

    def running(self) -> int:
        """Return how many orchestrators announced themselves within `SILENT_S` seconds."""
        return sum(silent_s <= SILENT_S for silent_s in self.announced().values())

    def _now(self) -> float:
        seconds, microseconds = self._redis.time()
        return float(seconds) + float(microseconds) / 1e6
