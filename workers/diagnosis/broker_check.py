"""Checks of the fleet's Redis: does it answer, could it lose work, does it accept the writes of the ledger."""

from __future__ import annotations

import ipaddress
import math
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final

import redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from snapferry.stores.diagnosis.findings import Finding, Level, clock_finding
from snapferry.stores.text.format import counted, size
from snapferry.stores.text.printable import printable
from snapferry.workers.broker.connecting.sentinels import SentinelRefuses
from snapferry.workers.broker.connection import OLDEST_REDIS, REFUSES, fail_fast_client
from snapferry.workers.broker.message_validation import QUARANTINE
from snapferry.workers.ledger.damage import shared_damage
from snapferry.workers.lua import LuaScript
from snapferry.workers.settings.broker_url import TLS, BrokerURL, parse, shown

from .broker_replication import check_replicas, check_role, check_sentinels, check_sync

TRY_WRITES: Final = LuaScript.load(__package__, "try_writes")

TIMEOUT_S: Final = 4.0
TRIPS: Final = 10

# Keys that every Celery application on a database has by default.
_NEIGHBOURS: Final = ("celery", "unacked", "unacked_index")

# Keys per SCAN, and the most SCANs, in the search for other applications.
_SCANNED: Final = 1000
_MOST_SCANS: Final = 50

# Seconds of a slow round trip. A batch takes a few dozen round trips, one after the other.
SLOW_S: Final = 0.05

# Used parts of maxmemory that are reported.
FULL_WARNING: Final = 0.75
FULL_ERROR: Final = 0.95


def open_broker(url: str) -> redis.Redis:
    """Return a client that fails at once if the broker does not answer; for a ``with`` block."""
    return fail_fast_client(url, TIMEOUT_S)


def check_redis(url: str) -> Iterator[Finding]:
    """
    Yield findings about the Redis at *url*, within some seconds. Leaves nothing in it. Never raises `RedisError`.

    If Redis does not answer, the first finding is an error, and only findings about the URL follow.
    """
    broker = parse(url)
    try:
        with open_broker(url) as client:
            yield _answers(client, url)
            yield from _safety(broker)
            yield from check_sentinels(broker)
            yield from _asked(client, broker)
    except (RedisError, OSError, ValueError) as error:
        said = f"does not answer: {str(error).rstrip('.')[:200] or type(error).__name__}"
        advice = "check that it runs, and that host, port and TLS of the URL are right"
        if isinstance(error, AuthenticationError) or "NOAUTH" in str(error):
            said = said if isinstance(error, SentinelRefuses) else REFUSES
            advice = "check user and password in SNAPFERRY_BROKER_URL (percent-encoded)"
        yield Finding(Level.ERROR, "broker.answers", f"{shown(url)} {said}", advice)
        yield from _safety(broker)
        yield from check_sentinels(broker)


def _answers(client: redis.Redis, url: str) -> Finding:
    took = []
    for _ in range(TRIPS):
        before = time.perf_counter()
        # Not PING: a server that cannot write to its disk refuses it.
        client.time()
        took.append(time.perf_counter() - before)
    trip = sorted(took)[TRIPS // 2]
    said = f"{shown(url)} answers in {trip * 1000:.1f} ms"
    if trip > SLOW_S:
        return Finding(
            Level.WARNING,
            "broker.answers",
            said,
            "move workers and Redis closer together, or check its load",
        )
    return Finding(Level.OK, "broker.answers", said)


def _safety(broker: BrokerURL) -> Iterator[Finding]:
    check = "broker.secure"
    if broker.tls:
        yield _verified(broker, broker.tls)
        return
    if broker.scheme == "unix" or all(_is_loopback(host) for host, _ in broker.hosts):
        yield Finding(Level.OK, check, "the connection stays on this machine")
        return
    has_password = broker.password is not None or broker.rotates
    said = "jobs and the password" if has_password else "jobs"
    said += " cross the network unencrypted"
    if not has_password:
        said += ", and no password is required"
    secure = "sentinels" if broker.master_name else "rediss"
    yield Finding(Level.WARNING, check, said, f"use {secure}://, or a private network")


def _verified(broker: BrokerURL, tls: TLS) -> Finding:
    """Return whether the servers of *broker* must prove who they are."""
    check = "broker.secure"
    if tls.cert_reqs == "none":
        said = "the connection is encrypted, but the server's certificate is not verified"
        return Finding(Level.WARNING, check, said, "remove ssl_cert_reqs=none from the broker's URL")
    if not tls.check_hostname:
        said = "the connection is encrypted, but any certificate of the authority is accepted"
        return Finding(Level.WARNING, check, said, "remove ssl_check_hostname=false from the broker's URL")
    if broker.master_name and broker.sentinel_tls is None and not broker.allowed_hosts:
        said = "Redis is encrypted, but what a sentinel names is not, and any host with a certificate is accepted"
        return Finding(
            Level.WARNING, check, said, "add allowed_hosts to the broker's URL, or TLS to the sentinels"
        )
    return Finding(Level.OK, check, "the connection is encrypted")


def _is_loopback(host: str) -> bool:
    if host in {"", "localhost"}:
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    with suppress(OSError):
        return all(
            ipaddress.ip_address(str(found[4][0])).is_loopback
            for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        )
    return False


def _asked(client: redis.Redis, broker: BrokerURL) -> Iterator[Finding]:
    before = time.time()
    seconds, micros = client.time()
    at = seconds + micros / 1e6
    yield clock_finding("Redis", (at, at), (before, time.time()))
    try:
        info: Mapping[str, Any] = client.info()
    except RedisError as error:
        yield Finding(
            Level.NOTE, "broker.info", f"cannot read its configuration: {error}", "allow the command INFO"
        )
        info = {}
    if info:
        yield _version(info)
        yield _policy(info)
        yield _memory(info)
        yield from _persistence(info)
        yield check_role(info, client)
        yield from check_replicas(info, expected=bool(broker.master_name))
    yield from check_sync(client)
    yield _takes_writes(client)
    yield from _neighbours(client)
    yield from _quarantine(client)
    yield from _damage(client)


def _neighbours(client: redis.Redis) -> Iterator[Finding]:
    """Warn about another Celery application in the same database."""
    check = "broker.neighbours"
    try:
        found = {name for name in _NEIGHBOURS if client.exists(name)}
        cursor = 0
        for _ in range(_MOST_SCANS):
            cursor, names = client.scan(cursor, match="_kombu.binding.*", count=_SCANNED)
            found |= {name for name in map(str, names) if "snapferry" not in name}
            if not cursor:
                break
    except NoPermissionError:
        return
    if not found:
        yield Finding(Level.OK, check, "no other Celery application uses this database")
        return
    shown = ", ".join(printable(name[:60]) for name in sorted(found)[:5])
    said = f"another Celery application, or an earlier snapferry, uses this database: {shown}"
    advice = "give snapferry a database of its own; if nothing else uses this one, delete these keys after an upgrade"
    yield Finding(Level.WARNING, check, said, advice)


def _quarantine(client: redis.Redis) -> Iterator[Finding]:
    """Warn about messages that are set aside."""
    try:
        count = int(client.llen(QUARANTINE))
    except (NoPermissionError, ResponseError):
        return
    if count:
        said = f"{counted(count, 'unreadable message', verb='is')} set aside"
        advice = f"list them: redis-cli LRANGE {QUARANTINE} 0 -1; delete them: redis-cli DEL {QUARANTINE}"
        yield Finding(Level.WARNING, "broker.quarantine", said, advice)


def _damage(client: redis.Redis) -> Iterator[Finding]:
    """Report keys of the fleet that another program damaged."""
    try:
        found = shared_damage(client)
    except (NoPermissionError, ResponseError):
        return
    if found:
        said = f"another program damaged {counted(len(found), 'key')}: {'; '.join(map(str, found[:3]))}"
        advice = (
            "a running orchestrator sets them aside within seconds; find the program, and give snapferry a database of"
            " its own"
        )
        yield Finding(Level.ERROR, "broker.keys", said, advice)


def _version(info: Mapping[str, Any]) -> Finding:
    name = "Valkey" if "valkey_version" in info else "Redis"
    text = str(info.get("valkey_version") or info.get("redis_version") or "")
    numbers = tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
    if numbers and numbers < OLDEST_REDIS:
        said = f"{name} {text} is older than the versions that snapferry is tested with"
        return Finding(Level.WARNING, "broker.version", said, "use Redis 6.2 or later, or Valkey")
    return Finding(Level.OK, "broker.version", f"{name} {text or 'of an unknown version'}", value=text)


def _policy(info: Mapping[str, Any]) -> Finding:
    policy = info.get("maxmemory_policy")
    if policy is None:
        return Finding(Level.NOTE, "broker.policy", "cannot read maxmemory-policy; it must be noeviction")
    if policy != "noeviction":
        said = f"maxmemory-policy is {policy}: a full Redis would drop queued work silently"
        advice = "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf"
        return Finding(Level.ERROR, "broker.policy", said, advice)
    return Finding(Level.OK, "broker.policy", "maxmemory-policy is noeviction")


def _memory(info: Mapping[str, Any]) -> Finding:
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    check = "broker.memory"
    if not limit:
        of_machine = int(info.get("total_system_memory", 0))
        said = f"{size(used)} used, no limit" + (
            f"; the machine has {size(of_machine)}" if of_machine else ""
        )
        return Finding(Level.OK, check, said)
    share = used / limit
    said = f"{size(used)} of {size(limit)} used ({math.floor(share * 100)} %)"
    if share >= FULL_WARNING:
        level = Level.ERROR if share >= FULL_ERROR else Level.WARNING
        return Finding(
            level,
            check,
            f"{said}: when it is full, jobs stop",
            "raise maxmemory, or lower SNAPFERRY_JOB_EXPIRES",
        )
    return Finding(Level.OK, check, said)


def _persistence(info: Mapping[str, Any]) -> Iterator[Finding]:
    check = "broker.persistence"
    if "aof_enabled" not in info:
        yield Finding(
            Level.NOTE, check, "cannot read whether it keeps its data on disk; appendonly should be yes"
        )
        return
    troubles = [
        name
        for name in ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")
        if info.get(name, "ok") != "ok"
    ]
    if troubles:
        said = f"it cannot write its data to disk ({', '.join(troubles)})"
        yield Finding(
            Level.ERROR, check, said, "check its log, its disk and the permissions of its directory"
        )
    elif not int(info["aof_enabled"]):
        said = "appendonly is off: jobs do not survive a restart of Redis"
        yield Finding(Level.WARNING, check, said, "CONFIG SET appendonly yes, and the same in redis.conf")
    else:
        yield Finding(Level.OK, check, "appendonly is on, and the last writes to disk went well")


def _takes_writes(client: redis.Redis) -> Finding:
    """Run the commands of the ledger, the queue and the result store in one script, which removes all it wrote."""
    mark = f"doctor-{secrets.token_hex(8)}"
    keys = [
        f"{kind}{mark}"
        for kind in (
            "snapferry:job:",
            "celery-task-meta-",
            "snapferry.unacked-",
            "snapferry.",
            "_kombu.binding.",
        )
    ]
    try:
        refused = str(client.eval(TRY_WRITES.text, len(keys), *keys))
    except RedisError as error:
        refused = str(error)
    if refused:
        said = f"it refuses writes of ledger, queue and result store: {refused[:200]}"
        advice = "check its role, disk and memory, and that its user may run scripts and write all keys"
        return Finding(Level.ERROR, "broker.writes", said, advice)
    return Finding(Level.OK, "broker.writes", "it accepts the writes of ledger, queue and result store")
