"""What waits in a fleet's queues, as its workers would take it."""

from __future__ import annotations

import json
from typing import Any

import redis

from snapferry.workers.queues import lists


def waiting(client: redis.Redis, queue: str) -> list[str]:
    """Return the messages of *queue*, the next one to be taken first."""
    found: list[str] = []
    for key in lists(queue):
        some: Any = client.lrange(key, 0, -1)
        found += reversed(some)
    return found


def roots(client: redis.Redis, queue: str) -> list[str]:
    """Return the job of each message of *queue*, the next one to be taken first."""
    return [json.loads(message)["headers"]["root_id"] for message in waiting(client, queue)]
