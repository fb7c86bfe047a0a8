"""
Redis is killed, frozen, cut off, read-only, full, flushed, failed over. One of these happens at a time.

In rounds with sentinels a primary that is killed, frozen, a replica or without writes for more than a second is failed
over, too. So each fault begins when the replica has all that the primary has: a failover to an older one would lose
minutes, and no fleet could do anything about that.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import redis

from tests.chaos.broker import SentinelBroker, SingleBroker
from tests.chaos.world import World

from .registry import NeverPossible, NotPossible, fault

# Every connection is cut this often, so that new ones are cut while they recover.
_CUTS = 4


@fault("Redis killed and started", (0.1, 12.0))
def killed(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_alone(), world.interrupting(), world.redis.killed():
        yield ""


@fault("Redis frozen", (2.0, 30.0))
def frozen(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_alone(), world.interrupting(), world.redis.frozen():
        yield ""


@fault("Redis' clients cut")
def cut(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_alone(), world.redis.client() as client:
        for _ in range(_CUTS):
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
            time.sleep(0.3)
        yield ""


@fault("Redis read-only", (2.0, 12.0))
def read_only(world: World, chance: random.Random) -> Iterator[str]:
    """Make it a replica of nobody, as it is for a moment in a failover."""
    with world.redis_alone(), world.interrupting(), world.redis.client() as client:
        client.replicaof("127.0.0.1", 1)
        try:
            yield ""
        finally:
            client.replicaof("NO", "ONE")


@fault("Redis full", (2.0, 12.0))
def full(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_alone(), world.redis.client() as client:
        client.config_set("maxmemory", "1mb")
        try:
            yield ""
        finally:
            client.config_set("maxmemory", "0")


@fault("Redis holds writes back", (2.0, 10.0))
def writes_held(world: World, chance: random.Random) -> Iterator[str]:
    """Reads are answered, writes are not. The sentinels write, too, and get no answer."""
    with world.redis_alone(), world.interrupting(), world.redis.client() as client:
        client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        try:
            yield ""
        finally:
            client.execute_command("CLIENT", "UNPAUSE")


@fault("Redis flushed", forgets=True)
def flushed(world: World, chance: random.Random) -> Iterator[str]:
    """Let Redis forget everything: the jobs are gone, the fleet is not."""
    with world.redis_alone(), world.forgetting(), world.redis.client() as client:
        client.flushall()
    yield ""


@fault("Redis failed over", forgets=True, sentinels=False)
def failed_over(world: World, chance: random.Random) -> Iterator[str]:
    """Kill it while it writes; a replica that may lack the last writes takes over its address."""
    if not isinstance(world.redis, SingleBroker):
        raise NeverPossible("sentinels do this")
    with world.redis_alone(), world.forgetting():
        try:
            world.redis.fail_over()
        except (redis.RedisError, AssertionError) as error:
            raise NotPossible(f"no replica could be made: {error}") from error
    yield ""


def _with_sentinels(world: World) -> SentinelBroker:
    if not isinstance(world.redis, SentinelBroker):
        raise NeverPossible("no sentinel watches Redis")
    return world.redis


@fault("Redis failed over by sentinels", (0.0, 6.0), forgets=True, sentinels=True)
def failed_over_by_sentinels(world: World, chance: random.Random) -> Iterator[str]:
    """Kill the primary while it writes; the sentinels name the replica, and the dead one comes back as a replica."""
    with world.redis_alone(), world.forgetting(), _with_sentinels(world).failed_over():
        yield ""


@fault("Redis replica killed and started", (1.0, 10.0), sentinels=True)
def replica_killed(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_alone(), _with_sentinels(world).replica_killed():
        yield ""


@fault("sentinel killed and started", (1.0, 10.0), sentinels=True)
def sentinel_killed(world: World, chance: random.Random) -> Iterator[str]:
    """Kill one of three: the other two still vote."""
    number = chance.randrange(3)
    with world.redis_alone(), _with_sentinels(world).sentinel_killed(number):
        yield f"sentinel {number}"
