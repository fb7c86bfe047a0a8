"""Metrics of the last successes of mirrors, scrubs and stores, which an orchestrator reads from Redis at a scrape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import redis

from snapferry.stores.errors import InvalidStoreURL
from snapferry.workers.ledger import FreshnessLedger
from snapferry.workers.limits import store_id
from snapferry.workers.settings.config_file import read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings
from snapferry.workers.telemetry.metrics.catalogue import by_name, of_the_fleet

FRESHNESS_METRICS: Final = by_name(
    of_the_fleet(
        "mirror_last_success_timestamp_seconds",
        "When a job of a mirror, or a retry of it, was last done, in seconds since the epoch; missing if none was.",
        "mirror",
    ),
    of_the_fleet(
        "mirror_late_timestamp_seconds",
        "When a mirror is late unless a job of it is done before, in seconds since the epoch. A mirror that was"
        " removed from the schedule has it until it is forgotten.",
        "mirror",
    ),
    of_the_fleet(
        "scrub_last_success_timestamp_seconds",
        "When a run of a scrub last ended and had read what it had to, whatever it found, in seconds since the"
        " epoch; missing if none has.",
        "scrub",
    ),
    of_the_fleet(
        "scrub_late_timestamp_seconds",
        "When a scrub is late unless a run succeeds before, in seconds since the epoch; otherwise as for mirrors.",
        "scrub",
    ),
    of_the_fleet(
        "store_last_success_timestamp_seconds",
        "When a job that wrote to a store of the configuration was last done, in seconds since the epoch; missing"
        " if none was.",
        "store",
    ),
)


def named_stores(settings: Settings) -> dict[str, str]:
    """Return name -> id of the stores that the configuration names; none if it cannot be read."""
    try:
        config = read_config(settings.config) if settings.config else None
    except InvalidSettings:
        return {}
    found = {}
    for name, url in config.stores.items() if config is not None else ():
        try:
            found[name] = store_id(url)
        except InvalidStoreURL:
            continue
    return found


def ask_freshness(
    client: redis.Redis, stores: Mapping[str, str], add: Callable[[str, float, str], None]
) -> None:
    """
    Call *add* with the name, the value and the label of each metric. *stores* is name -> id of those to report.

    Raises `RedisError`.
    """
    ledger = FreshnessLedger(client)
    for one in ledger.freshness():
        kind, name = one.expected.kind, one.expected.name
        if one.success_at:
            add(f"{kind}_last_success_timestamp_seconds", one.success_at, name)
        if one.late_at:
            add(f"{kind}_late_timestamp_seconds", one.late_at, name)
    successes = ledger.store_successes(stores.values())
    for name, store in stores.items():
        if store in successes:
            add("store_last_success_timestamp_seconds", successes[store], name)
