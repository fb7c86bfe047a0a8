"""Metrics of the scrubs that are in the schedule, which an orchestrator reads from Redis when it is scraped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import redis
from pydantic import ValidationError

from snapferry.workers.ledger import ScrubLedger
from snapferry.workers.messages import ScrubMessage
from snapferry.workers.telemetry.metrics.catalogue import by_name, of_the_fleet

SCRUB_METRICS: Final = by_name(
    of_the_fleet(
        "scrub_oldest_unverified_seconds",
        "Seconds since the share of a store was read whose reading is the longest ago; since the scrub was first"
        " scheduled, while a share has never been read.",
        "scrub",
    ),
    of_the_fleet(
        "scrub_period_seconds", "Seconds in which the runs of a scrub should read the whole store.", "scrub"
    ),
    of_the_fleet(
        "scrub_interval_seconds",
        "Seconds between two runs of a scrub; for a cron expression, their mean.",
        "scrub",
    ),
    of_the_fleet(
        "scrub_last_success_age_seconds",
        "Seconds since a run of a scrub last ended and had read what it had to, whatever it found; since the scrub"
        " was first scheduled, if none has.",
        "scrub",
    ),
    of_the_fleet(
        "scrub_findings",
        "Wrong and missing objects by the last reading of each share, and manifests that the last run could not"
        " use.",
        "scrub",
    ),
    of_the_fleet(
        "scrub_findings_total",
        "Wrong and missing objects and unusable manifests that runs of a scrub found. What two runs find counts"
        " twice.",
        "scrub",
        kind="counter",
    ),
)


def ask_scrubs(
    client: redis.Redis, now: float, in_time: Callable[[], None], add: Callable[[str, float, str], None]
) -> None:
    """
    Call *add* with the name, the value and the scrub of each metric. *now* is the time of Redis.

    *in_time* is called before each scrub, and raises when the time is over. Raises `RedisError`.
    """
    scrubs = ScrubLedger(client)
    for name, found in scrubs.scheduled():
        in_time()
        try:
            message = ScrubMessage.model_validate(found)
        except ValidationError:
            continue
        add("scrub_interval_seconds", message.interval, name)
        add("scrub_period_seconds", message.period, name)
        state = scrubs.state(name)
        if state is None:
            continue
        add("scrub_oldest_unverified_seconds", max(0.0, now - state.oldest_at), name)
        add("scrub_last_success_age_seconds", max(0.0, now - (state.succeeded_at or state.began_at)), name)
        add("scrub_findings", state.findings, name)
        add("scrub_findings_total", state.findings_total, name)
