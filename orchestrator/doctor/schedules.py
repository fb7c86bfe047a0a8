"""Checks of what should run, and of who is told if it does not."""

from __future__ import annotations

from collections.abc import Iterator

import redis

from snapferry.orchestrator.notify.notifier import NOT_INSTALLED
from snapferry.orchestrator.notify.records import NotificationLedger
from snapferry.orchestrator.notify.send import is_installed
from snapferry.orchestrator.reporting.text.format import duration, moment
from snapferry.orchestrator.schedules.lateness import Lateness, cause_text, lateness, standings
from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.text.format import counted
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import Freshness, FreshnessLedger, Ledger
from snapferry.workers.settings.config_file import Config, read_config
from snapferry.workers.settings.environment import InvalidSettings, Settings
from snapferry.workers.settings.notify_table import receivers

# Vain tries after which a message that waits is a warning: a receiver may restart.
_MOST_TRIES = 2


def check_schedules(client: redis.Redis, settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each mirror and scrub that is late, and findings about notifications."""
    expected = FreshnessLedger(client).freshness()
    late = [one for one in expected if one.late]
    ledger = Ledger(client, expires_s=settings.job_expires)
    runs = standings(client, late, ledger.statuses)
    for one in late:
        yield _late(one, lateness(one, runs[one.expected.key]))
    if expected:
        state = "" if late else "; none is late"
        said = f"{counted(len(expected), 'mirror or scrub', 'mirrors and scrubs')} should run{state}"
        yield Finding(Level.OK, "schedules", said)
    yield from _check_receivers(settings)
    yield from _check_waiting(client)


def _late(one: Freshness, found: Lateness) -> Finding:
    kind, name = one.expected.kind, one.expected.name
    success = f"last succeeded at {moment(one.success_at)}" if one.success_at else "has never succeeded"
    late = f"{kind} {name} {success}, and has been late for {duration(one.now - one.late_at)}"
    return Finding(
        Level.WARNING, "schedules.late", f"{late}. {cause_text(found)}", printable(found.advice.text)
    )


def _check_receivers(settings: Settings) -> Iterator[Finding]:
    try:
        urls = receivers((read_config(settings.config) if settings.config else Config()).notify)
    except InvalidSettings as error:
        yield Finding(Level.WARNING, "notify", f"nobody is notified: {error}", "see docs/notify.md")
        return
    if urls and not is_installed():
        yield Finding(Level.WARNING, "notify", "nobody is notified by this machine", NOT_INSTALLED)
    elif urls:
        said = f"{counted(len(urls), 'receiver')} of notifications"
        yield Finding(Level.OK, "notify", said, "to send a test message: snapferry notify --test")


def _check_waiting(client: redis.Redis) -> Iterator[Finding]:
    for message in NotificationLedger(client).waiting():
        tries = max((one.tries for one in message.left.values()), default=0)
        if tries > _MOST_TRIES:
            times = counted(tries, "time")
            receivers = ", ".join(message.left)
            said = f"sending a notification of {moment(message.made_at)} to {receivers} failed {times}"
            yield Finding(Level.WARNING, "notify.waiting", said, "snapferry notify --test shows why")
