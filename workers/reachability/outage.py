"""
Tell the outage of a whole store from the failure of one object, while a batch runs.

A failed object proves little: that object may be damaged, or the whole store may be away. So the store is checked,
which costs one request, or two if the batch has used objects of the store. A store that does not answer the check is
away. A store that refuses the check refuses this worker: its clock, its credentials or its mount may have become wrong
in the middle of the batch. Both end the batch, without an outcome for its objects. The batch also ends if the store
answers checks, but object after object fails and none is copied.

No failure is accounted for before the store has answered a check that began after it (`StoreWatch.confirm`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, NoReturn

from snapferry.stores.access import AccessPolicy
from snapferry.stores.address import Address
from snapferry.stores.errors import (
    AccessDenied,
    FileChanged,
    IntegrityError,
    KeyMissing,
    NotAllowed,
    NotAnObject,
    StoreError,
    StoreFault,
    StoreFull,
    StoreNotFound,
    Unreadable,
)
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.urls import is_local
from snapferry.workers.outcome import OVER_BUDGET, Failure

from .sides import StoreSide
from .store_check import check, kind_of
from .store_problems import Kind, StoreProblems

# The result of a check is reused for this long.
FRESH_S: Final = 1.0

MANY_FAILED: Final = 20
"""After this many transient failures in a row, the store counts as away, whatever it answers to a check."""

MANY_DENIED: Final = 20
"""
After this many refusals in a row, check whether the store refuses everything.

A store that then answers the check refuses this worker all the same if it was to be written to: objects that are not
there yet have no permissions of their own.
"""

KNOWN: Final = 3
"""So many of the last objects that were copied are looked for in a check."""

# Errors that can only be those of one object, or that other workers would meet too.
_OF_OBJECTS: Final = (FileChanged, IntegrityError, NotAnObject, StoreFull)
_NAMES_OF_OBJECTS: Final = {OVER_BUDGET, Unreadable.__name__, *(error.__name__ for error in _OF_OBJECTS)}

FindMissing = Callable[[StoreSide], StoreError | None]
"""Returns the error of a destination whose store is gone, as `missing_store`."""


class Unreachable(BaseException):
    """
    A worker cannot reach a store of the batch. No object was accounted for; what was copied stays.

    *reached*: the batch had used objects of the store before. Not an `Exception`: any wait may raise it, and no handler
    on the way may take it for the failure of an object.
    """

    def __init__(self, side: StoreSide, reason: StoreError, kind: Kind, *, reached: bool = False) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")
        self.side = side
        self.reason = reason
        self.kind = kind
        self.reached = reached


@dataclass
class _Watched:
    """
    A store of the batch: its labels in errors, and the result of its last check.

    *known*: the last objects that it is known to hold; a tree holds files instead. *doubted_at*: when an object last
    failed that may have failed because of the whole store.
    """

    side: StoreSide
    holds_objects: bool
    labels: frozenset[str] = frozenset()
    checked_at: float = float("-inf")
    result: StoreError | None = None
    failed_in_a_row: int = 0
    denied_in_a_row: int = 0
    doubted_at: float = float("-inf")
    known: deque[Address] = field(default_factory=lambda: deque(maxlen=KNOWN))
    reached: bool = False


class StoreWatch:
    """
    Watches the stores of a batch of so many *objects* that *worker* runs.

    Safe to call from several threads; one thread at a time checks a store. *find_missing* tells whether a destination
    is gone. *unreachable* is what ends the batch.
    """

    def __init__(
        self,
        problems: StoreProblems,
        worker: str,
        sides: tuple[StoreSide, StoreSide],
        objects: int,
        access: AccessPolicy,
        find_missing: FindMissing = lambda _: None,
    ) -> None:
        self._problems = problems
        self._access = access
        self._worker = worker
        self._objects = objects
        self._find_missing = find_missing
        self._stores = [
            _Watched(side, holds_objects=not side.ref.parsed.kind.is_tree) for side in dict.fromkeys(sides)
        ]
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

    def succeeded(self, address: Address, *holders: str) -> None:
        """Record that the object at *address* was copied or found intact; *holders*: labels of stores that hold it."""
        for watched in self._stores:
            if watched.labels.isdisjoint(holders):
                continue
            watched.failed_in_a_row = watched.denied_in_a_row = 0
            watched.reached = True
            if watched.holds_objects:
                watched.known.append(address)

    def failed(self, error: StoreError) -> None:
        """Record that an object failed. Raises `Unreachable` for an outage."""
        self.raise_if_unreachable()
        watched = self._store_of(error.store)
        if watched is None or isinstance(error, _OF_OBJECTS):
            return
        watched.doubted_at = time.monotonic()
        if error.transient:
            watched.failed_in_a_row += 1
            self._check_after(watched, error)
        elif isinstance(error, (AccessDenied, StoreNotFound, KeyMissing, StoreFault)):
            watched.denied_in_a_row += 1
            # A single refusal is not worth a request, unless the batch has no more objects.
            if isinstance(error, StoreNotFound) or watched.denied_in_a_row >= min(MANY_DENIED, self._objects):
                self._check_after(watched, error)

    def batch_failed(self, error: StoreError) -> None:
        """Record that *error* ended the whole batch. Raises `Unreachable` for an outage."""
        self.raise_if_unreachable()
        watched = self._store_of(error.store)
        if watched is not None and not isinstance(error, _OF_OBJECTS):
            self._check_after(watched, error, fresh=True)

    def confirm(self, failures: Iterable[Failure]) -> None:
        """
        Make sure that *failures*, those of the whole batch at its end, are failures of objects.

        Raises `Unreachable` if a store of theirs does not answer a check now: this worker may have lost it in the
        middle of the batch. Sends nothing without failures that a store may have caused.
        """
        self.raise_if_unreachable()
        doubtful = {failure.store for failure in failures if failure.error not in _NAMES_OF_OBJECTS}
        for watched in self._stores:
            if watched.doubted_at > watched.checked_at or not doubtful.isdisjoint(watched.labels):
                with self._lock:
                    self._judge(watched, self._check(watched))

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
                self.unreachable = self._unreachable(watched, result)

    def _store_of(self, label: str) -> _Watched | None:
        return next((watched for watched in self._stores if label in watched.labels), None)

    def _check_after(self, watched: _Watched, error: StoreError, *, fresh: bool = False) -> None:
        with self._lock:
            self.raise_if_unreachable()
            result = self._check(watched) if fresh else self._checked(watched)
            if result is None and self._fails_always(watched, error):
                result = error
            self._judge(watched, result)

    def _fails_always(self, watched: _Watched, error: StoreError) -> bool:
        """Return whether a store that answers its check fails this worker all the same, at last by *error*."""
        if error.transient:
            return watched.failed_in_a_row >= MANY_FAILED
        denied = isinstance(error, AccessDenied) and watched.denied_in_a_row >= MANY_DENIED
        return denied and watched.side.writing

    def _judge(self, watched: _Watched, result: StoreError | None) -> None:
        """Raise `Unreachable` if *result*, that of a check, is an error."""
        if result is not None:
            self.unreachable = self._unreachable(watched, result)
        self.raise_if_unreachable()

    def _unreachable(self, watched: _Watched, error: StoreError) -> Unreachable:
        kind = self._kind(watched.side, error, reached=watched.reached)
        return Unreachable(watched.side, error, kind, reached=watched.reached)

    def _checked(self, watched: _Watched) -> StoreError | None:
        """Return the result of a check that is at most `FRESH_S` old."""
        if time.monotonic() - watched.checked_at > FRESH_S:
            self._check(watched)
        return watched.result

    def _check(self, watched: _Watched) -> StoreError | None:
        began_at = time.monotonic()
        side = watched.side
        result = check(side, self._access, tuple(watched.known))
        if isinstance(result, AccessDenied) and not isinstance(result, NotAllowed) and is_local(side.ref.url):
            # Below a mount point nobody may write.
            result = self._find_missing(side) or result
        watched.result, watched.checked_at = result, began_at
        return result

    def _kind(self, side: StoreSide, error: StoreError, *, reached: bool = False) -> Kind:
        return kind_of(self._problems, side, self._worker, error, reached=reached)
