"""
Redis clients, and what is refused of a Redis server.

One client per process: a handshake costs more than ten commands.
"""

from __future__ import annotations

import os
from functools import lru_cache

import redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, RedisError, TimeoutError
from redis.retry import Retry

OUTAGE = (ConnectionError, TimeoutError, BusyLoadingError)

PATIENT_RETRIES = 25


class BrokerUnavailable(Exception):
    """The Redis server cannot be used; the message says why, in one line, without a password."""


def shown(url: str) -> str:
    """Return the broker *url* without user, password and parameters."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].split('?', 1)[0]}"


def client(url: str, *, retries: int = PATIENT_RETRIES, answer_s: float = 30) -> redis.Redis:
    """
    Return this process's client for *url*; by default it waits through an outage of two minutes.

    An answer that takes longer than *answer_s* seconds is tried again. A process that was forked gets a client of
    its own.
    """
    return _client(url, retries, answer_s, os.getpid())


@lru_cache(maxsize=8)
def _client(url: str, retries: int, answer_s: float, process: int) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=min(5, answer_s),
        socket_timeout=answer_s,
        health_check_interval=25,
        retry=Retry(ExponentialBackoff(cap=5, base=0.1), retries),
        retry_on_error=list(OUTAGE),
    )


def check_broker(url: str) -> None:
    """
    Make sure, within 10 seconds, that Redis answers at *url* and would lose no task.

    Raises `BrokerUnavailable`: it does not answer, refuses the credentials, or
    may evict keys. With any policy but noeviction a full Redis drops the
    queue's list without a word to anyone.
    """
    try:
        with redis.Redis.from_url(
            url, socket_connect_timeout=4, socket_timeout=4, retry=Retry(ExponentialBackoff(), 0)
        ) as c:
            policy = c.info("memory").get("maxmemory_policy", "noeviction")
    except (RedisError, OSError, ValueError) as error:
        raise BrokerUnavailable(f"the broker at {shown(url)} cannot be used: {_reason(error)}") from error
    if policy != "noeviction":
        raise BrokerUnavailable(
            f"the broker at {shown(url)} has maxmemory-policy {policy}: a full Redis would drop queued work"
            " silently. Set it to noeviction (CONFIG SET maxmemory-policy noeviction)."
        )


def _reason(error: Exception) -> str:
    text = str(error).rstrip(".")
    return text[:200] if text else type(error).__name__
