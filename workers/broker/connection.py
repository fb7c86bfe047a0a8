"""
Redis clients, what counts as an outage of Redis, and what is refused of a Redis server.

One client per process: a handshake costs more than ten commands.

*outage*: a Redis that is away, full, read-only, loading or failing over will take the same command later. Such
refusals are raised as `BrokerRefuses`, a `redis.exceptions.ConnectionError`: whoever waits for an absent Redis
waits for them too. `PatientRedis` does that for every client of the project, Celery's included.
*unfit*: a Redis that must not be used at all. No waiting helps: `BrokerUnfit`.
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
    ConnectionError,
    NoPermissionError,
    RedisError,
    ResponseError,
    TimeoutError,
)
from redis.retry import Retry

log = logging.getLogger(__name__)

OUTAGE = (ConnectionError, TimeoutError, BusyLoadingError)

PATIENT_RETRIES = 25

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
"""A server that is silent for so long has lost the connection. BRPOP answers within a second."""

OLDEST_REDIS: Final = (6, 2)
"""The oldest Redis that has every command that kombu uses."""

# While a role waits for its broker it tries this often, and says so this often.
_TRY_EVERY_S: Final = 2.0
_SAY_EVERY_S: Final = 30.0

# What a server that will take the command later begins its refusal with.
_PASSING: Final = (
    "OOM", "READONLY", "MISCONF", "MASTERDOWN", "LOADING", "TRYAGAIN", "CLUSTERDOWN", "NOREPLICAS", "BUSY",
    "UNBLOCKED",
)  # fmt: skip

# Redis 6.2 puts the refusal of a script's command behind the place of the command.
_find_refusal: Final = re.compile(rf"(?:^|: -)({'|'.join(_PASSING)}) ").search

_MEANINGS: Final = {
    "OOM": "Redis is full (maxmemory)",
    "READONLY": "Redis is a read-only replica",
    "MISCONF": "Redis cannot write to its disk and takes no writes",
    "MASTERDOWN": "Redis is a replica that lost its primary",
    "NOREPLICAS": "Redis has too few replicas and takes no writes",
    "LOADING": "Redis is loading its data",
    "BUSY": "Redis is busy with a script",
}


class BrokerUnavailable(Exception):
    """The Redis server cannot be used; the message says why, in one line, without a password."""


class BrokerUnfit(BrokerUnavailable):
    """The Redis server answers and must not be used, or does not accept this process: waiting does not help."""


class BrokerRefuses(ConnectionError):
    """Redis answers and refuses the command for now: it is full, read-only, loading or failing over."""


def refusal(error: Exception) -> BrokerRefuses | None:
    """Return *error* as an outage if it is the refusal of a server that will take the command later, else None."""
    if isinstance(error, BrokerRefuses):
        return error
    if not isinstance(error, ResponseError | BusyLoadingError):
        return None
    code = str(getattr(error, "status_code", None) or "")
    if code not in _PASSING:
        found = _find_refusal(str(error)[:1000])
        if found is None:
            return None
        code = found[1]
    meaning = _MEANINGS.get(code, "Redis is failing over")
    return BrokerRefuses(f"{meaning}: {str(error)[:200]}", status_code=code)


def is_outage(error: BaseException | None) -> bool:
    """Say whether *error*, or what it was raised from, says that Redis will take the command later."""
    while error is not None:
        if isinstance(error, (*OUTAGE, OSError)) and not isinstance(error, AuthenticationError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _raise(error: Exception) -> NoReturn:
    raise refusal(error) or error


class PatientPipeline(Pipeline):
    """A pipeline that raises the refusals of `refusal` as `BrokerRefuses`."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Read one answer."""
        parse: Any = super().parse_response
        try:
            return parse(connection, command_name, **options)
        except (ResponseError, BusyLoadingError) as error:
            _raise(error)

    def raise_first_error(self, commands: Any, response: Any) -> None:
        """Raise the first error among the answers of a transaction."""
        raise_first: Any = super().raise_first_error
        try:
            raise_first(commands, response)
        except ResponseError as error:
            _raise(error)


class PatientRedis(redis.Redis):
    """A client that raises the refusals of `refusal` as `BrokerRefuses`."""

    def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
        """Read one answer."""
        parse: Any = super().parse_response
        try:
            return parse(connection, command_name, **options)
        except (ResponseError, BusyLoadingError) as error:
            _raise(error)

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """Return a pipeline of the same kind."""
        return PatientPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


def shown(url: str) -> str:
    """Return the broker *url* without user, password and parameters."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].split('?', 1)[0]}"


def client(url: str, *, retries: int = PATIENT_RETRIES, answer_s: float = ANSWER_TIMEOUT_S) -> redis.Redis:
    """
    Return this process's client for *url*; by default it waits through an outage of two minutes.

    An answer that takes longer than *answer_s* seconds is tried again. A process that was forked gets a client of
    its own.
    """
    return _client(url, retries, answer_s, os.getpid())


@lru_cache(maxsize=8)
def _client(url: str, retries: int, answer_s: float, process: int) -> redis.Redis:
    return PatientRedis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=min(CONNECT_TIMEOUT_S, answer_s),
        socket_timeout=answer_s,
        health_check_interval=25,
        retry=Retry(ExponentialBackoff(cap=5, base=0.1), retries),
        retry_on_error=list(OUTAGE),
    )


def hasty_client(url: str, timeout_s: float) -> redis.Redis:
    """Return a client that says at once when the broker does not answer; for a ``with`` block."""
    return PatientRedis.from_url(
        url,
        decode_responses=True,
        socket_connect_timeout=timeout_s,
        socket_timeout=timeout_s,
        retry=Retry(NoBackoff(), 0),
    )


def check_broker(url: str) -> None:
    """
    Make sure, within 10 seconds, that Redis answers at *url* and would lose no task.

    Raises `BrokerUnavailable`: it does not answer; and `BrokerUnfit`: it refuses the credentials, is too old, or may
    evict keys. With any policy but noeviction a full Redis drops the queue's list without a word to anyone. A user
    that may not ask (INFO) is trusted to know.
    """
    try:
        with hasty_client(url, timeout_s=4) as c:
            # Also where INFO is not allowed: the database may not be there.
            c.exists("snapferry:jobs")
            info = _told(c)
    except (RedisError, OSError, ValueError) as error:
        kind = BrokerUnfit if _is_final(error) else BrokerUnavailable
        raise kind(f"the broker at {shown(url)} cannot be used: {_reason(error)}") from error
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise BrokerUnfit(
            f"the broker at {shown(url)} has maxmemory-policy {policy}: a full Redis would drop queued work"
            " silently. Set it to noeviction (CONFIG SET maxmemory-policy noeviction)."
        )
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST_REDIS:
        raise BrokerUnfit(
            f"the broker at {shown(url)} is Redis {version}, which lacks commands that the queue needs."
            " Use Redis 6.2 or later, or Valkey."
        )


def _told(client: redis.Redis) -> dict[str, Any]:
    try:
        return {**client.info("memory"), **client.info("server")}
    except NoPermissionError:
        return {}


def wait_for_broker(
    url: str,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """
    Wait until the broker at *url* can be used, however long it is away; *say* what is waited for.

    Raises `BrokerUnfit` at once for a broker that must not be used.
    """
    said_at = -_SAY_EVERY_S
    while True:
        try:
            return check_broker(url)
        except BrokerUnfit:
            raise
        except BrokerUnavailable as error:
            if time.monotonic() - said_at >= _SAY_EVERY_S:
                say(f"{error}; waiting for it")
                said_at = time.monotonic()
        sleep(_TRY_EVERY_S)


def _is_final(error: BaseException | None) -> bool:
    """Say whether *error* of a connection will be the same whenever it is tried again."""
    while error is not None:
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
    if isinstance(error, AuthenticationError):
        # What the server says depends on its version, and speaks of commands that nobody typed.
        return "it asks for a password, or refuses that of the URL; see user and password in SNAPFERRY_BROKER_URL"
    text = str(error).rstrip(".")
    return text[:200] if text else type(error).__name__
