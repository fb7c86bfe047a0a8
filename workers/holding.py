"""
Batches that a worker holds and has not begun, because its tasks are limited in rate.

Flower can limit how many batches a worker begins in a time. The worker then
takes some from the queue and keeps them until their turn comes. Two things
follow. A batch that is in no queue and runs nowhere counts as lost after a
while: so the ledger is told that these are not, for as long as the worker
lives. And Celery keeps to the old limit for what it holds, even for hours, when
the limit is changed or lifted: so these batches are given back to the queue.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from celery import Celery, signals
from redis.exceptions import RedisError

from .connection import client
from .ledger import Ledger
from .settings import Settings
from .tasks import batch_named

log = logging.getLogger(__name__)

COPY: Final = "snapferry.copy_batch"

# How often the ledger is told. If the worker dies, its batches are missed a grace period (20 s) after this.
TELL_EVERY_S: Final = 10

# How often it is looked whether the limit is another one.
LOOK_EVERY_S: Final = 1.0


class Holding:
    """Tells the ledger, from a thread of the worker's main process; it has something to do only while batches wait."""

    def __init__(self, make_ledger: Callable[[], Ledger]) -> None:
        self._make_ledger = make_ledger
        self._received: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def received(self, request: Any) -> None:
        """Note that the worker took a task from the queue. Called for each one, so it does little."""
        with self._lock:
            self._received.add(request)

    def start(self) -> None:
        """Begin. May be called again: Celery says that it is ready after each outage."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="holding", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, soon."""
        self._ended.set()

    def tell(self, ledger: Ledger) -> int:
        """Tell *ledger* of the batches that are held; return how many. Raises `redis.exceptions.RedisError`."""
        with self._lock:
            received = list(self._received)
        held = [one for one in received if one.time_start is None and not one.acknowledged]
        for request in held:
            job_id, name = batch_named(next(iter(request.args), None))
            if job_id:
                ledger.wait(job_id, name, TELL_EVERY_S)
        return len(held)

    def _run(self) -> None:
        ledger = self._make_ledger()
        while not self._ended.wait(TELL_EVERY_S):
            try:
                self.tell(ledger)
            except RedisError as error:
                log.warning("cannot tell which batches wait in this worker: the broker is away: %s", error)
            except Exception:
                log.exception("cannot tell which batches wait in this worker")


class Limits:
    """Gives batches back that wait under a limit which is in force no longer. Called by the worker's event loop."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def look(self, consumer: Any) -> None:
        """Give back what waits in any bucket of *consumer* but the present one (None: there is no limit)."""
        present = consumer.task_buckets[COPY]
        for bucket in list(self._seen):
            if bucket is not present and bucket.contents:
                held = [request for request, _ in bucket.contents]
                bucket.clear_pending()
                log.info("the limit has changed: %d batches go back to the queue", len(held))
                for request in held:
                    request.reject(requeue=True)
        if present is not None:
            self._seen.add(present)


def attach(app: Celery, settings: Settings) -> None:
    """Look after held batches for as long as a worker of *app* runs."""

    def make_ledger() -> Ledger:
        assert settings.broker_url is not None  # make_app refuses settings without one
        return Ledger(client(settings.broker_url, retries=0), expires_s=settings.job_expires)

    holding, limits = Holding(make_ledger), Limits()
    looks: list[Any] = []

    def received(sender: Any = None, request: Any = None, **_: Any) -> None:
        if sender.app is app and request.name == COPY:
            holding.received(request)

    def ready(sender: Any = None, **_: Any) -> None:
        if sender.app is not app:
            return
        holding.start()
        # Celery is ready again after each outage.
        while looks:
            looks.pop().cancel()
        looks.append(sender.timer.call_repeatedly(LOOK_EVERY_S, limits.look, (sender,)))

    def shutdown(sender: Any = None, **_: Any) -> None:
        holding.stop()

    signals.task_received.connect(received, weak=False)
    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutdown, weak=False)
