"""What all parts of the ledger share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis

from snapferry.workers.lua import LuaScript, RedisKey, ScriptRunner


class LedgerBase:
    """The connection to one Redis server. Keys expire *expires_s* seconds after the last write."""

    def __init__(self, client: redis.Redis, *, expires_s: int) -> None:
        self._redis = client
        self._expires_s = expires_s
        self._runner = ScriptRunner(client)

    @property
    def client(self) -> redis.Redis:
        """The client, for other records on the same server."""
        return self._redis

    def _run(self, script: LuaScript, keys: Sequence[RedisKey], arguments: Sequence[str | float]) -> Any:
        return self._runner.run(script, keys, arguments)
