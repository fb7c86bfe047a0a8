"""
Compare the content of objects at a destination with their addresses, and repair the wrong ones.

*intact is left alone*: an object is replaced only if it is missing, if two readings gave wrong bytes, if the disk
cannot read it, or if something other than a file is in its place. A store that gives no answer has no wrong objects.
*any good source*: the sources are tried in order until one has the object intact. What one source has, lacks or refuses
does not stop the others.
*confirmed*: a repaired object is read again.

A batch may be run twice, also at the same time: objects that are intact are neither replaced nor quarantined.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Unpack

from snapferry.stores.address import Address
from snapferry.stores.errors import (
    IntegrityError,
    NotAnObject,
    ObjectMissing,
    StoreError,
    StoreUnavailable,
    Unreadable,
)
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.stream_store import Replaced, StreamStore
from snapferry.stores.text.printable import shortened
from snapferry.workers.outcome import BatchOutcome, Failure

from .batch import copy_batch, flights_of, run_concurrently
from .budget import OverBudget, current_meter
from .counting import ByteCounter
from .interfaces import BatchFunction, BatchOptions, OutageDetector, Progress, Repairs
from .objects import as_failure, metered, over_budget

log = logging.getLogger(__name__)

WRONG: Final = {
    ObjectMissing: "missing",
    IntegrityError: "corrupt",
    Unreadable: "unreadable",
    NotAnObject: "not a file",
}
"""The errors of a check that mean that an object is wrong, and what is wrong."""

MAX_TROUBLE: Final = 3
"""A further source that gives no answer this often in a row is not asked again in a run of a batch."""

MAX_DETAIL: Final = 1000

OpenSource = Callable[[], StreamStore]


@dataclass(frozen=True)
class Healing:
    """
    Heals batches: objects come from the batch's source, or else from the first of the *further* sources that has them.

    *compares*: the batch is one of a copy. Objects that are not there are copied as in any copy, by *copy*, and content
    is compared for the others.
    """

    repairs: Repairs
    further: Sequence[OpenSource] = ()
    compares: bool = False
    copy: BatchFunction = copy_batch

    def run(
        self,
        source: StreamStore,
        destination: StreamStore,
        objects: Mapping[Address, int],
        progress: Progress,
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchOutcome:
        """As `BatchFunction`: *present* objects are intact, *copied* ones took the place of wrong ones."""
        copied = BatchOutcome()
        there: Mapping[Address, int] = objects
        if self.compares and (missing := _missing(destination, objects)):
            copied = self.copy(source, destination, missing, progress, **options)
            there = {address: size for address, size in objects.items() if address not in missing}
        # Jobs that Redis lost have left files here that no other run looks for.
        destination.abort_unfinished(there, dead_only=not options.get("abort_unfinished"))
        flights = flights_of(len(there), options.get("concurrency"), source, destination)
        limit = options.get("limit")
        if limit is not None:
            limit.expect(flights)
        sources = [_Source(lambda: source), *map(_Source, self.further)]
        healer = _Healer(sources, destination, there, progress, self.repairs, options.get("outages"))
        run_concurrently(healer.check, list(there), flights, limit)
        wrong = healer.wrong
        self.repairs.found({address: WRONG[type(error)] for address, error in wrong.items()})
        progress.begin(list(wrong))
        run_concurrently(healer.repair, list(wrong), min(flights, len(wrong)), limit)
        healed = healer.outcome()
        if healed.copied or healed.present:
            destination.flush()
        return _sum(copied, healed, destination)


def _missing(destination: StreamStore, objects: Mapping[Address, int]) -> dict[Address, int]:
    """Return those of *objects* that *destination* lacks; none if it does not tell, because each is read then."""
    try:
        return {address: objects[address] for address in destination.objects_needed(objects)}
    except StoreError as error:
        if error.transient:
            raise
        return {}


def _sum(copied: BatchOutcome, healed: BatchOutcome, destination: StreamStore) -> BatchOutcome:
    return BatchOutcome(
        copied=copied.copied + healed.copied,
        present=copied.present + healed.present,
        bytes_copied=copied.bytes_copied + healed.bytes_copied,
        needed_bytes=copied.needed_bytes + healed.needed_bytes,
        failures=copied.failures + healed.failures,
        confirmed=destination.confirmed,
    )


class _Source:
    """A source that is opened when it is asked for the first object. Safe to share between threads."""

    def __init__(self, open_: OpenSource) -> None:
        self._open = open_
        self._lock = threading.Lock()
        self._store: StreamStore | None = None
        self._error: StoreError | None = None
        self._in_a_row = 0

    def store(self) -> StreamStore:
        """Return the store. Raises `StoreError` where it cannot be opened, or is not asked any more."""
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._store is None:
                try:
                    self._store = self._open()
                except StoreError as error:
                    self._error = error
                    raise
            return self._store

    def failed(self, error: StoreError) -> None:
        """Record an error of this source."""
        with self._lock:
            self._in_a_row = self._in_a_row + 1 if error.transient else 0
            if self._in_a_row >= MAX_TROUBLE:
                self._error = error


class _Healer:
    """
    Checks and repairs the objects of a batch. Safe to call from several threads.

    *wrong*: address -> what is wrong with the object at the destination, after all were checked.
    """

    def __init__(
        self,
        sources: Sequence[_Source],
        destination: StreamStore,
        objects: Mapping[Address, int],
        progress: Progress,
        repairs: Repairs,
        outages: OutageDetector | None,
    ) -> None:
        self.wrong: dict[Address, StoreError] = {}
        self._sources = sources
        self._destination = destination
        self._objects = objects
        self._progress = progress
        self._repairs = repairs
        self._outages = outages
        self._meter = current_meter()
        # Address -> planned bytes of a wrong object that are not counted yet.
        self._uncounted: dict[Address, int] = {}
        self._lengths: dict[Address, int] = {}
        self._failures: dict[Address, Failure] = {}

    def check(self, address: Address) -> None:
        """Read an object at the destination."""
        size = self._objects[address]
        counter = ByteCounter(self._progress, size, moves=False) if size > CHUNK_BYTES else None
        try:
            self._destination.check_object(address, size_hint=size, on_bytes=counter.add if counter else None)
        except tuple(WRONG) as error:
            self._uncounted[address] = counter.left if counter else size
            # Not the error itself: its traceback holds what was read.
            self.wrong[address] = type(error)(*error.args)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this object's failure
            failure = as_failure(self._destination, address, error)
            self._tell([failure])
            self._failures[address] = Failure.of(address, failure)
        else:
            self._succeeded(address, self._destination.label)
        self._progress.advance(1, counter.left if counter else size)

    def repair(self, address: Address) -> None:
        """Put an object in the place of a wrong one."""
        errors: list[StoreError] = []
        try:
            for source in self._sources:
                error = self._replace(source, address)
                if error is None:
                    break
                errors.append(error)
                if error.store in self._destination.labels:
                    self._fail(address, errors)
                    break
                source.failed(error)
            else:
                self._fail(address, errors)
        except OverBudget as over:
            self._repairs.failed(address)
            self._failures[address] = over_budget(address, over)
        self._progress.advance(1, self._uncounted[address], self._lengths.get(address, 0))

    def _replace(self, source: _Source, address: Address) -> StoreError | None:
        """Replace a wrong object by that of *source*; return the error that kept it from being replaced."""
        destination, size = self._destination, self._objects[address]
        try:
            store = source.store()
        except StoreError as error:
            return error
        try:
            replaced: Replaced = metered(self._meter, destination.replace_object, store, address, size, None)
            self._read_again(address, replaced.length)
        except OverBudget:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this object's failure
            return as_failure(store, address, error)
        if replaced.was_right:
            self._repairs.failed(address)
            log.info("object repaired by another program: %s", address)
            self._succeeded(address, destination.label)
            return None
        self._lengths[address] = replaced.length
        self._repairs.repaired(address, WRONG[type(self.wrong[address])], store.label, replaced.quarantined)
        log.info("object repaired: %s, from %s", address, store.label)
        self._succeeded(address, store.label, destination.label)
        return None

    def _read_again(self, address: Address, length: int) -> None:
        """Read an object that was repaired. Raises `StoreError`."""
        destination = self._destination
        try:
            destination.check_object(address, size_hint=length)
        except IntegrityError as error:
            # What was sent was right. Bits that change on the way, to there or back, do so for a while.
            raise StoreUnavailable(
                destination.label, address, f"was written, and reads back wrong: {error.detail}"
            ) from None

    def _fail(self, address: Address, errors: Sequence[StoreError]) -> None:
        self._tell(errors)
        self._repairs.failed(address)
        wrong = self.wrong[address]
        why = "; ".join(f"{error.store}: {error.detail}" for error in errors)
        self._failures[address] = Failure(
            address,
            type(wrong).__name__,
            wrong.store,
            shortened(f"{wrong.detail}; not repaired: {why}", MAX_DETAIL),
            transient=any(error.transient for error in errors),
        )

    def _tell(self, errors: Sequence[StoreError]) -> None:
        if self._outages is not None:
            for error in errors:
                self._outages.failed(error)

    def _succeeded(self, address: Address, *holders: str) -> None:
        if self._outages is not None:
            self._outages.succeeded(address, *holders)

    def outcome(self) -> BatchOutcome:
        """Return how the objects ended, after all were checked, and the wrong ones repaired."""
        return BatchOutcome(
            copied=len(self._lengths),
            present=len(self._objects) - len(self._lengths) - len(self._failures),
            bytes_copied=sum(self._lengths.values()),
            needed_bytes=sum(self._objects[address] for address in self.wrong),
            failures=list(self._failures.values()),
        )
