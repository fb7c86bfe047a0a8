"""
Tell the outage of a whole store from the failure of one object, while a batch runs.

A failed object proves little: that object may be damaged, or the whole store may be away. So the store is checked,
which costs one request. A store that does not answer the check is away. A store that refuses the check refuses this
worker. Both end the batch, without an outcome for its objects. The batch also ends if the store answers checks, but
object after object fails and none is copied.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final, NoReturn

from snapferry.stores.access import AccessPolicy
from snapferry.stores.errors import AccessDenied, KeyMissing, StoreError, StoreNotFound
from snapferry.stores.stream_store import StreamStore

from .sides import StoreSide
from .store_check import check, kind_of
from .store_problems import Kind, StoreProblems

# The result of a check is reused for this long.
FRESH_S: Final = 1.0

MANY_FAILED: Final = 20
"""After this many transient failures in a row, the store counts as away, whatever it answers to a check."""

MANY_DENIED: Final = 20
"""After this many refusals without a copied object, check whether the store refuses everything."""


class Unreachable(BaseException):
    """
    A worker cannot reach a store of the batch. No object was accounted for; what was copied stays.

    Not an `Exception`: any wait may raise it, and no handler on the way may take it for the failure of an object.
    """

    def __init__(self, side: StoreSide, reason: StoreError, kind: Kind) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")
        self.side = side
        self.reason = reason
        self.kind = kind


@dataclass
class _Watched:
    """A store of the batch: its labels in errors, and the result of its last check."""

    side: StoreSide
    labels: frozenset[str] = frozenset()
    checked_at: float = float("-inf")
    result: StoreError | None = None
    failed_in_a_row: int = 0
    denied: int = 0


class StoreWatch:
    """
    Watches the stores of a batch that *worker* runs.

    Safe to call from several threads; one thread at a time checks a store. *unreachable* is what ends the batch.
    """

    def __init__(
        self,
        problems: StoreProblems,
        worker: str,
        sides: tuple[StoreSide, StoreSide],
        objects: int,
        access: AccessPolicy,
    ) -> None:
        self._problems = problems
        self._access = access
        self._worker = worker
        self._objects = objects
        self._stores = [_Watched(side) for side in dict.fromkeys(sides)]
        self._lock = threading.Lock()
        self.unreachable: Unreachable | None = None
        self._checking: threading.Thread | None = None

    def opened(self, source: StreamStore, destination: StreamStore) -> None:
        """Record the labels that the stores have in errors."""
        # A job of one store has one side.
        for watched, store in zip(self._stores, (source, destination), strict=False):
            watched.labels = store.labels

    def raise_if_unreachable(self) -> None:
        """Raise `Unreachable` if a store was found away. Cheap, because `interruption.checkpoint` calls it often."""
        if self.unreachable is not None:
            raise self.unreachable

    def succeeded(self) -> None:
        """Record that an object was copied."""
        for watched in self._stores:
            watched.failed_in_a_row = watched.denied = 0

    def failed(self, error: StoreError, *, some_copied: bool) -> None:
        """Record that an object failed; *some_copied*: others were copied. Raises `Unreachable` for an outage."""
        self.raise_if_unreachable()
        watched = self._store_of(error)
        if watched is None:
            return
        if error.transient:
            watched.failed_in_a_row += 1
            self._check_after(watched, error)
        elif not some_copied and isinstance(error, (AccessDenied, StoreNotFound, KeyMissing)):
            watched.denied += 1
            # A single refusal is not worth a request, unless the batch has no more objects.
            if isinstance(error, StoreNotFound) or watched.denied >= min(MANY_DENIED, self._objects):
                self._check_after(watched, error)

    def batch_failed(self, error: StoreError) -> None:
        """Record that *error* ended the whole batch. Raises `Unreachable` for an outage."""
        self.raise_if_unreachable()
        watched = self._store_of(error)
        if watched is None:
            return
        if error.transient or isinstance(error, (AccessDenied, StoreNotFound)):
            self._check_after(watched, error)

    def open_failed(self, side: StoreSide, error: StoreError) -> NoReturn:
        """Raise `Unreachable`, because a store could not be opened. No check is needed: opening is what failed."""
        raise Unreachable(side, error, self._kind(side, error))

    def check_in_background(self) -> None:
        """Check the stores from another thread. `raise_if_unreachable` raises what it finds."""
        if self._checking is not None and self._checking.is_alive():
            return
        self._checking = threading.Thread(target=self._check_all, name="check-stores", daemon=True)
        self._checking.start()

    def _check_all(self) -> None:
        for watched in self._stores:
            result = self._checked(watched)
            if result is not None and result.transient:
                self.unreachable = Unreachable(watched.side, result, Kind.AWAY)

    def _store_of(self, error: StoreError) -> _Watched | None:
        return next((watched for watched in self._stores if error.store in watched.labels), None)

    def _check_after(self, watched: _Watched, error: StoreError) -> None:
        with self._lock:
            self.raise_if_unreachable()
            result = self._checked(watched)
            if result is None and error.transient and watched.failed_in_a_row >= MANY_FAILED:
                result = error
            if result is not None:
                self.unreachable = Unreachable(watched.side, result, self._kind(watched.side, result))
            self.raise_if_unreachable()

    def _checked(self, watched: _Watched) -> StoreError | None:
        if time.monotonic() - watched.checked_at > FRESH_S:
            watched.result = check(watched.side, self._access)
            watched.checked_at = time.monotonic()
        return watched.result

    def _kind(self, side: StoreSide, error: StoreError) -> Kind:
        return kind_of(self._problems, side, self._worker, error)
