"""The thread of a worker's main process that handles parked batches, and the queues that the worker consumes."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import Any

from celery import Celery, signals
from redis.exceptions import RedisError

from snapferry.stores.access import AccessPolicy
from snapferry.workers.broker.open_ledger import open_ledger
from snapferry.workers.queues import COPY_QUEUE, is_parking_queue
from snapferry.workers.settings.environment import Settings

from .parking import DRAIN_S, ROUND_S, Parking

log = logging.getLogger(__name__)


class _ParkingConsumer:
    """Lets a worker's consumer consume parking queues, besides the worker's own queues."""

    def __init__(self, app: Celery, consumer: Any) -> None:
        self._app = app
        self._consumer = consumer

    def take_from(self, queues: set[str]) -> None:
        """Consume *queues*, and no other parking queue."""
        if queues != self._current():
            # Only the event loop may use the consumer.
            self._consumer.call_soon(self._change, queues)

    def _current(self) -> set[str]:
        return {name for name in self._app.amqp.queues.consume_from if is_parking_queue(name)}

    def _change(self, queues: set[str]) -> None:
        current = self._current()
        try:
            for name in queues - current:
                self._consumer.add_task_queue(name)
            for name in current - queues:
                self._consumer.cancel_task_queue(name)
        except Exception as error:  # noqa: BLE001 - the broker is away; when it is back, the consumer is made anew
            log.warning("cannot change the queues of this worker: %s", error)


def _most_processes(controller: Any) -> int:
    """Return how many processes a worker has, or starts when it has work. Remote control may change it at any time."""
    autoscaler = getattr(controller, "autoscaler", None)
    return int(controller.pool.num_processes if autoscaler is None else autoscaler.max_concurrency)


def attach(app: Celery, settings: Settings, access: AccessPolicy) -> None:
    """Handle parked batches for as long as a worker of *app* runs that serves a copy queue."""
    ended = threading.Event()
    threads: list[threading.Thread] = []

    def run(consumer: Any) -> None:
        ledger = open_ledger(settings, retries=0)
        served = [name for name in app.amqp.queues.consume_from if name.startswith(COPY_QUEUE)]
        own = [name for name in served if not is_parking_queue(name)]
        if not own:
            return
        # Workers restore unacknowledged messages some time after the visibility timeout.
        linger_s = settings.visibility_timeout + 2 * DRAIN_S
        take_from = _ParkingConsumer(app, consumer).take_from
        processes = partial(_most_processes, consumer.controller)
        parking = Parking(ledger, consumer.hostname, own, take_from, access, linger_s, processes)
        while True:
            try:
                parking.run_round()
            except RedisError as error:
                log.warning("cannot handle parked batches: the broker does not answer: %s", error)
            except Exception:
                log.exception("uncaught exception while handling parked batches")
            if ended.wait(ROUND_S):
                break
        try:
            parking.leave()
        except RedisError as error:
            log.debug("cannot leave the roster: %s", error)

    def ready(sender: Any = None, **_: Any) -> None:
        if sender.app is app and not threads:
            threads.append(threading.Thread(target=run, args=(sender,), name="parking", daemon=True))
            threads[0].start()

    def shutting_down(sender: Any = None, **_: Any) -> None:
        ended.set()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutting_down, weak=False)
