"""
Celery's Redis result backend, which waits through an outage of Redis.

Celery counts a finished part of a chord by one Lua call, on a connection that does not retry. While Redis restarts,
that call fails, the part is recorded as failed although its work is done, and the chord never calls back. So the call
is repeated until Redis answers. That is harmless: Celery 5.7 counts each part once, by its id.
"""

from __future__ import annotations

import time
from typing import Any

from celery.backends.redis import RedisBackend

from .connecting.pool import connection_pool
from .connection import OUTAGE, PatientRedis
from .transport import BROKER

# Well below the visibility timeout. After that, another worker runs the part again anyway.
PATIENCE_S = 900.0


class PatientRedisBackend(RedisBackend):
    """As `RedisBackend`, but it waits for Redis to count a finished part of a chord."""

    def _create_client(self, **_: Any) -> Any:
        # Celery's own parameters are from a URL that holds no password.
        return PatientRedis.from_pool(connection_pool(self.app.conf.broker_transport_options[BROKER]))

    def _add_driver_info(self) -> None:
        """Leave the parameters of Celery's own connections alone, which are not used."""

    def on_chord_part_return(
        self, request: Any, state: Any, result: Any, propagate: Any = None, **kwargs: Any
    ) -> Any:
        """Count a finished part. Raises the error of Redis after an outage of `PATIENCE_S` seconds."""
        deadline = time.monotonic() + PATIENCE_S
        pause = 0.1
        while True:
            try:
                return super().on_chord_part_return(request, state, result, propagate=propagate, **kwargs)
            except OUTAGE:
                if time.monotonic() > deadline:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 5.0)
