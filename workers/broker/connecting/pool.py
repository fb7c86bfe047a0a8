"""From the URL of the broker to a pool of connections. Nothing else in this project names a host of Redis."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any, Final

from redis.backoff import NoBackoff
from redis.client import Redis
from redis.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry
from redis.sentinel import SentinelConnectionPool, SentinelManagedConnection

from snapferry.workers.settings.broker_url import TLS, BrokerURL

from .credentials import RotatingConnection, rotating
from .sentinels import ANSWER_S, CONNECT_S, VotingSentinels

CONNECT_TIMEOUT_S: Final = 5.0
ANSWER_TIMEOUT_S: Final = 30.0
"""A connection without an answer for this long is lost. BRPOP answers within a second."""

UNACKNOWLEDGED_S: Final = 20
"""A connection whose other side acknowledges nothing for this long is lost: the machine or the link is gone."""

HEALTH_S: Final = 10
"""An idle connection is tried before its next use after this time, and those that only listen as often."""


def keepalive_options() -> dict[int, int]:
    """Return the options of TCP that find a link whose other side is gone, as far as this system has them."""
    wanted = {
        "TCP_KEEPIDLE": 5,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": UNACKNOWLEDGED_S * 1000,
    }
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


class _SentinelTLS(SentinelManagedConnection, SSLConnection):
    """To the primary that sentinels name, with TLS. The certificate must be for the address or name that they give."""


class _SentinelPool(SentinelConnectionPool):
    """As redis-py's, but its connections to sentinels are closed with it."""

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the connections; without *inuse_connections*, the idle ones to Redis alone."""
        super().disconnect(inuse_connections=inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


def connection_pool(
    broker: BrokerURL, *, changed: Callable[[type[Any]], type[Any]] | None = None, **options: Any
) -> ConnectionPool:
    """
    Return a pool of connections to the Redis of *broker*, or to the primary that its sentinels name at the time.

    *changed* is given the class of the connections, and returns the one to use. *options* are those of redis-py's
    connections. Connects to nothing.
    """
    options = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": ANSWER_TIMEOUT_S,
        "health_check_interval": HEALTH_S,
        "redis_connect_func": _greet,
        # A server may otherwise send its clients to another address.
        "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        # Otherwise redis-py reads its version from disk for each connection, and sends two commands that tell it.
        "driver_info": None,
        **{name: value for name, value in options.items() if value is not None},
        "db": broker.database,
        **_authentication(broker, ""),
    }
    kind: type[Any] = Connection
    if broker.scheme == "unix":
        kind, options["path"] = UnixDomainSocketConnection, broker.path
    else:
        options |= {"socket_keepalive": True, "socket_keepalive_options": keepalive_options()}
        if broker.tls:
            kind, options = SSLConnection, options | _tls_options(broker.tls)
        if broker.master_name:
            kind = _SentinelTLS if broker.tls else SentinelManagedConnection
        else:
            options["host"], options["port"] = broker.hosts[0]
    if broker.rotates:
        kind = _rotating_class(kind)
    options["connection_class"] = changed(kind) if changed else kind
    if broker.master_name:
        managed: Any = _SentinelPool
        sentinels = VotingSentinels(sentinel_clients(broker), broker.allowed_hosts)
        pool: ConnectionPool = managed(broker.master_name, sentinels, **options)
        return pool
    return ConnectionPool(**options)


def _greet(connection: Any) -> None:
    """
    Do what redis-py does at the begin of a connection, and regard the connection as tried.

    Otherwise redis-py sends a PING before the first command. A server that cannot write to its disk refuses PING,
    although it answers questions.
    """
    connection.on_connect_check_health(check_health=False)
    connection.next_health_check = time.monotonic() + connection.health_check_interval


def sentinel_clients(broker: BrokerURL) -> list[tuple[str, Redis]]:
    """Return a client for each sentinel of *broker*, with the address to be shown."""
    return [
        (f"[{host}]:{port}" if ":" in host else f"{host}:{port}", _sentinel(broker, host, port))
        for host, port in broker.hosts
    ]


def _sentinel(broker: BrokerURL, host: str, port: int) -> Redis:
    kind: type[Any] = SSLConnection if broker.sentinel_tls else Connection
    return Redis.from_pool(
        ConnectionPool(
            host=host,
            port=port,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=ANSWER_S,
            health_check_interval=HEALTH_S,
            socket_keepalive=True,
            socket_keepalive_options=keepalive_options(),
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            # An idle connection that the sentinel closed is made again once.
            retry=Retry(NoBackoff(), 1),
            decode_responses=True,
            encoding_errors="replace",
            connection_class=_rotating_class(kind) if broker.rotates else kind,
            **(_tls_options(broker.sentinel_tls) if broker.sentinel_tls else {}),
            **_authentication(broker, "sentinel_"),
        )
    )


def _rotating_class(kind: type[Any]) -> type[Any]:
    return type(f"Rotating{kind.__name__}", (RotatingConnection, kind), {})


def _authentication(broker: BrokerURL, prefix: str) -> dict[str, Any]:
    credentials = rotating(broker)
    if credentials:
        return {"credential_provider": credentials.of_sentinels if prefix else credentials.of_redis}
    found = {name: getattr(broker, prefix + name) for name in ("username", "password")}
    return {name: value for name, value in found.items() if value is not None}


def _tls_options(tls: TLS) -> dict[str, Any]:
    return {
        "ssl_cert_reqs": tls.cert_reqs,
        "ssl_ca_certs": tls.ca_certs,
        "ssl_certfile": tls.certfile,
        "ssl_keyfile": tls.keyfile,
        "ssl_check_hostname": tls.check_hostname,
    }
