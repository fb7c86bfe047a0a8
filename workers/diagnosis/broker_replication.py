"""Checks of what survives a failover: which server is the primary, its replicas, its disk, and the sentinels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

import redis
from redis.exceptions import RedisError, ResponseError

from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import printable
from snapferry.workers.broker.connecting.pool import sentinel_clients
from snapferry.workers.broker.connecting.sentinels import ask
from snapferry.workers.settings.broker_url import BrokerURL

FEWEST_SENTINELS: Final = 3
"""With fewer, the loss of one machine can make a failover impossible."""


def check_role(info: Mapping[str, Any], client: redis.Redis) -> Finding:
    """Return whether the server is a primary, and which one; *client* has asked it."""
    check = "broker.role"
    if info.get("role") == "slave":
        said = f"it is a replica of {info.get('master_host')}:{info.get('master_port')}"
        return Finding(
            Level.ERROR, check, said, "name the primary, or its sentinels, in SNAPFERRY_BROKER_URL"
        )
    if int(info.get("cluster_enabled", 0)):
        said = "it is part of a cluster, where a script cannot use keys of several nodes"
        return Finding(Level.ERROR, check, said, "use a single Redis, with or without replicas")
    named = getattr(client.connection_pool, "master_address", None)
    place = f", {named[0]}:{named[1]}," if named else ","
    return Finding(Level.OK, check, f"it is a primary{place} and not part of a cluster")


def check_replicas(info: Mapping[str, Any], *, expected: bool) -> Iterator[Finding]:
    """Yield findings about the replicas; with sentinels there must be some (*expected*)."""
    check = "broker.replicas"
    count = int(info.get("connected_slaves", 0))
    if not count:
        if expected:
            said = "the primary has no replica: if it is lost, there is nothing to fail over to"
            yield Finding(Level.WARNING, check, said, "start a replica, or see why it is not connected")
        return
    replicas = counted(count, "replica")
    if "min_slaves_good_slaves" in info:
        yield Finding(Level.OK, check, f"{replicas}; it takes no writes when too few of them follow")
        return
    said = f"{replicas}; a primary that is cut off from them goes on to take writes, which the failover loses"
    advice = "CONFIG SET min-replicas-to-write 1 and min-replicas-max-lag 10, and the same in redis.conf"
    # With one replica, Redis would take no writes while that one is away.
    yield Finding(Level.WARNING if count > 1 else Level.NOTE, check, said, advice)


def check_sync(client: redis.Redis) -> Iterator[Finding]:
    """Yield whether Redis syncs its writes to disk; nothing where CONFIG may not be read."""
    try:
        found: Any = client.config_get("appendfsync")
        mode = str(found.get("appendfsync", ""))
    except (RedisError, AttributeError):
        return
    check = "broker.appendfsync"
    if mode == "no":
        said = "appendfsync is no: with the machine, Redis loses the writes of up to half a minute"
        yield Finding(
            Level.WARNING, check, said, "CONFIG SET appendfsync everysec, and the same in redis.conf"
        )
    elif mode:
        lost = "no write" if mode == "always" else "the writes of at most two seconds"
        yield Finding(Level.OK, check, f"appendfsync is {mode}: with the machine, Redis loses {lost}")


def check_sentinels(broker: BrokerURL) -> Iterator[Finding]:
    """Yield findings about each sentinel of *broker*: does it answer, what does it name, could it fail over."""
    if not broker.master_name:
        return
    check = "broker.sentinels"
    named: Counter[str] = Counter()
    faults, states = [], []
    for place, client in sentinel_clients(broker):
        with client:
            try:
                host, port = ask(client, broker.master_name, broker.allowed_hosts)
                named[f"{host}:{port}"] += 1
            except (RedisError, OSError) as error:
                faults.append(f"{place}: {printable(str(error).rstrip('.')[:150])}")
                continue
            states.append(_quorum(client, broker.master_name))
    count = len(broker.hosts)
    if not named:
        yield Finding(Level.ERROR, check, f"no sentinel answers: {'; '.join(faults)}"[:500], _ADVICE)
        return
    place, votes = named.most_common(1)[0]
    said = f"{votes} of {counted(count, 'sentinel')} name {place}"
    if len(named) > 1:
        others = ", ".join(sorted(set(named) - {place}))
        yield Finding(Level.ERROR, check, f"{said}, others {others}", "see the logs of the sentinels")
    elif faults:
        yield Finding(Level.WARNING, check, f"{said}; {'; '.join(faults)}"[:500], _ADVICE)
    elif refused := next(filter(None, states), ""):
        advice = "start the other sentinels; a failover needs the votes of most of them"
        yield Finding(Level.ERROR, check, f"{said}, but a failover is not possible: {refused}", advice)
    elif count < FEWEST_SENTINELS:
        said += ": with fewer than 3, the loss of one can make a failover impossible"
        yield Finding(
            Level.WARNING, check, said, "run 3 sentinels on 3 machines, and name all of them in the URL"
        )
    else:
        yield Finding(Level.OK, check, f"{said}, and a failover is possible")


_ADVICE: Final = (
    "check that they run, their hosts and ports in the URL, sentinel_password, and their certificates"
)


def _quorum(client: redis.Redis, name: str) -> str:
    """Return why the sentinels could not fail over, "" if they could."""
    try:
        execute: Any = client.execute_command
        execute("SENTINEL CKQUORUM", name)
    except ResponseError as error:
        text = printable(str(error)[:200])
        # A user without the right to ask is no finding.
        return text if text.startswith("NOQUORUM") else ""
    except (RedisError, OSError):
        return ""
    return ""
