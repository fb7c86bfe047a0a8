"""
Decide what is told, and send it.

One process at a time does so, whichever of those with `[notify]` in their configuration gets the lock. A decision is
recorded together with its message, so a process that dies in between loses nothing. Events are gathered for a while, so
that ten thousand failed jobs are one message. A receiver that does not take a message gets it again, ever more slowly,
for a day.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from redis.exceptions import LockError
from redis.lock import Lock

from snapferry.orchestrator.notify.records import (
    MOST_MESSAGES,
    Delivery,
    NotificationLedger,
    NotLocked,
    PendingMessage,
    release,
)
from snapferry.workers.ledger import FreshnessLedger, Ledger
from snapferry.workers.settings.environment import InvalidSettings
from snapferry.workers.settings.notify_table import Notify, label_of, receivers
from snapferry.workers.telemetry.logs import fields

from .decide import decide
from .facts import gather, standings_of
from .send import Sent, is_installed, send
from .texts import Text, compose

log = logging.getLogger(__name__)

PAUSES_S: Final = (15, 60, 300, 900, 3600, 3 * 3600, 6 * 3600, 10 * 3600)
"""Seconds between the tries to send a message to a receiver. After the last one it is given up."""

NOT_INSTALLED: Final = "Apprise is not installed; run: pip install 'snapferry[notify]'"

Send = Callable[[str, Text], Sent]


class Notifier:
    """
    Tells the *urls* what *table* wants told. Make it once in a process.

    *again* is the command that a message advises on a machine without a fleet, see `compose`.
    """

    def __init__(
        self, table: Notify, urls: Sequence[str], *, send: Send = send, again: Sequence[str] | None = None
    ) -> None:
        self._again = again
        self._table = table
        self._urls = {label_of(number, url): url for number, url in enumerate(urls, 1)}
        self._send = send
        # When this process first saw something to tell, on the monotonic clock.
        self._pending_since: float | None = None

    def round(self, ledger: Ledger) -> None:
        """Do what is to be done now. Raises `RedisError`; may be called again, by any process."""
        records = NotificationLedger(ledger.client)
        lock = records.lock()
        if not lock.acquire(blocking=False):
            return
        try:
            self._decide(ledger, records, lock)
            self._send_waiting(ledger, records, lock)
        except (NotLocked, LockError):
            log.info("another process sends notifications by now")
        finally:
            release(lock)

    def _decide(self, ledger: Ledger, records: NotificationLedger, lock: Lock) -> None:
        if self._gathers() or len(records.waiting()) >= MOST_MESSAGES:
            return
        # A clock that was set back delays nothing.
        if 0 <= FreshnessLedger(ledger.client).now() - records.told_at() < self._table.interval_s:
            return
        known = records.problems()
        facts = gather(ledger, known)
        decision = decide(facts, known, self._table)
        if not decision.events:
            self._pending_since = None
            if decision.told or decision.problems:
                records.commit(lock, None, told=decision.told, problems=decision.problems)
            return
        if self._pending_since is None:
            self._pending_since = time.monotonic()
            if self._gathers():
                return
        schedules = standings_of(ledger, decision.events)
        text = compose(decision.events, schedules, self._table, facts.now, self._again)
        message = PendingMessage(
            text.id, text.title, text.body, text.kind, facts.now, dict.fromkeys(self._urls, Delivery())
        )
        records.commit(lock, message, told=decision.told, problems=decision.problems)
        self._pending_since = None
        log.info(
            "notification queued: %s",
            text.title,
            extra=fields(notification=text.id, events=len(decision.events)),
        )

    def _gathers(self) -> bool:
        """Return whether there is something to tell, and more is waited for."""
        pending = self._pending_since
        return pending is not None and time.monotonic() - pending < self._table.wait_s

    def _send_waiting(self, ledger: Ledger, records: NotificationLedger, lock: Lock) -> None:
        for waiting in records.waiting():
            message = waiting
            for label, delivery in waiting.left.items():
                if delivery.next_at > FreshnessLedger(ledger.client).now():
                    continue
                # Sending takes less time than the lock lasts.
                lock.reacquire()
                after, result = self._send_one(message, label, delivery, FreshnessLedger(ledger.client).now)
                left = {name: one for name, one in message.left.items() if name != label}
                message = replace(message, left=left | ({} if after is None else {label: after}))
                records.delivered(message, result)

    def _send_one(
        self, message: PendingMessage, label: str, delivery: Delivery, now: Callable[[], float]
    ) -> tuple[Delivery | None, str]:
        """Send a message to one receiver; return when it is sent again, None if it is not, and the result to count."""
        about = fields(notification=message.id, receiver=label, tries=delivery.tries + 1)
        url = self._urls.get(label)
        if url is None:
            log.warning(
                "notification dropped: its receiver is not in the configuration any more", extra=about
            )
            return None, ""
        sent = self._send(url, Text(message.id, message.title, message.body, message.kind))
        if sent.ok:
            log.info("notification sent", extra=about)
            return None, "sent"
        if delivery.tries >= len(PAUSES_S):
            log.error("notification given up: %s", sent.reason, extra=about)
            return None, "given_up"
        pause = PAUSES_S[delivery.tries]
        log.warning("notification not sent, trying again in %d s: %s", pause, sent.reason, extra=about)
        return Delivery(delivery.tries + 1, now() + pause), "failed"


def notifier_of(table: Notify, *, again: Sequence[str] | None = None) -> Notifier | None:
    """
    Return what tells the receivers of *table*, None if it has none that can be told; the log then says why.

    *again* as for `Notifier`.
    """
    urls: tuple[str, ...] = ()
    problem = ""
    try:
        urls = receivers(table)
    except InvalidSettings as error:
        problem = str(error)
    if urls and not is_installed():
        problem = NOT_INSTALLED
    if problem:
        log.error("no notifications are sent: %s", problem)
        return None
    if not urls:
        return None
    log.info("notifications are sent", extra=fields(receivers=[label_of(*one) for one in enumerate(urls, 1)]))
    return Notifier(table, urls, again=again)
