"""What one run of a batch adds to the record of traffic."""

from __future__ import annotations

import itertools
import logging
import threading

import redis
from redis.exceptions import RedisError

from snapferry.stores.errors import InvalidStoreURL
from snapferry.stores.runtime.liveness import identity
from snapferry.workers.limits import store_id
from snapferry.workers.messages import BatchMessage, StoreRef

from .history import Kind, Series, TrafficHistory

log = logging.getLogger(__name__)

# The reports of a process are sent one after the other: the record counts none that is older than the last one.
_sending = threading.Lock()
_numbers = itertools.count(1)


class BatchTraffic:
    """
    Reports the bytes that a run of *batch* by *worker* moves. All methods may be called from any thread.

    Traffic that cannot be reported is lost: no error of it may fail a batch.
    """

    def __init__(self, client: redis.Redis, batch: BatchMessage, worker: str) -> None:
        self._history = TrafficHistory(client)
        sides = [(Kind.READ, batch.source)]
        sides += [(Kind.WRITTEN, batch.destination)] if batch.action.writes else []
        names = [(kind, _name(ref)) for kind, ref in sides] + [(Kind.WORKER, worker)]
        self._series = [Series(Kind.FLEET), *(Series(kind, name) for kind, name in names if name)]
        self._lock = threading.Lock()
        self._reported = 0

    def report(self, moved: int) -> None:
        """Report that the run has *moved* so many bytes since it began; no fewer than it reported before count."""
        with self._lock:
            new, self._reported = moved - self._reported, max(moved, self._reported)
        if new <= 0:
            return
        try:
            with _sending:
                self._history.add(identity(), next(_numbers), dict.fromkeys(self._series, new))
        except RedisError as error:
            log.debug("traffic not reported: %s", error)


def _name(ref: StoreRef) -> str:
    try:
        return store_id(ref.parsed)
    except InvalidStoreURL:
        return ""
