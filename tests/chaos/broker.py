"""The Redis of a run: one server that is killed and started again, or a primary and a replica with three sentinels."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis

from tests.integration.own_redis import OwnRedis, own_redis
from tests.integration.processes import until
from tests.sentinels import SentinelSet, Server, sentinel_set

from .failover import fail_over

# Redis confirms only what the system has: a killed one then forgets nothing.
_DURABLE: Final = ("--appendonly", "yes", "--appendfsync", "always")


class SingleBroker:
    """A Redis alone. It is not started by others when it is away."""

    forgets = False

    def __init__(self, server: OwnRedis, folder: Path) -> None:
        self.server = server
        self._folder = folder

    @property
    def url(self) -> str:
        return self.server.url

    def settle(self) -> None:
        """Wait for nothing: it is as it is."""

    def client(self, *, timeout_s: float = 5) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=timeout_s)

    @contextmanager
    def killed(self) -> Iterator[None]:
        self.server.kill()
        try:
            yield
        finally:
            self.server.start()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        with _frozen(self.server.process):
            yield

    def fail_over(self) -> None:
        """Let a replica take over the address of the server, which is killed while it writes."""
        fail_over(self.server, self._folder)


class SentinelBroker:
    """A primary, a replica and three sentinels, which notice after a second that the primary is away."""

    forgets = True

    def __init__(self, running: SentinelSet) -> None:
        self.running = running

    @property
    def url(self) -> str:
        return self.running.url

    def settle(self) -> None:
        """Wait until a failover is possible again: a server that comes back needs a while for that."""
        self.running.primary()
        until(self.running.in_sync, "the replica follows the primary")

    def client(self, *, timeout_s: float = 5) -> redis.Redis:
        primary = self.running.primary()
        return redis.Redis(
            host="127.0.0.1", port=primary.port, decode_responses=True, socket_timeout=timeout_s
        )

    @contextmanager
    def killed(self) -> Iterator[None]:
        """Kill the primary, and start it again in the end."""
        with self._restarted(self.running.primary()):
            yield

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the primary, and continue it in the end."""
        with _frozen(self.running.primary().process):
            yield

    @contextmanager
    def failed_over(self) -> Iterator[None]:
        """Kill the primary while it writes, until the sentinels have named another, and for a while after that."""
        old = self.running.primary()
        self.running.failover()
        try:
            yield
        finally:
            old.start()

    @contextmanager
    def replica_killed(self) -> Iterator[None]:
        """Kill the replica, and start it again in the end."""
        primary = self.running.primary()
        with self._restarted(next(one for one in self.running.servers if one is not primary)):
            yield

    @contextmanager
    def sentinel_killed(self, number: int) -> Iterator[None]:
        """Kill one of the sentinels, and start it again in the end."""
        with self._restarted(self.running.sentinels[number % len(self.running.sentinels)]):
            yield

    @contextmanager
    def _restarted(self, server: Server) -> Iterator[None]:
        server.kill()
        try:
            yield
        finally:
            server.start()


@contextmanager
def _frozen(process: subprocess.Popen[bytes] | None) -> Iterator[None]:
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


@contextmanager
def broker(folder: Path, *, sentinels: bool) -> Iterator[SingleBroker | SentinelBroker]:
    """Run a Redis for the block, with *sentinels* or alone; its data is in *folder*."""
    if sentinels:
        with sentinel_set(folder, replicas=1, appendfsync="always") as running:
            yield SentinelBroker(running)
        return
    with own_redis(folder, "--port", "{port}", *_DURABLE) as server:
        yield SingleBroker(server, folder.parent)
