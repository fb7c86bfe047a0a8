"""An orchestrator announces itself in Redis while it runs, so that its absence can be told from its silence."""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import Celery, signals
from redis.exceptions import RedisError

from snapferry.workers.broker.connection import client
from snapferry.workers.lifecycle.orchestrator_roster import ANNOUNCE_S, OrchestratorRoster
from snapferry.workers.queues import PLAN_QUEUE
from snapferry.workers.settings.environment import Settings

log = logging.getLogger(__name__)


def attach(app: Celery, settings: Settings) -> None:
    """Announce each worker of *app* that serves the queue of orchestrators, for as long as it runs."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def run(name: str) -> None:
        assert settings.broker_url is not None  # the app refuses settings without a broker
        roster = OrchestratorRoster(client(settings.broker_url, retries=0))
        while True:
            try:
                roster.announce(name)
            except RedisError as error:
                # The reconciler of the same process warns.
                log.debug("cannot announce this orchestrator: %s", error)
            if ended.wait(ANNOUNCE_S):
                break
        try:
            roster.leave(name)
        except RedisError as error:
            log.debug("cannot leave the roster: %s", error)

    def ready(sender: Any = None, **_: Any) -> None:
        if sender.app is app and not threads and PLAN_QUEUE in app.amqp.queues.consume_from:
            threads.append(
                threading.Thread(target=run, args=(sender.hostname,), name="presence", daemon=True)
            )
            threads[0].start()

    def shutting_down(sender: Any = None, **_: Any) -> None:
        ended.set()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutting_down, weak=False)
