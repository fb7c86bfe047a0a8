"""Celery's consumer, but no message can end it: what raises where it is received is set aside, once, and logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.stores.text.printable import printable

log = logging.getLogger(__name__)

# What tells of a connection and not of the message. Kombu counts a KeyError among these; here it is the message's.
_CONNECTION: Final = (RedisError, OSError, OperationalError, MemoryError)


class GuardedConsumer(Consumer):
    """For Celery's setting ``worker_consumer``."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Log what Celery's own line does not say, then let it connect again."""
        log.warning("the broker failed: %s: %s", type(exc).__name__, printable(str(exc))[:400])
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Return what is called with each message of a task."""
        receive = super().create_task_handler(*arguments, **options)

        def on_task_received(message: Any) -> None:
            try:
                receive(message)
            except _CONNECTION:
                raise
            except Exception as error:
                log.exception("a message cannot be received")
                message.channel.quarantine(message, f"receiving it raised {type(error).__name__}: {error}")
                if not message.acknowledged:
                    message.reject_log_error(log, self.connection_errors)
            if message.headers.get("redelivered"):
                message.channel.outlived(message)

        return on_task_received
