"""The parts that one process has claimed, and whose claims it renews."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self, TypeVar

from redis.exceptions import RedisError

from snapferry.stores.runtime.interruption import mark_as_owners
from snapferry.stores.runtime.liveness import identity
from snapferry.workers.ledger import Finished, Ledger, PartsOf
from snapferry.workers.lifecycle.heartbeat import Heartbeat

log = logging.getLogger(__name__)

RENEW_S: Final = 5.0

_T = TypeVar("_T")

_numbers = itertools.count()


class Claims:
    """
    The claims of *worker* on parts of one object, renewed inside a ``with`` block. Safe to share between threads.

    *of* names the object, and *parts* is the number of its parts.
    """

    def __init__(self, ledger: Ledger, of: PartsOf, parts: int, worker: str) -> None:
        self._ledger = ledger
        self._parts = parts
        self._of = of
        self.holder = f"{identity()}#parts{next(_numbers)}@{worker}"
        self._held: set[int] = set()
        self._lock = threading.Lock()
        self._renewing = Heartbeat(self._renew, RENEW_S)

    def claim(self) -> int | None:
        """Claim a part; None if there is none to claim now. Raises `RedisError`."""
        part = self._ledger.claim_part(self._of, self.holder, self._parts)
        if part is None:
            return None
        with self._lock:
            if part in self._held:
                # Its claim expired while Redis was away, and a thread of this process still copies it.
                return None
            self._held.add(part)
        return part

    def has(self, part: int) -> bool:
        """Return whether *part* is still this process's."""
        return of_owner(lambda: self._ledger.has_part(self._of, self.holder, part))

    def finish(self, part: int, record: str) -> Finished:
        """Record *part*, which was written."""
        return of_owner(lambda: self._ledger.finish_part(self._of, self.holder, part, record))

    def give_up(self, part: int) -> None:
        """End the claim on *part*, if it was not finished. Never raises `RedisError`: the claim expires."""
        with self._lock:
            self._held.discard(part)
        with suppress(RedisError):
            self._ledger.give_up_part(self._of, self.holder, part)

    def forget(self, part: int) -> None:
        """Stop renewing the claim on *part*, which was finished."""
        with self._lock:
            self._held.discard(part)

    def _renew(self) -> None:
        with self._lock:
            held = sorted(self._held)
        try:
            self._ledger.renew_parts(self._of, self.holder, held)
        except RedisError as error:
            log.warning("cannot renew claims on parts: %s", error)

    def __enter__(self) -> Self:
        self._renewing.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._renewing.__exit__(*raised)


def of_owner(call: Callable[[], _T]) -> _T:
    """Return the result of *call*. It runs inside a store; the mark tells its errors from errors of the store."""
    try:
        return call()
    except Exception as error:
        mark_as_owners(error)
        raise
