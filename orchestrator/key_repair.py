"""Set keys aside that another program damaged, for as long as an orchestrator runs. Other commands only report them."""

from __future__ import annotations

import logging
from typing import Final

from celery import Celery
from redis.exceptions import NoPermissionError

from snapferry.orchestrator.periodic import Periodic
from snapferry.workers.ledger import Ledger
from snapferry.workers.ledger.damage import DAMAGED, KeyRepair
from snapferry.workers.settings.environment import Settings
from snapferry.workers.telemetry.logs import fields

log = logging.getLogger(__name__)

ROUND_S: Final = 5.0
"""Seconds between two rounds."""


def repair(keys: KeyRepair) -> int:
    """Set damaged keys aside, and log each; return how many. Raises `redis.exceptions.RedisError`."""
    found = keys.round()
    for one in found:
        log.error("damaged key set aside: %s", one, extra=fields(key=one.key, aside=f"{DAMAGED}{one.key}"))
    return len(found)


def attach(app: Celery, settings: Settings) -> None:
    """Repair keys for as long as a worker of *app* runs."""
    repairs: list[KeyRepair] = []

    def work(ledger: Ledger) -> None:
        # One object, because it remembers how far it looked.
        if not repairs:
            repairs.append(KeyRepair(ledger.client))
        try:
            repair(repairs[0])
        except NoPermissionError as error:
            log.debug("not allowed to look for damaged keys: %s", error)

    Periodic(
        "key-repair",
        settings,
        work,
        every_s=ROUND_S,
        log=log,
        broker_down="cannot look for damaged keys: the broker is down",
        uncaught="uncaught exception while looking for damaged keys",
    ).attach(app)
