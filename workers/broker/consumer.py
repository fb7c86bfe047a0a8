"""Celery's consumer, which no message can end: a message that raises on receipt is quarantined and logged."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from celery.worker.consumer import Consumer
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.stores.text.printable import printable

log = logging.getLogger(__name__)

# Errors of the connection, not of the message. Kombu counts KeyError among these; here it belongs to the message.
_CONNECTION: Final = (RedisError, OSError, OperationalError, MemoryError)


class GuardedConsumer(Consumer):
    """For Celery's setting ``worker_consumer``."""

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Log the error, which Celery's own line omits, then let Celery reconnect."""
        log.warning("broker connection lost: %s: %s", type(exc).__name__, printable(str(exc))[:400])
        super().on_connection_error_after_connected(exc)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        """Return the function that is called with each message of a task."""
        receive = super().create_task_handler(*arguments, **options)

        def on_task_received(message: Any) -> None:
            try:
                receive(message)
            except _CONNECTION:
                raise
            except Exception as error:
                log.exception("uncaught exception on receipt of a message")
                message.channel.quarantine(message, f"receiving it raised {type(error).__name__}: {error}")
                if not message.acknowledged:
                    message.reject_log_error(log, self.connection_errors)
            if message.headers.get("redelivered"):
                message.channel.note_handled(message)

        return on_task_received
