"""Metrics of notifications, which an orchestrator reads from Redis: whether what should be told reaches anybody."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

import redis

from snapferry.workers.ledger.keys import DELIVERIES, OUTBOX
from snapferry.workers.ledger.schedules import number_of
from snapferry.workers.redis_json import parse_json
from snapferry.workers.telemetry.metrics.catalogue import by_name, of_the_fleet

RESULTS: Final = ("sent", "failed", "given_up")

# The longest record of a message that is read.
_LONGEST: Final = 64 * 1024

NOTIFY_METRICS: Final = by_name(
    of_the_fleet(
        "notifications_total",
        "Tries to send a notification to a receiver, by result: sent, failed (it is tried again), given_up."
        " Counted in Redis, by whichever process sends.",
        "result",
        kind="counter",
    ),
    of_the_fleet(
        "notifications_waiting",
        "Notifications that a receiver does not have yet.",
    ),
    of_the_fleet(
        "notification_oldest_waiting_seconds",
        "Seconds since the oldest notification was made that a receiver does not have yet; 0 if none waits.",
    ),
)


def ask_notifications(client: redis.Redis, now: float, add: Callable[..., None]) -> None:
    """
    Call *add* with the name, the value and the label of each metric. *now* is the time of Redis.

    Raises `RedisError`.
    """
    with client.pipeline(transaction=False) as pipe:
        pipe.hmget(DELIVERIES, RESULTS)
        pipe.hvals(OUTBOX)
        counts, messages = pipe.execute()
    for result, count in zip(RESULTS, counts, strict=True):
        add("notifications_total", number_of(str(count or "")), result)
    add("notifications_waiting", len(messages))
    add("notification_oldest_waiting_seconds", max((_age(text, now) for text in messages), default=0.0))


def _age(text: object, now: float) -> float:
    """Return how long a message has waited, 0.0 if its record is damaged."""
    with suppress(ValueError, TypeError, KeyError, AttributeError):
        if isinstance(text, str) and len(text) <= _LONGEST:
            made_at = number_of(str(parse_json(text)["made_at"]))
            return max(0.0, now - made_at) if made_at else 0.0
    return 0.0
