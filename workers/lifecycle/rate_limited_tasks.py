"""
Batches that a worker has reserved and not started: they wait for a retry, or for a rate limit on their task.

The ledger counts a batch as lost if it is in no queue and no worker runs it. So the worker reports its reserved
batches to the ledger for as long as it has them.

Flower can limit the rate at which a worker starts batches. When that limit is changed or removed, Celery still applies
the old limit to the batches that the worker has reserved, even for hours. So the worker requeues these batches.

Only Celery knows which requests are reserved. When the connection to the broker breaks, Celery drops every request
that has not started. The request objects may stay in memory, because a cancelled timer still refers to them. So the
existence of a request proves nothing: a batch is reserved while it is in one of Celery's own collections.
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

from snapferry.workers.broker.open_ledger import open_ledger
from snapferry.workers.ledger import Ledger
from snapferry.workers.messages import identify_batch
from snapferry.workers.settings.environment import Settings

log = logging.getLogger(__name__)

COPY: Final = "snapferry.copy_batch"

# Interval of the reports. If the worker dies, its batches count as lost a grace period (20 s) after the next one.
REPORT_EVERY_S: Final = 10

# Interval of the checks for a changed rate limit.
CHECK_EVERY_S: Final = 1.0

# Another thread may change one of Celery's sets while it is copied. Then the copy is repeated, at most this often.
MAX_COPIES: Final = 100


class ExpiredRateLimits:
    """Requeues batches that wait under a rate limit which no longer applies. Called by the event loop."""

    def __init__(self) -> None:
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()
        self._connection: Any = None

    def requeue(self, consumer: Any) -> None:
        """Requeue the batches in every bucket of *consumer* except the current one (None: no rate limit)."""
        current = consumer.task_buckets[COPY]
        connection = getattr(consumer, "connection", None)
        if connection is not self._connection:
            # Requests in older buckets came over a connection that is closed: they can neither run nor be requeued.
            for bucket in list(self._seen):
                if bucket is not current:
                    bucket.clear_pending()
            self._seen.clear()
            self._connection = connection
        for bucket in list(self._seen):
            if bucket is not current and bucket.contents:
                requests = [request for request, _ in bucket.contents]
                bucket.clear_pending()
                log.info("rate limit changed: %d batches requeued", len(requests))
                for request in requests:
                    request.reject(requeue=True)
        if current is not None:
            self._seen.add(current)

    def waiting(self) -> list[Any]:
        """Return the requests that wait under any rate limit. May be called from any thread."""
        return [request for bucket in _copied(self._seen) for request, _ in _copied(bucket.contents)]


def reserved_requests(limits: ExpiredRateLimits) -> set[Any]:
    """Return the requests for batches that Celery has reserved for this worker and not started."""
    collections = [state.reserved_requests, state.scheduled_requests, limits.waiting()]
    found = {request for requests in collections for request in _copied(requests) if request.name == COPY}
    return {request for request in found if request.time_start is None and not request.acknowledged}


def _copied(changing: Iterable[Any]) -> list[Any]:
    for _ in range(MAX_COPIES):
        try:
            return list(changing)
        except RuntimeError:
            continue
    return list(changing)


class ReservationReporter:
    """Reports reserved batches to the ledger, from a thread of the worker's main process."""

    def __init__(self, open_ledger: Callable[[], Ledger], reserved: Callable[[], Collection[Any]]) -> None:
        self._open_ledger = open_ledger
        self._reserved = reserved
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread. May be repeated."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reservations", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Tell the thread to end."""
        self._ended.set()

    def report(self, ledger: Ledger) -> int:
        """Report the reserved batches to *ledger*; return how many. Raises `redis.exceptions.RedisError`."""
        requests = self._reserved()
        for request in requests:
            job_id, name = identify_batch(next(iter(request.args), None))
            if job_id:
                ledger.note_retry(job_id, name, REPORT_EVERY_S)
        return len(requests)

    def _run(self) -> None:
        ledger = self._open_ledger()
        while not self._ended.wait(REPORT_EVERY_S):
            try:
                self.report(ledger)
            except RedisError as error:
                log.warning("cannot report reserved batches: the broker does not answer: %s", error)
            except Exception:
                log.exception("uncaught exception while reporting reserved batches")


def attach(app: Celery, settings: Settings) -> None:
    """Report and requeue reserved batches for as long as a worker of *app* runs."""
    limits = ExpiredRateLimits()
    reporter = ReservationReporter(
        lambda: open_ledger(settings, retries=0), lambda: reserved_requests(limits)
    )

    def ready(sender: Any = None, **_: Any) -> None:
        # Sent once for each process. The entry of the timer outlives a lost connection.
        if sender.app is app:
            reporter.start()
            sender.timer.call_repeatedly(CHECK_EVERY_S, limits.requeue, (sender,))

    def shutting_down(sender: Any = None, **_: Any) -> None:
        reporter.stop()

    signals.worker_ready.connect(ready, weak=False)
    signals.worker_shutting_down.connect(shutting_down, weak=False)
