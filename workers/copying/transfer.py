"""
Copy a batch of objects from one store to another.

Plain functions: no queue, no ledger. Running a batch twice, also at the same
time as itself, changes nothing: what is present is not copied again, and
copying the same object twice files the same bytes under the same address.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from snapferry.stores.address import Address
from snapferry.stores.errors import AccessDenied, StoreError, StoreFull, StoreNotFound
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.runtime.containment import is_unexpected, unexpected
from snapferry.stores.runtime.interruption import mark_as_owners
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.streams import Upload
from snapferry.workers.lifecycle.process_setup import clamped
from snapferry.workers.outcome import OVER_BUDGET, BatchOutcome, Failure

from .budget import OverBudget, spending

# What a destination says of itself and not of one object.
_REFUSALS = (StoreFull, StoreNotFound)

# So many refusals of single objects, and nothing else, say that the destination refuses all of them.
MANY_DENIED = 20


_T = TypeVar("_T")


class Cancelled(BaseException):
    """
    The job was cancelled while a batch of it ran. What was copied so far stays; nothing is half-visible.

    No `Exception`: it may be raised in any wait, and nothing on its way may take it for an object's trouble.
    """


class GivenBack(Cancelled):
    """The worker leaves: the batch is to be begun again by another. What is true of `Cancelled` holds here too."""


class Held(Cancelled):
    """The job is paused: the batch is to be begun again when it goes on. What is true of `Cancelled` holds here too."""


class Progress(Protocol):
    """Told how a batch gets on; `advance` from several threads."""

    def begin(self, needed: list[Address]) -> None:
        """Note which objects are to be copied; called once, before the first is. Raises as `advance` does."""

    def advance(self, objects: int, size_bytes: int) -> None:
        """
        Count *objects* more as settled and *size_bytes* more of the planned bytes as dealt with.

        Raises `Cancelled` when the batch should stop, `GivenBack` when another worker should go on with it, `Held`
        when its job is paused.
        """


class Flights(AbstractContextManager[Any], Protocol):
    """
    Decides how many objects are in flight: entered for each, by a ``with`` block, from several threads.

    Entering waits, and raises `Cancelled` when the batch should stop.
    """

    def expect(self, flights: int) -> None:
        """Note that so many could be in flight; called once, before the first is."""


class Judge(Protocol):
    """Told of each object that was copied or failed, from several threads, so that it can end the batch."""

    def succeeded(self) -> None:
        """Note that objects were copied."""

    def failed(self, error: StoreError, *, some_copied: bool) -> None:
        """Judge the failure of an object; raise to end the batch without an outcome. *some_copied*: others were."""


def copy_batch(
    source: StreamStore,
    destination: StreamStore,
    objects: Mapping[Address, int],
    progress: Progress,
    *,
    concurrency: int | None = None,
    begun_before: bool = False,
    in_flight: Flights | None = None,
    judge: Judge | None = None,
) -> BatchOutcome:
    """
    Bring *objects* (address -> advisory size in bytes) to *destination*, those that are not there yet.

    At most *concurrency* of them are in flight at once, None: as many as the
    stores are good for; and no more than *in_flight* lets in.

    *begun_before*: an earlier run of this batch was not heard of again. What
    its uploads left at the destination, out of sight, is removed first.

    One object that fails stops no other, whatever exception it fails with. A destination that is full, gone, or
    denies everything is not asked object by object: all that is left fails for
    that reason. When this returns, every object counted as copied or present is
    durable at the destination. Raises `StoreError` if the destination does not
    say what it holds, `Cancelled`, and what *judge* raises; then some objects may
    have been copied. May be called again.
    """
    outcome = BatchOutcome()
    needed = _needed(destination, objects, outcome.failures)
    outcome.present = len(objects) - len(needed) - len(outcome.failures)
    outcome.needed_bytes = sum(objects[address] for address in needed)
    if begun_before:
        destination.abort_unfinished(objects)
    progress.begin(needed)
    progress.advance(len(objects) - len(needed), sum(objects.values()) - outcome.needed_bytes)

    flights = clamped(min(concurrency or max(source.concurrency, destination.concurrency), len(needed)))
    if in_flight is not None:
        in_flight.expect(flights)
    copy = _Copy(source, destination, objects, progress, in_flight or nullcontext(), judge)
    together = destination.commits_together
    try:
        if together > 1:
            for at in range(0, len(needed), together):
                copy.group(needed[at : at + together], flights)
        else:
            _in_flight(copy.one, needed, flights, copy.in_flight)
    except _Refused as refused:
        for address in needed:
            copy.ends.setdefault(address, Failure.of(address, refused.reason))
    outcome.confirmed = destination.confirmed
    for end in copy.ends.values():
        if isinstance(end, Failure):
            outcome.failures.append(end)
        else:
            outcome.copied += 1
            outcome.bytes_copied += end
    # Also for what was found present: an earlier run of this batch may have been killed before its flush.
    if outcome.copied or outcome.present:
        destination.flush()
    return outcome


def _needed(
    destination: StreamStore, objects: Mapping[Address, int], failures: list[Failure]
) -> list[Address]:
    """
    Return those of *objects* that *destination* lacks; add to *failures* those of which it cannot tell.

    Raises `StoreError` where it tells of none.
    """
    try:
        return destination.objects_needed(objects)
    except StoreError as error:
        if error.transient or isinstance(error, _REFUSALS):
            raise
        refusal = error
    # Something is wrong with the place of one object, or with all of them: each is asked for by itself.
    needed = []
    for number, address in enumerate(objects):
        if number == MANY_DENIED == len(failures):
            raise refusal
        try:
            if not destination.has_object(address):
                needed.append(address)
        except StoreError as error:
            if error.transient or isinstance(error, _REFUSALS):  # type: ignore[redundant-expr]
                raise
            failures.append(Failure.of(address, error))
    if len(failures) == len(objects):
        raise refusal
    return needed


class _Refused(Exception):
    """The destination takes nothing; *reason* says why."""

    def __init__(self, reason: StoreError) -> None:
        super().__init__(reason)
        self.reason = reason


# An object in no one's sight: its upload, its length, and how many of its planned bytes are still to be counted.
_Staged = tuple[Upload, int, int]


class _Copy:
    """
    The copying of a batch's objects: one by one, or in groups that become visible together.

    *ends* has how each object ended, its length or its failure, as soon as that is known.
    """

    def __init__(
        self,
        source: StreamStore,
        destination: StreamStore,
        objects: Mapping[Address, int],
        progress: Progress,
        in_flight: AbstractContextManager[Any],
        judge: Judge | None = None,
    ) -> None:
        self._judge = judge
        self.in_flight = in_flight
        self._source = source
        self._destination = destination
        self._objects = objects
        self._progress = progress
        self.ends: dict[Address, int | Failure] = {}
        self._spending = spending()
        self._denied = 0
        self._some_copied = False

    def one(self, address: Address) -> None:
        """Copy an object."""
        size = self._objects[address]
        counter = _Counter(self._progress, size) if size > CHUNK_BYTES else None
        try:
            length = self._counted(self._destination.copy_object, address, size, counter)
        except OverBudget as over:
            self.ends[address] = _beyond_budget(address, over)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this object's failure
            self._fail(address, self._as_failure(address, error))
        else:
            self.ends[address] = length
            self._note_success()
        self._progress.advance(1, counter.left if counter else size)

    def _counted(self, copy: Callable[..., _T], address: Address, size: int, counter: _Counter | None) -> _T:
        """Copy an object by *copy*, and tell *counter* and the job's budget each piece. Raises `OverBudget`."""
        if self._spending is None:
            return copy(self._source, address, size_hint=size, on_bytes=counter.add if counter else None)
        flight = _marked(self._spending.begin, size)

        def add(size_bytes: int) -> None:
            _marked(flight.read, size_bytes)
            if counter is not None:
                counter.add(size_bytes)

        copied = False
        try:
            found = copy(self._source, address, size_hint=size, on_bytes=add)
            copied = True
        finally:
            flight.ended(copied=copied)
        return found

    def group(self, addresses: list[Address], flights: int) -> None:
        """Stage objects, *flights* at once, and commit them together."""
        staged: dict[Address, _Staged] = {}

        def stage(address: Address) -> None:
            size = self._objects[address]
            counter = _Counter(self._progress, size) if size > CHUNK_BYTES else None
            try:
                upload, length = self._counted(self._destination.stage_object, address, size, counter)
            except OverBudget as over:
                self.ends[address] = _beyond_budget(address, over)
                self._progress.advance(1, counter.left if counter else size)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this object's failure
                self._fail(address, self._as_failure(address, error))
                self._progress.advance(1, counter.left if counter else size)
            else:
                staged[address] = upload, length, counter.left if counter else size

        try:
            _in_flight(stage, addresses, flights, self.in_flight)
        except (_Refused, Held):
            self._commit(staged)
            raise
        except BaseException:
            for upload, _, _ in staged.values():
                upload.abort()
            raise
        self._commit(staged)

    def _commit(self, staged: dict[Address, _Staged]) -> None:
        """Make *staged* visible."""
        if not staged:
            return
        absent: set[Address] = set()
        reason: StoreError | None = None
        try:
            self._destination.commit_staged([upload for upload, _, _ in staged.values()])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is these objects' failure
            # Some of a group may be visible all the same; only the destination knows.
            reason = self._as_failure(min(staged), error)
            absent = set(staged) if len(staged) == 1 else set(self._destination.objects_needed(staged))
        left = 0
        for address, (_, length, size) in staged.items():
            if address not in absent:
                self.ends[address] = length
                left += size
        # What is visible comes first: a refusal of the others ends the batch.
        if len(absent) < len(staged):
            self._note_success()
            self._progress.advance(len(staged) - len(absent), left)
        if reason is not None:
            for address in absent:
                self._fail(address, reason)
                self._progress.advance(1, staged[address][2])

    def _note_success(self) -> None:
        self._some_copied = True
        if self._judge is not None:
            self._judge.succeeded()

    def _as_failure(self, address: Address, error: Exception) -> StoreError:
        """Return *error* as an object's failure. Raises it again where it is the owner's, and not the object's."""
        if isinstance(error, StoreError):
            return error
        if isinstance(error, Cancelled) or not is_unexpected(error):
            raise error
        return unexpected(error, self._source.label, address)

    def _fail(self, address: Address, error: StoreError) -> None:
        if self._judge is not None:
            self._judge.failed(error, some_copied=self._some_copied)
        if error.store == self._destination.label:
            self._denied += isinstance(error, AccessDenied)
            nothing_else = self._denied >= MANY_DENIED and not self._some_copied
            if isinstance(error, _REFUSALS) or nothing_else:
                raise _Refused(error)
        self.ends[address] = Failure.of(address, error)


def _in_flight(
    copy: Callable[[Address], None],
    addresses: list[Address],
    flights: int,
    within: AbstractContextManager[Any],
) -> None:
    """
    Run *copy* for each address, *flights* at once, each inside of *within*.

    The first exception stops the rest and is raised.
    """
    if flights <= 1:
        for address in addresses:
            with within:
                copy(address)
        return
    raised: list[BaseException] = []
    left = iter(addresses)

    def until_stopped() -> None:
        # Taking the next one from a list's iterator is one step of the interpreter, so no lock is needed.
        for address in left:
            if raised:
                return
            try:
                with within:
                    copy(address)
            except BaseException as error:  # noqa: BLE001 - handed over to the caller's thread
                raised.append(error)

    # A copy of the context for each: whose work it is, is in it.
    threads = [
        threading.Thread(target=copy_context().run, args=(until_stopped,), name=f"copy-{n}")
        for n in range(flights)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException as error:
        raised.append(error)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    if raised:
        raise raised[0]


def _marked(count: Callable[[int], _T], size_bytes: int) -> _T:
    """Count *size_bytes*; what the ledger raises is marked, so that nothing takes it for trouble of the object."""
    try:
        return count(size_bytes)
    except Exception as error:
        mark_as_owners(error)
        raise


def _beyond_budget(address: Address, over: OverBudget) -> Failure:
    return Failure(address, OVER_BUDGET, "", str(over), transient=False)


class _Counter:
    """Count one object's bytes as they come; *left* is how many of the planned ones were not counted, never below 0."""

    def __init__(self, progress: Progress, size: int) -> None:
        self._progress = progress
        self.left = size

    def add(self, size_bytes: int) -> None:
        counted = min(size_bytes, self.left)
        self.left -= counted
        try:
            self._progress.advance(0, counted)
        except Exception as error:
            # The store that calls this must not take it for a fault of its own.
            mark_as_owners(error)
            raise
