"""
Look after what should run, while no job and no scheduler does anything.

Every few seconds one orchestrator settles the jobs that have ended, and records what its configuration expects to run,
so that lateness is noticed although nothing runs, and although Redis has lost its data.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from celery import Celery, signals
from redis.exceptions import LockError, RedisError

from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import FreshnessLedger, Ledger
from snapferry.workers.lua import RedisKey
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings

from .schedule import expected_of
from .settle import settle_ended

log = logging.getLogger(__name__)

# Seconds between two rounds of a process, and between two times that it records what is expected.
ROUND_S: Final = 5.0
EXPECT_S: Final = 60.0

# Seconds after which another process may settle jobs although this one has not finished.
_LOCK_S: Final = 60

_LOCK: Final = RedisKey("snapferry:watcher")

Round = Callable[[Ledger], None]


class Watcher:
    """
    A thread that settles ended jobs, and records what is expected to run, every `ROUND_S` seconds.

    *further* is called with the ledger after that, in each round: it may send notifications. No error ends the thread.
    """

    def __init__(self, settings: Settings, further: Round | None = None) -> None:
        self._settings = settings
        self._further = further
        self._config = configuration(settings)
        self._expected_at = 0.0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. May be called again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread after its current round."""
        self._ended.set()

    def _run(self) -> None:
        assert self._settings.broker_url is not None  # the app refuses settings without a broker
        ledger = Ledger(client(self._settings.broker_url, retries=0), expires_s=self._settings.job_expires)
        while not self._ended.wait(ROUND_S):
            try:
                self.round(ledger)
            except RedisError as error:
                log.warning("cannot look after schedules: the broker is down: %s", error)
            except Exception:
                log.exception(
                    "uncaught exception while looking after schedules; trying again in %d s", ROUND_S
                )

    def round(self, ledger: Ledger) -> None:
        """Do what is to be done now. Raises `RedisError`; may be called again."""
        freshness = FreshnessLedger(ledger.client)
        if time.monotonic() - self._expected_at > EXPECT_S or not self._expected_at:
            freshness.expect(expected_of(self._config), replace=False)
            self._expected_at = time.monotonic()
        lock = ledger.client.lock(_LOCK, timeout=_LOCK_S)
        if lock.acquire(blocking=False):
            try:
                settle_ended(ledger, freshness)
                freshness.forget_untold()
            finally:
                # The lock may have expired, and another process may have it now.
                with suppress(LockError):
                    lock.release()
        if self._further is not None:
            self._further(ledger)


def configuration(settings: Settings) -> Config:
    """Return the configuration of this process, empty if it has none that can be read: its role has reported that."""
    try:
        return read_config(settings.config) if settings.config else Config()
    except InvalidSettings:
        return Config()


def attach(app: Celery, watcher: Watcher) -> None:
    """Let *watcher* run for as long as a worker of *app* runs."""

    def ready(sender: Any = None, **_: Any) -> None:
        if sender.app is app:
            watcher.start()

    def shutdown(sender: Any = None, **_: Any) -> None:
        watcher.stop()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutdown, weak=False)
