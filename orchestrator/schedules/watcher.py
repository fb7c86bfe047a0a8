"""
Look after what should run, while no job and no scheduler does anything.

Every few seconds one orchestrator settles the jobs that have ended, and records what its configuration expects to run,
so that lateness is noticed although nothing runs, and although Redis has lost its data.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from redis.exceptions import LockError

from snapferry.orchestrator.periodic import Periodic
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
    Settles ended jobs, and records what is expected to run, in each round.

    *further* is called with the ledger after that: it may send notifications.
    """

    def __init__(self, settings: Settings, further: Round | None = None) -> None:
        self._settings = settings
        self._further = further
        self._config = configuration(settings)
        self._expected_at = 0.0

    def thread(self) -> Periodic:
        """Return a thread that does a round every `ROUND_S` seconds. It is not started."""
        return Periodic(
            "watcher",
            self._settings,
            self.round,
            every_s=ROUND_S,
            log=log,
            broker_down="cannot look after schedules: the broker is down",
            uncaught="uncaught exception while looking after schedules",
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
