"""Redis is killed, frozen, cut off, read-only, full, flushed, failed over. One of these happens at a time."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator

import redis

from tests.chaos.failover import fail_over
from tests.chaos.world import World

from .registry import NotPossible, fault

# Every connection is cut this often, so that new ones are cut while they recover.
_CUTS = 4


def _client(world: World) -> redis.Redis:
    return redis.Redis.from_url(world.redis.url, decode_responses=True, socket_timeout=5)


@fault("Redis killed and started", (0.1, 12.0))
def killed(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_lock:
        world.redis.kill()
        try:
            yield ""
        finally:
            world.redis.start()


@fault("Redis frozen", (2.0, 30.0))
def frozen(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_lock:
        process = world.redis.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield ""
        finally:
            process.send_signal(signal.SIGCONT)


@fault("Redis' clients cut")
def cut(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_lock, _client(world) as client:
        for _ in range(_CUTS):
            client.client_kill_filter(_type="normal", skipme=True)
            client.client_kill_filter(_type="pubsub", skipme=True)
            time.sleep(0.3)
        yield ""


@fault("Redis read-only", (2.0, 12.0))
def read_only(world: World, chance: random.Random) -> Iterator[str]:
    """Make it a replica of nobody, as it is for a moment in a failover."""
    with world.redis_lock, _client(world) as client:
        client.replicaof("127.0.0.1", 1)
        try:
            yield ""
        finally:
            client.replicaof("NO", "ONE")


@fault("Redis full", (2.0, 12.0))
def full(world: World, chance: random.Random) -> Iterator[str]:
    with world.redis_lock, _client(world) as client:
        client.config_set("maxmemory", "1mb")
        try:
            yield ""
        finally:
            client.config_set("maxmemory", "0")


@fault("Redis holds writes back", (2.0, 10.0))
def writes_held(world: World, chance: random.Random) -> Iterator[str]:
    """Reads are answered, writes are not."""
    with world.redis_lock, _client(world) as client:
        client.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
        try:
            yield ""
        finally:
            client.execute_command("CLIENT", "UNPAUSE")


@fault("Redis flushed", forgets=True)
def flushed(world: World, chance: random.Random) -> Iterator[str]:
    """Let Redis forget everything: the jobs are gone, the fleet is not."""
    with world.redis_lock, world.forgetting(), _client(world) as client:
        client.flushall()
    yield ""


@fault("Redis failed over", forgets=True)
def failed_over(world: World, chance: random.Random) -> Iterator[str]:
    """Kill it while it writes; a replica that may lack the last writes takes over its address."""
    with world.redis_lock, world.forgetting():
        try:
            fail_over(world.redis, world.folder)
        except (redis.RedisError, AssertionError) as error:
            raise NotPossible(f"no replica could be made: {error}") from error
    yield ""
