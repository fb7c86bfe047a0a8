"""
Batches that a worker holds and has not begun: they wait for their retry, or their tasks are limited in rate.

A batch that is in no queue and runs nowhere counts as lost after a while. So the
ledger is told that these batches are not lost, for as long as the worker holds them.

Flower can limit how many batches a worker begins in a time. Celery keeps to the
old limit for the batches that the worker holds, even for hours, when the limit is
changed or lifted: so these batches are returned to the queue.

Only Celery knows what the worker holds. When the connection to the broker breaks,
Celery drops every request that it has not begun. The objects may live on, because
a timer that was cancelled still refers to them. So whether a request exists says
nothing: a batch counts as held while it is in one of Celery's own collections.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

from celery import Celery, signals
from celery.worker import state
from redis.exceptions import RedisError

from snapferry.workers.broker.connection import client
from snapferry.workers.copying.tasks import batch_named
from snapferry.workers.ledger import Ledger
from snapferry.workers.settings.environment import Settings

log = logging.getLogger(__name__)

COPY: Final = "snapferry.copy_batch"

# How often the ledger is told. If the worker dies, its batches are missed a grace period (20 s) after this.
TELL_EVERY_S: Final = 10

# How often the worker looks whether the limit is another one.
LOOK_EVERY_S: Final = 1.0

# Another thread may change a set of Celery's while it is copied; so often it is copied again.
COPIES: Final = 100


class Limits:
    """Returns batches to the queue that wait under a limit which is no longer in force. Called by the event loop."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._connection: Any = None

    def look(self, consumer: Any) -> None:
        """Return to the queue what waits in any bucket of *consumer* but the present one (None: no limit)."""
        present = consumer.task_buckets[COPY]
        connection = getattr(consumer, "connection", None)
        if connection is not self._connection:
            # What waits in old buckets came over a connection that is gone: it can neither run nor be returned.
            for bucket in list(self._seen):
                if bucket is not present:
                    bucket.clear_pending()
            self._seen.clear()
            self._connection = connection
        for bucket in list(self._seen):
            if bucket is not present and bucket.contents:
                held = [request for request, _ in bucket.contents]
                bucket.clear_pending()
                log.info("the limit has changed: %d batches go back to the queue", len(held))
                for request in held:
                    request.reject(requeue=True)
        if present is not None:
            self._seen.add(present)

    def waiting(self) -> list[Any]:
        """Return the requests that wait for their turn under any limit. May be called from any thread."""
        return [request for bucket in _copied(self._seen) for request, _ in _copied(bucket.contents)]


def held_requests(limits: Limits) -> set[Any]:
    """Return the requests for batches that Celery holds for this worker and has not begun."""
    waiting = [state.reserved_requests, state.scheduled_requests, limits.waiting()]
    found = {request for requests in waiting for request in _copied(requests) if request.name == COPY}
    return {request for request in found if request.time_start is None and not request.acknowledged}


def _copied(changing: Iterable[Any]) -> list[Any]:
    for _ in range(COPIES):
        try:
            return list(changing)
        except RuntimeError:
            continue
    return list(changing)


class Holding:
    """Tells the ledger of held batches, from a thread of the worker's main process."""

    def __init__(self, make_ledger: Callable[[], Ledger], held: Callable[[], Collection[Any]]) -> None:
        self._make_ledger = make_ledger
        self._held = held
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. May be called again."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="holding", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End, soon."""
        self._ended.set()

    def tell(self, ledger: Ledger) -> int:
        """Tell *ledger* of the batches that are held; return how many. Raises `redis.exceptions.RedisError`."""
        held = self._held()
        for request in held:
            job_id, name = batch_named(next(iter(request.args), None))
            if job_id:
                ledger.note_retry(job_id, name, TELL_EVERY_S)
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


def attach(app: Celery, settings: Settings) -> None:
    """Look after held batches for as long as a worker of *app* runs."""

    def make_ledger() -> Ledger:
        assert settings.broker_url is not None  # make_app refuses settings without one
        return Ledger(client(settings.broker_url, retries=0), expires_s=settings.job_expires)

    limits = Limits()
    holding = Holding(make_ledger, lambda: held_requests(limits))

    def ready(sender: Any = None, **_: Any) -> None:
        # Sent once for each process. The entry of the timer outlives a lost connection.
        if sender.app is app:
            holding.start()
            sender.timer.call_repeatedly(LOOK_EVERY_S, limits.look, (sender,))

    def shutdown(sender: Any = None, **_: Any) -> None:
        holding.stop()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutdown, weak=False)
