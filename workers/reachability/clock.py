"""The clock of the Redis server, which all processes of a fleet share."""

from __future__ import annotations

import redis


def now(client: redis.Redis) -> float:
    """Return the time of the Redis server, in seconds since the epoch."""
    seconds, microseconds = client.time()
    return float(seconds) + float(microseconds) / 1e6
