"""All limits of one run: of a batch that a worker copies, or of an orchestrator's step."""

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

from .limit_store import Bucket, Kind, LimitBook, store_place
from .semaphore import Gate
from .token_bucket import Tap

log = logging.getLogger(__name__)

# So often, in seconds, it is looked whether limits came up or went, and how many objects may be in flight.
LOOK_S: Final = 0.5


class StorePace:
    """The pace at one store: the project's `snapferry.stores.rate_limiter.RateLimiter`, by two taps."""

    def __init__(self, requests: Tap, bytes_: Tap) -> None:
        # The taps' own methods: they are called for each object.
        self.acquire_requests = requests.take
        self.acquire_bytes = bytes_.take
        self._bytes = bytes_

    def refund_bytes(self, count: int, /) -> None:
        """Take back bytes that did not move."""
        if self._bytes.limited:
            self._bytes.give_back(count)


class Brakes:
    """
    The limits of *job_id* and of its two stores, for a ``with`` block.

    *check* is called while anything waits for a limit, and raises to stop that:
    the store's call that waits raises it on. *run* tells this run from others.
    Limits that come up, change or go while the block runs hold within a second.
    """

    def __init__(
        self,
        book: LimitBook,
        job_id: str,
        source: StoreRef,
        destination: StoreRef,
        check: Callable[[], object],
        *,
        run: str = "",
    ) -> None:
        self._book = book
        self._job_id = job_id
        self._taker = identity()
        self._run = run
        self._wanted = 0
        self._taps: dict[Bucket, Tap] = {}
        self._check = check
        refs = {"source": source, "destination": destination}
        self._sides = {side: self._paces(side, ref) for side, ref in refs.items()}
        of_objects = [store_place(ref.parsed_objects or ref.parsed) for ref in refs.values()]
        self._places = of_objects[0], of_objects[1]
        self._waiting: dict[str, StreamStore] = {}
        self._holding = threading.Lock()
        self._shares = False
        self.gate = Gate(check, self._expect)
        self._look_again = Heartbeat(self._beat, LOOK_S)

    def __enter__(self) -> Self:
        self._look()
        self._look_again.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._look_again.__exit__()
        try:
            if self._shares:
                self._share(0)
            for bucket, tap in self._taps.items():
                if left := tap.drain():
                    self._book.give_back(bucket, self._taker, left)
        except RedisError as trouble:
            log.warning("what was granted and not used is lost: %s", trouble)

    def hold(self, source: StreamStore, destination: StreamStore, *, at_once: bool) -> None:
        """
        Let both stores keep to the limits.

        Without *at_once* each is left as it is until it has a limit; what is on
        its way at a directory then goes on unlimited to the end of its object.
        """
        with self._holding:
            self._waiting = {"source": source, "destination": destination}
            self._put_on(self._waiting if at_once else self._limited())

    def _expect(self, flights: int) -> None:
        self._wanted = flights
        if self._shares:
            self._share(flights)

    def _paces(self, side: str, ref: StoreRef) -> tuple[StorePace, StorePace]:
        objects = self._pace(side, store_place(ref.parsed_objects or ref.parsed))
        return objects, self._pace(side, store_place(ref.parsed)) if ref.objects_url else objects

    def _pace(self, side: str, place: str) -> StorePace:
        taps = {}
        for kind in Kind:
            bucket = Bucket(self._job_id, side, place, kind)
            taps[kind] = self._taps[bucket] = Tap(partial(self._book.take, bucket, self._taker), self._check)
        return StorePace(taps[Kind.REQUESTS], taps[Kind.BYTES])

    def _limited(self) -> set[str]:
        return {bucket.side for bucket, tap in self._taps.items() if tap.limited}

    def _put_on(self, sides: Collection[str]) -> None:
        for side in [side for side in self._waiting if side in sides]:
            self._waiting.pop(side).limit_rate(*self._sides[side])

    def _beat(self) -> None:
        try:
            self._look()
        except RedisError as error:
            log.warning("cannot look for limits: %s", error)

    def _look(self) -> None:
        places = sorted({bucket.place for bucket in self._taps})
        job, stores = self._book.of_run(self._job_id, places)
        of = dict(zip(places, stores, strict=True))
        for bucket, tap in self._taps.items():
            own = _of(job, bucket.kind) if bucket.counts_for_job else None
            tap.limited = own is not None or _of(of[bucket.place], bucket.kind) is not None
        if limited := self._limited():
            with self._holding:
                self._put_on(limited)
        shares = job.jobs is not None or any(of[place].jobs is not None for place in self._places)
        if self._run and (shares or self._shares):
            self._shares = shares
            if self._wanted:
                self._share(self._wanted)

    def _share(self, wanted: int) -> None:
        most = self._book.share(
            self._job_id, self._places, self._run, wanted=wanted, in_flight=self.gate.inside
        )
        self.gate.allow(most)


def _of(limits: Limits, kind: Kind) -> int | None:
    return limits.rate if kind is Kind.BYTES else limits.requests
