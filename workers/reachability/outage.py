"""
Tell the trouble of a whole store from that of one object, while a batch runs.

An object that fails says little: one object may be damaged, or the whole store
may be away. So the store is asked by a check of its own, which costs one
request. A store that does not answer the check is away; one that refuses it
refuses this worker. Both end the batch, without an outcome for its objects. So
does a store that answers checks while object after object fails and none is copied.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Final, NoReturn

from snapferry.stores.access import AccessPolicy, Right
from snapferry.stores.errors import AccessDenied, KeyMissing, StoreError, StoreNotFound, StoreUnavailable
from snapferry.stores.opening import open_store
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.urls import is_local

from .records import Kind, ReachBook, StoreSide

# A check that takes longer counts as unanswered. Those of S3 stores end by themselves after 8 s.
CHECK_S: Final = 10.0

# The answer of a check holds for so long.
FRESH_S: Final = 1.0

# So many passing failures of a store in a row, and no success, say that it is away whatever it answers to a check.
MANY_FAILED: Final = 20

# So many refusals, and no success, are worth a check of whether the store refuses everything.
MANY_DENIED: Final = 20


class Unreachable(BaseException):
    """
    A worker does not reach a store of the batch. Nothing was accounted; what was copied stays.

    No `Exception`: it may be raised in any wait, and nothing on its way may take it for an object's trouble.
    """

    def __init__(self, side: StoreSide, reason: StoreError, kind: Kind) -> None:
        super().__init__(f"{type(reason).__name__}: {reason}")
        self.side = side
        self.reason = reason
        self.kind = kind


@dataclass
class _Opened:
    """A store of the batch: what it is called in errors, and what its last check found."""

    side: StoreSide
    labels: frozenset[str] = frozenset()
    checked_at: float = float("-inf")
    found: StoreError | None = None
    failed_in_a_row: int = 0
    denied: int = 0


class StoreTrouble:
    """
    Looks after the two stores of a batch that *worker* copies.

    Several threads may call it. Only one of them checks a store at a time. *found* is what ends the batch.
    """

    def __init__(
        self,
        book: ReachBook,
        worker: str,
        sides: tuple[StoreSide, StoreSide],
        objects: int,
        access: AccessPolicy,
    ) -> None:
        self._book = book
        self._access = access
        self._worker = worker
        self._objects = objects
        self._opened = [_Opened(side) for side in sides]
        self._lock = threading.Lock()
        self.found: Unreachable | None = None
        self._looking: threading.Thread | None = None

    def opened(self, source: StreamStore, destination: StreamStore) -> None:
        """Learn what the stores are called in errors."""
        for one, store in zip(self._opened, (source, destination), strict=True):
            one.labels = store.labels

    def stop(self) -> None:
        """Raise `Unreachable` if a store was found away. Cheap: `interruption.checkpoint` calls it often."""
        if self.found is not None:
            raise self.found

    def succeeded(self) -> None:
        """Note that an object was copied."""
        for one in self._opened:
            one.failed_in_a_row = one.denied = 0

    def failed(self, error: StoreError, *, some_copied: bool) -> None:
        """Judge the failure of one object. Raises `Unreachable` if it is that of the whole store."""
        self.stop()
        one = self._blamed(error)
        if one is None:
            return
        if error.transient:
            one.failed_in_a_row += 1
            self._end_if_away(one, error)
        elif not some_copied and isinstance(error, (AccessDenied, StoreNotFound, KeyMissing)):
            one.denied += 1
            # The first and the only objects, too: one refusal of one object is worth no request.
            if isinstance(error, StoreNotFound) or one.denied >= min(MANY_DENIED, self._objects):
                self._end_if_away(one, error)

    def ended(self, error: StoreError) -> None:
        """
        Judge an error that ended the whole batch. Raises `Unreachable` if it is that of the store.

        A store that cannot be opened is not checked: opening it is what failed.
        """
        self.stop()
        one = self._blamed(error)
        if one is None:
            return
        if error.transient or isinstance(error, (AccessDenied, StoreNotFound)):
            self._end_if_away(one, error)

    def cannot_open(self, side: StoreSide, error: StoreError) -> NoReturn:
        """Judge that a store cannot be opened. Raises `Unreachable`."""
        raise Unreachable(side, error, self._kind(side, error))

    def look(self) -> None:
        """Check both stores in the background, because nothing has moved for a while; `stop` raises what is found."""
        if self._looking is not None and self._looking.is_alive():
            return
        self._looking = threading.Thread(target=self._look, name="check-stores", daemon=True)
        self._looking.start()

    def _look(self) -> None:
        for one in self._opened:
            found = self._checked(one)
            if found is not None and found.transient:
                self.found = Unreachable(one.side, found, Kind.AWAY)

    def _blamed(self, error: StoreError) -> _Opened | None:
        return next((one for one in self._opened if error.store in one.labels), None)

    def _end_if_away(self, one: _Opened, error: StoreError) -> None:
        with self._lock:
            self.stop()
            found = self._checked(one)
            if found is None and error.transient and one.failed_in_a_row >= MANY_FAILED:
                found = error
            if found is not None:
                self.found = Unreachable(one.side, found, self._kind(one.side, found))
            self.stop()

    def _checked(self, one: _Opened) -> StoreError | None:
        if time.monotonic() - one.checked_at > FRESH_S:
            one.found = check(one.side, self._access)
            one.checked_at = time.monotonic()
        return one.found

    def _kind(self, side: StoreSide, error: StoreError) -> Kind:
        return kind_of(self._book, side, self._worker, error)


def kind_of(book: ReachBook, side: StoreSide, worker: str, error: StoreError) -> Kind:
    """Return what *error*, the answer of a store to a check, says of it."""
    if error.transient:
        return Kind.AWAY
    if isinstance(error, StoreNotFound) and is_local(side.ref.url) and book.reached_before(side, worker):
        # A mount that is away. A bucket that does not exist is an answer, a directory that does not is none.
        return Kind.AWAY
    return Kind.REFUSED


def _check_mounted(store: StreamStore) -> None:
    """
    Make sure that a source in a directory holds a store: a directory on which nothing is mounted is empty.

    Raises `StoreNotFound`.
    """
    if label := store.unmounted():
        raise StoreNotFound(label, "", "there is no store in this directory; is it mounted here?")


def emptied(book: ReachBook, job_id: str, side: StoreSide, access: AccessPolicy) -> StoreError | None:
    """
    Return the error of a destination that no longer holds a store though the job has copied objects to it, else None.

    A mount point on which nothing is mounted often exists and is empty; nothing must be written there. Raises
    `InvalidStoreURL`, `NotAllowed` and `redis.exceptions.RedisError`.
    """
    if not side.writing or not is_local(side.ref.url):
        return None
    label = open_side(side, access).unmounted(objects_only=True)
    if label and book.has_settled(job_id):
        return StoreNotFound(label, "", "the store in this directory is gone; is it mounted here?")
    return None


def open_side(side: StoreSide, access: AccessPolicy) -> StreamStore:
    """
    Open a store of a job, if *access* allows it. Raises `InvalidStoreURL` and `NotAllowed`.

    A directory that is not there is not made: where a mount is missing, nothing must be made in its place.
    """
    right = Right.WRITE if side.writing else Right.READ
    return open_store(side.ref.parsed, side.ref.parsed_objects, right, access=access, create=False)


def check(side: StoreSide, access: AccessPolicy) -> StoreError | None:
    """Return what keeps this process from a store, None if nothing does. Takes `CHECK_S` seconds at most."""
    answers: list[StoreError | None] = []

    def ask() -> None:
        try:
            store = open_side(side, access)
            store.check(for_writing=side.writing)
            if not side.writing:
                _check_mounted(store)
        except StoreError as error:
            answers.append(error)
        else:
            answers.append(None)

    # A directory on a dead network mount answers nothing at all, not even with an error. And whoever owns
    # the work may stop it, but not the check: so it has a context of its own.
    thread = threading.Thread(target=ask, name="check-store", daemon=True)
    thread.start()
    thread.join(CHECK_S)
    if not answers:
        shown = side.ref.url.partition("?")[0]
        return StoreUnavailable(shown, "", f"did not answer within {CHECK_S:.0f} s")
    return answers[0]
