"""
Celery's Redis result backend, which waits through an outage of Redis, and for nothing else.

Celery counts a finished part of a chord by one Lua call, on a connection that does not retry. While Redis restarts,
that call fails, the part is recorded as failed although its work is done, and the chord never calls back. So the call
is repeated until Redis answers. That is harmless: Celery 5.7 counts each part once, by its id.

No process reads results: jobs are followed by their ledger. Celery 5.7 waits for the result of each task in the header
of a chord all the same, from the moment when the chord is queued. It subscribes to a channel of Redis for each of them
and keeps an object for each, 5 to 6 KB per job, until the process ends. So nothing is waited for here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from celery.backends.redis import RedisBackend

from .connecting.pool import connection_pool
from .connection import OUTAGE, PatientRedis
from .transport import BROKER

# Well below the visibility timeout. After that, another worker runs the part again anyway.
PATIENCE_S = 900.0


class PatientRedisBackend(RedisBackend):
    """As `RedisBackend`, but it waits for Redis to count a finished part of a chord, and never for a result."""

    def _create_client(self, **_: Any) -> Any:
        # Celery's own parameters are from a URL that holds no password.
        return PatientRedis.from_pool(connection_pool(self.app.conf.broker_transport_options[BROKER]))

    def _add_driver_info(self) -> None:
        """Leave the parameters of Celery's own connections alone, which are not used."""

    def add_pending_result(self, result: Any, weak: bool = False, start_drainer: bool = True) -> Any:
        """Return *result*, and do not wait for it."""
        return result

    def add_pending_results(self, results: Iterable[Any], weak: bool = False) -> list[Any]:
        """Return *results*, and do not wait for them."""
        return list(results)

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
