"""Work that an orchestrator or scheduler does every few seconds, in a thread of its own, while its worker runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from celery import Celery, signals
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import Ledger
from snapferry.workers.settings.environment import Settings


class Periodic:
    """
    A thread *name* that calls *work* with the ledger every *every_s* seconds. No error ends it.

    An error is logged by *log*: as *broker_down*, or as *uncaught* if it is no error of the broker. Making an object
    connects to nothing.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        work: Callable[[Ledger], None],
        *,
        every_s: float,
        log: logging.Logger,
        broker_down: str,
        uncaught: str,
    ) -> None:
        self._name = name
        self._settings = settings
        self._work = work
        self._every_s = every_s
        self._log = log
        self._broker_down = broker_down
        self._uncaught = uncaught
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. May be called again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread after its current round."""
        self._ended.set()

    def attach(self, app: Celery) -> None:
        """Let the thread run for as long as a worker of *app* runs."""

        def ready(sender: Any = None, **_: Any) -> None:
            if sender.app is app:
                self.start()

        def shutdown(sender: Any = None, **_: Any) -> None:
            self.stop()

        signals.worker_ready.connect(ready, weak=False)
        signals.worker_shutting_down.connect(shutdown, weak=False)

    def _run(self) -> None:
        assert self._settings.broker_url is not None  # the app refuses settings without a broker
        ledger = Ledger(client(self._settings.broker_url, retries=0), expires_s=self._settings.job_expires)
        while not self._ended.wait(self._every_s):
            try:
                self._work(ledger)
            except (RedisError, OperationalError) as error:
                self._log.warning("%s: %s", self._broker_down, error)
            except Exception:  # noqa: BLE001 - the log has it, and the next round may succeed
                self._log.exception("%s; trying again in %d s", self._uncaught, self._every_s)
