"""All limits of one run: of a batch that a worker copies, or of a step of an orchestrator."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from functools import partial
from types import TracebackType
from typing import Final, Self

from redis.exceptions import RedisError

from snapferry.stores.runtime.liveness import identity
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.lifecycle.heartbeat import Heartbeat
from snapferry.workers.messages import Limits, StoreRef

from .limit_store import LimitKind, LimitScope, LimitStore, store_id
from .semaphore import Semaphore
from .token_bucket import TokenBucket

log = logging.getLogger(__name__)

# Seconds between two reads of the limits and of the run's share of the objects in flight.
REFRESH_S: Final = 0.5


class StoreRateLimiter:
    """The rate limiter of one store, for `snapferry.stores`: two token buckets."""

    def __init__(self, requests: TokenBucket, bytes_: TokenBucket) -> None:
        # The buckets' own methods, because they are called for each object.
        self.acquire_requests = requests.take
        self.acquire_bytes = bytes_.take
        self._bytes = bytes_

    def refund_bytes(self, count: int, /) -> None:
        """Return bytes that did not move."""
        if self._bytes.limited:
            self._bytes.put_back(count)


class Throttle:
    """
    Keeps a run to the limits of *job_id* and of its two stores, in a ``with`` block.

    *check* is called while a thread waits for a limit, and may raise to end the waiting: the store's call that waits
    raises the same. *run* identifies this run of a batch; "" for a run without a limit of objects in flight. With
    *reads_destination*, the job's limit of bytes counts what moves at the destination too. *may_start* is called before
    each object, and may raise. Limits that are set, changed or removed while the block runs take effect within a
    second.
    """

    def __init__(
        self,
        limit_store: LimitStore,
        job_id: str,
        source: StoreRef,
        destination: StoreRef,
        check: Callable[[], object],
        *,
        run: str = "",
        reads_destination: bool = False,
        may_start: Callable[[], object] | None = None,
    ) -> None:
        self._limit_store = limit_store
        self._job_id = job_id
        self._process = identity()
        self._run = run
        self._wanted = 0
        self._reads_destination = reads_destination
        self._buckets: dict[LimitScope, TokenBucket] = {}
        self._check = check
        refs = {"source": source, "destination": destination}
        self._limiters = {side: self._limiters_of(side, ref) for side, ref in refs.items()}
        of_objects = [store_id(ref.parsed_objects or ref.parsed) for ref in refs.values()]
        self._object_stores = of_objects[0], of_objects[1]
        self._unlimited: dict[str, StreamStore] = {}
        self._attaching = threading.Lock()
        self._shares = False
        self.semaphore = Semaphore(check, self._expect, may_start)
        self._refreshing = Heartbeat(self._beat, REFRESH_S)

    def __enter__(self) -> Self:
        self._refresh()
        self._refreshing.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._refreshing.__exit__()
        self.semaphore.forget_owner()
        try:
            if self._shares:
                self._share(0)
            for scope, bucket in self._buckets.items():
                if left := bucket.drain():
                    self._limit_store.refund(scope, self._process, left)
        except RedisError as failure:
            log.warning("unused grants lost: %s", failure)

    def attach(self, source: StreamStore, destination: StreamStore, *, at_once: bool) -> None:
        """
        Let both stores keep to the limits.

        Without *at_once*, a store is left as it is until it has a limit. Objects that a directory is copying at that
        moment then continue without a limit.
        """
        with self._attaching:
            self._unlimited = {"source": source, "destination": destination}
            at_once = at_once or self._reads_destination
            self._limit(self._unlimited if at_once else self._limited_sides())

    def attach_further(self, ref: StoreRef, source: StreamStore) -> None:
        """Let another store from which the run reads keep to its own limits and to those of the job."""
        limiters = self._limiters_of("source", ref)
        # Until the limits are read for the first time, a bucket is without a limit.
        self._refresh()
        source.limit_rate(*limiters)

    def _expect(self, flights: int) -> None:
        self._wanted = flights
        if self._shares:
            self._share(flights)

    def _limiters_of(self, side: str, ref: StoreRef) -> tuple[StoreRateLimiter, StoreRateLimiter]:
        """Return the rate limiters of the objects and of the manifests of a store."""
        objects = self._limiter(side, store_id(ref.parsed_objects or ref.parsed))
        return objects, self._limiter(side, store_id(ref.parsed)) if ref.objects_url else objects

    def _limiter(self, side: str, store: str) -> StoreRateLimiter:
        buckets = {}
        for kind in LimitKind:
            counted = "source" if kind is LimitKind.BYTES and self._reads_destination else side
            scope = LimitScope(self._job_id, counted, store, kind)
            fetch = partial(self._limit_store.take, scope, self._process)
            buckets[kind] = self._buckets[scope] = TokenBucket(fetch, self._check)
        return StoreRateLimiter(buckets[LimitKind.REQUESTS], buckets[LimitKind.BYTES])

    def _limited_sides(self) -> set[str]:
        return {scope.side for scope, bucket in list(self._buckets.items()) if bucket.limited}

    def _limit(self, sides: Collection[str]) -> None:
        for side in [side for side in self._unlimited if side in sides]:
            self._unlimited.pop(side).limit_rate(*self._limiters[side])

    def _beat(self) -> None:
        try:
            self._refresh()
        except RedisError as error:
            log.warning("limits not read: %s", error)

    def _refresh(self) -> None:
        # A further store may be attached meanwhile.
        buckets = list(self._buckets.items())
        stores = sorted({scope.store for scope, _ in buckets})
        job, found = self._limit_store.limits_of_run(self._job_id, stores)
        of = dict(zip(stores, found, strict=True))
        for scope, bucket in buckets:
            own = _limit_of(job, scope.kind) if scope.counts_for_job else None
            bucket.limited = own is not None or _limit_of(of[scope.store], scope.kind) is not None
        if limited := self._limited_sides():
            with self._attaching:
                self._limit(limited)
        shares = job.jobs is not None or any(of[store].jobs is not None for store in self._object_stores)
        if self._run and (shares or self._shares):
            self._shares = shares
            if self._wanted:
                self._share(self._wanted)

    def _share(self, wanted: int) -> None:
        limit = self._limit_store.share(
            self._job_id, self._object_stores, self._run, wanted=wanted, in_flight=self.semaphore.in_flight
        )
        self.semaphore.set_limit(limit)


def _limit_of(limits: Limits, kind: LimitKind) -> int | None:
    return limits.rate if kind is LimitKind.BYTES else limits.requests
