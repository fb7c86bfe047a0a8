"""A Redis of a test's own, to be killed and started again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import redis

from tests import servers

from .processes import PATIENCE_S, until


@dataclass
class OwnRedis:
    """A Redis of the test's own, to be killed and started again on the same port and data."""

    url: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it has read its data."""
        nowhere = subprocess.DEVNULL
        self.process = subprocess.Popen(self.command, stdin=nowhere, stdout=nowhere, stderr=nowhere)
        until(self._answers, "Redis answers")

    def kill(self) -> None:
        """SIGKILL it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, "Redis ended"
        with redis.Redis.from_url(self.url) as client, suppress(redis.RedisError):
            return bool(client.ping())
        return False


@contextmanager
def own_redis(folder: Path, *options: str, url: str = "redis://127.0.0.1:{port}/0") -> Iterator[OwnRedis]:
    """Run a Redis with *options*, in which ``{port}`` is its port, as in *url*; its data is in *folder*."""
    folder.mkdir()
    port = servers.free_port()
    command = [servers.redis_program(), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    command += ["--maxmemory-policy", "noeviction", *(option.format(port=port) for option in options)]
    server = OwnRedis(url.format(port=port), command)
    try:
        server.start()
        yield server
    finally:
        server.kill()
