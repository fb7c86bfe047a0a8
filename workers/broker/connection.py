"""
Redis clients, what counts as an outage of Redis, and which Redis servers are refused. Their connections are from
`snapferry.workers.broker.connecting`.

One client per process, because a handshake costs more than ten commands.

*outage*: a Redis that is away, full, read-only, loading or failing over will accept the same command later. Its
refusals are raised as `BrokerRefuses`, a `redis.exceptions.ConnectionError`, so that code which waits for an absent
Redis waits for them too. `PatientRedis` does that for every client of the project, including Celery's.
*unfit*: a Redis server that must not be used. Waiting does not help: `BrokerUnfit`.
"""

from __future__ import annotations

import logging
import os
import re
import ssl
import time
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NoReturn

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.client import Pipeline
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterCrossSlotError,
    ConnectionError,
    MovedError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

from snapferry.workers.settings.broker_url import parse, shown

from .connecting.pool import ANSWER_TIMEOUT_S, CONNECT_TIMEOUT_S, connection_pool
from .connecting.retry import TimedRetry
from .connecting.sentinels import PrimaryNotFound, SentinelRefuses

log = logging.getLogger(__name__)

OUTAGE = (ConnectionError, TimeoutError, BusyLoadingError)

OLDEST_REDIS: Final = (6, 2)
"""The oldest Redis version that has every command kombu uses."""

REFUSES: Final = "requires a password, or refuses the user or password of the URL"
"""What a server does that refuses us. Its own text depends on its version, and names commands that nobody typed."""

# A process that waits for its broker tries this often, and reports this often.
_TRY_EVERY_S: Final = 2.0
_REPORT_EVERY_S: Final = 30.0

# The error codes of a server that will accept the command later.
_TRANSIENT_CODES: Final = (
    "OOM", "READONLY", "MISCONF", "MASTERDOWN", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "BUSY",
    "UNBLOCKED",
)  # fmt: skip

# For a command inside a script, Redis 6.2 puts the position of the command before the code.
_find_refusal: Final = re.compile(rf"(?:^|: -)({'|'.join(_TRANSIENT_CODES)}) ").search

_MEANINGS: Final = {
    "OOM": "Redis is full (maxmemory)",
    "READONLY": "Redis is a read-only replica",
    "MISCONF": "Redis cannot write to its disk and takes no writes",
    "MASTERDOWN": "Redis is a replica that lost its primary",
    "NOREPLICAS": "Redis has too few replicas and takes no writes",
    "LOADING": "Redis is loading its data",
    "BUSY": "Redis is busy with a script",
}


CLUSTER: Final = (
    "it is part of a Redis Cluster, which spreads keys over servers; snapferry and Celery change several keys in one"
    " step. Use a single primary, with replicas and Sentinel, or a managed Redis without cluster mode"
)


class BrokerUnavailable(Exception):
    """The Redis server cannot be used. The message gives the reason in one line, without a password."""


class BrokerUnfit(BrokerUnavailable):
    """The Redis server must not be used, or does not accept the credentials. Waiting does not help."""


class BrokerRefuses(ConnectionError):
    """Redis refuses the command for now: it is full, read-only, loading or failing over."""


def refusal(error: Exception) -> BrokerRefuses | None:
    """Return *error* as an outage if the server will accept the command later, else None."""
    if isinstance(error, BrokerRefuses):
        return error
    if not isinstance(error, ResponseError | BusyLoadingError):
        return None
    code = str(getattr(error, "status_code", None) or "")
    if code not in _TRANSIENT_CODES:
        found = _find_refusal(str(error)[:1000])
        if found is None:
            return None
        code = found[1]
    meaning = _MEANINGS.get(code, "Redis is failing over")
    return BrokerRefuses(f"{meaning}: {str(error)[:200]}", status_code=code)


def is_outage(error: BaseException | None) -> bool:
    """Return whether *error*, or an exception that caused it, is an outage of Redis."""
    while error is not None:
        if isinstance(error, (*OUTAGE, OSError)) and not isinstance(error, AuthenticationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _raise(error: Exception) -> NoReturn:
    raise refusal(error) or error


class PatientPipeline(Pipeline):
    """A pipeline that raises transient refusals as `BrokerRefuses`."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Read one reply."""
        parse: Any = super().parse_response
        try:
            return parse(connection, command_name, **options)
        except (ResponseError, BusyLoadingError) as error:
            _raise(error)

    def raise_first_error(self, commands: Any, response: Any) -> None:
        """Raise the first error among the replies of a transaction."""
        raise_first: Any = super().raise_first_error
        try:
            raise_first(commands, response)
        except ResponseError as error:
            _raise(error)


class PatientRedis(redis.Redis):
    """A client that raises transient refusals as `BrokerRefuses`."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Read one reply."""
        parse: Any = super().parse_response
        try:
            return parse(connection, command_name, **options)
        except (ResponseError, BusyLoadingError) as error:
            _raise(error)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a `PatientPipeline`."""
        return PatientPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


def client(url: str, *, retries: int | None = None, answer_s: float = ANSWER_TIMEOUT_S) -> redis.Redis:
    """
    Return this process's client for *url*. By default it waits through an outage of `PATIENCE_S`, two minutes.

    A command without a reply within *answer_s* seconds is repeated, at most *retries* times if given. A forked process
    gets its own client.
    """
    return _client(url, retries, answer_s, os.getpid())


@lru_cache(maxsize=8)
def _client(url: str, retries: int | None, answer_s: float, process: int) -> redis.Redis:
    retry = TimedRetry() if retries is None else Retry(ExponentialBackoff(cap=5, base=0.1), retries)
    return _made(url, answer_s, retry, retry_on_error=list(OUTAGE))


def fail_fast_client(url: str, timeout_s: float) -> redis.Redis:
    """Return a client that does not repeat commands, for a ``with`` block; it raises after *timeout_s* seconds."""
    # A PING before each command would be refused by a server that cannot write to its disk.
    return _made(url, timeout_s, Retry(NoBackoff(), 0), health_check_interval=0)


def _made(url: str, answer_s: float, retry: Retry, **options: Any) -> redis.Redis:
    pool = connection_pool(
        parse(url),
        decode_responses=True,
        # Another program may have written bytes that are no UTF-8. They cost the value that they are in.
        encoding_errors="replace",
        socket_connect_timeout=min(CONNECT_TIMEOUT_S, answer_s),
        socket_timeout=answer_s,
        retry=retry,
        **options,
    )
    return PatientRedis.from_pool(pool)


def check_broker(url: str) -> None:
    """
    Make sure, within 10 seconds, that Redis answers at *url* and would lose no task.

    Raises `BrokerUnavailable` if it does not answer, and `BrokerUnfit` if it refuses the credentials, is too old, is
    part of a cluster, or may evict keys. With any eviction policy except noeviction, a full Redis
    silently deletes queues. If the user is not allowed to call INFO, version and policy are not checked.
    """
    place = f"the broker at {shown(url)}"
    try:
        with fail_fast_client(url, timeout_s=4) as c:
            info = _server_info(c)
            if not info.get("cluster_enabled"):
                # Without INFO, this finds a missing database, and a cluster: the keys are in two of its slots.
                c.exists("snapferry:jobs", "snapferry:names")
    except (RedisError, OSError, ValueError) as error:
        kind = BrokerUnfit if _is_final(error) else BrokerUnavailable
        raise kind(f"{place} cannot be used: {_reason(error)}") from error
    if info.get("cluster_enabled"):
        raise BrokerUnfit(f"{place} cannot be used: {CLUSTER}")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise BrokerUnfit(
            f"{place} has maxmemory-policy {policy}: a full Redis would drop queued work"
            " silently. Set it to noeviction (CONFIG SET maxmemory-policy noeviction)."
        )
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST_REDIS:
        raise BrokerUnfit(
            f"{place} is Redis {version}, which lacks commands that the queue needs."
            " Use Redis 6.2 or later, or Valkey."
        )


def _server_info(client: redis.Redis) -> dict[str, Any]:
    try:
        sections = [client.info(name) for name in ("memory", "server", "cluster")]
    except NoPermissionError:
        return {}
    return {name: value for section in sections for name, value in section.items()}


def wait_for_broker(
    url: str,
    report: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Wait until the broker at *url* can be used, without a time limit; call *report* now and then with the reason.

    Raises `BrokerUnfit` at once for a broker that must not be used.
    """
    reported_at = -_REPORT_EVERY_S
    while True:
        try:
            return check_broker(url)
        except BrokerUnfit:
            raise
        except BrokerUnavailable as error:
            if time.monotonic() - reported_at >= _REPORT_EVERY_S:
                report(f"{error}; waiting for it")
                reported_at = time.monotonic()
        sleep(_TRY_EVERY_S)


def _is_final(error: BaseException | None) -> bool:
    """Return whether connecting again would raise the same *error*."""
    while error is not None:
        if isinstance(error, PrimaryNotFound):
            return bool(error.causes) and all(map(_is_final, error.causes))
        if refusal(error) if isinstance(error, Exception) else False:
            return False
        if isinstance(error, AuthenticationError | ssl.SSLCertVerificationError | ResponseError):
            return True
        if isinstance(error, ValueError) and not isinstance(error, OSError | RedisError):
            return True
        if isinstance(error, ssl.SSLError) and error.reason == "WRONG_VERSION_NUMBER":
            return True
        error = error.__cause__ or error.__context__
    return False


def _reason(error: Exception) -> str:
    if isinstance(error, AuthenticationError) and not isinstance(error, SentinelRefuses):
        return f"it {REFUSES}; check SNAPFERRY_BROKER_URL"
    if isinstance(error, ClusterCrossSlotError | MovedError):
        return CLUSTER
    text = str(error).rstrip(".")
    return text[:600] if text else type(error).__name__
