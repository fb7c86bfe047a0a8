"""
Verify a batch of objects: read each, and compare its bytes with its address. Nothing is written.

*fast*: the store is asked only for presence and length. A length that differs from the manifest's is no verdict,
because a followed link is listed with its own size. So these objects are read.
*second look*: an object that is missing is looked for once more, `SECOND_LOOK_S` after the first time, because
somebody may be writing. Wrong bytes are read twice by the store (`StreamStore.check_object`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Final, Unpack

from snapferry.stores.address import EMPTY_ADDRESS, Address
from snapferry.stores.errors import ObjectMissing, StoreError
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.pools.together import in_runs
from snapferry.stores.runtime.containment import is_unexpected, unexpected
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.outcome import BatchOutcome, Failure

from .batch import flights_of, run_concurrently, run_in_flight, run_together
from .counting import ByteCounter
from .interfaces import BatchOptions, OutageDetector, Progress
from .objects import REFUSALS

SECOND_LOOK_S: Final = 1.0
"""Seconds between the two looks for an object that is missing."""


def verify_batch(
    source: StreamStore,
    destination: StreamStore,
    objects: Mapping[Address, int],
    progress: Progress,
    /,
    *,
    fast: bool = False,
    **options: Unpack[BatchOptions],
) -> BatchOutcome:
    """
    Look at *objects* (address -> advisory size in bytes) of *source*; return the outcome of each.

    An intact object counts as present; a missing one fails as `ObjectMissing`, one with other bytes as
    `IntegrityError`, and something else in its place as `NotAnObject`. *bytes_copied* of the outcome are the bytes that
    were read. The *destination* is the same store and is not used. Otherwise as `BatchFunction`.
    """
    progress.begin([])
    limit = options.get("limit")
    verifier = _Verifier(source, objects, progress, options.get("outages"))
    to_read = list(verifier.odd_ones() if fast else objects)
    flights = flights_of(len(to_read), options.get("concurrency"), source)
    if limit is not None:
        limit.expect(flights)
    if flights <= 1:
        to_read = run_together(verifier.look_at_short, to_read, objects, limit)
    elif source.sends_many is not None:
        to_read = run_in_flight(verifier.look_at_each, verifier.look, to_read, objects, flights, limit)
    run_concurrently(verifier.look, to_read, flights, limit)
    if verifier.missing:
        verifier.wait()
        run_concurrently(verifier.look_again, list(verifier.missing), flights, limit)
    return BatchOutcome(
        present=len(objects) - len(verifier.failures),
        bytes_copied=verifier.read,
        failures=list(verifier.failures.values()),
    )


class _Verifier:
    """
    Looks at the objects of a batch. Safe to call from several threads.

    *failures*: by address. *missing*: the objects to look for again. *read*: bytes that were read, without those of
    small objects that are wrong.
    """

    def __init__(
        self,
        store: StreamStore,
        objects: Mapping[Address, int],
        progress: Progress,
        outages: OutageDetector | None,
    ) -> None:
        self.failures: dict[Address, Failure] = {}
        self.missing: dict[Address, None] = {}
        self.read = 0
        self._lock = threading.Lock()
        self._missed_at = 0.0
        self._store = store
        self._objects = objects
        self._progress = progress
        self._outages = outages

    def odd_ones(self) -> Iterator[Address]:
        """
        Yield the objects that must be read: those whose length differs from the manifest's, or that have none.

        The others count as intact. Raises `StoreError` if the store gives no answer.
        """
        odd = []
        for address, length in self._lengths().items():
            size = self._objects[address]
            if length == size and (size > 0 or address == EMPTY_ADDRESS):
                self._note_intact(address)
                self._progress.advance(1, size)
            else:
                odd.append(address)
        yield from odd

    def _lengths(self) -> dict[Address, int | None]:
        try:
            return self._store.lengths(self._objects)
        except StoreError as error:
            if error.transient or isinstance(error, REFUSALS):
                raise
        # One of them cannot be looked up. Ask for each by itself.
        found: dict[Address, int | None] = {}
        for address in self._objects:
            checkpoint()
            try:
                found |= self._store.lengths([address])
            except StoreError as denied:
                if denied.transient or isinstance(denied, REFUSALS):
                    raise
                found[address] = None
        return found

    def look_at_short(self, addresses: Sequence[Address]) -> list[Address]:
        """Read short objects. Returns those that must be read by themselves, because they may not be intact."""
        sizes = [self._objects[address] for address in addresses]
        fetched = self._store.fetch_objects(addresses, sizes)
        intact = self._note_all_intact(
            (address, data) for address, data in zip(addresses, fetched, strict=True) if data is not None
        )
        return [] if len(intact) == len(addresses) else [each for each in addresses if each not in intact]

    def look_at_each(self, addresses: Iterable[Address], most: int) -> Container[Address]:
        """Read short objects, *most* at once. Returns those that are intact; read the others by themselves."""
        intact: set[Address] = set()
        asked = ((address, self._objects[address]) for address in addresses)
        with closing(self._store.fetch_each(asked, most)) as fetched:
            for some in in_runs(fetched):
                intact.update(self._note_all_intact(some))
        return intact

    def _note_all_intact(self, fetched: Iterable[tuple[Address, bytes]]) -> Mapping[Address, int]:
        """Note those of *fetched*, which are verified, that are not longer than planned; return their lengths."""
        sizes = self._objects
        # Longer bytes may have been cut off.
        found = {address: len(data) for address, data in fetched if len(data) <= sizes[address]}
        if found:
            self._note_intact(next(iter(found)))
            read = sum(found.values())
            with self._lock:
                self.read += read
            self._progress.advance(len(found), sum(map(sizes.__getitem__, found)), read)
        return found

    def look(self, address: Address) -> None:
        """Read an object. A missing one is noted for a second look."""
        self._look(address, last=False)

    def look_again(self, address: Address) -> None:
        """Read an object that was missing."""
        self._look(address, last=True)

    def wait(self) -> None:
        """Wait until `SECOND_LOOK_S` after the last object that was missing."""
        while (left := self._missed_at + SECOND_LOOK_S - time.monotonic()) > 0:
            checkpoint()
            time.sleep(min(left, 0.1))

    def _look(self, address: Address, *, last: bool) -> None:
        size = self._objects[address]
        counter = ByteCounter(self._progress, size) if size > CHUNK_BYTES else None
        read = 0
        try:
            read = self._store.check_object(
                address, size_hint=size, on_bytes=counter.add if counter else None
            )
        except ObjectMissing as error:
            if not last:
                self.missing[address] = None
                self._missed_at = time.monotonic()
                return
            self._fail(address, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this object's failure
            self._fail(address, self._as_failure(address, error))
        else:
            self._note_intact(address)
        with self._lock:
            self.read += counter.read if counter else read
        self._progress.advance(1, counter.left if counter else size, 0 if counter else read)

    def _note_intact(self, address: Address) -> None:
        if self._outages is not None:
            self._outages.succeeded(address, self._store.label)

    def _as_failure(self, address: Address, error: Exception) -> StoreError:
        """Return *error* as the failure of an object. Raises it again where the owner of this work raised it."""
        if isinstance(error, StoreError):
            return error
        if not is_unexpected(error):
            raise error
        return unexpected(error, self._store.label, address)

    def _fail(self, address: Address, error: StoreError) -> None:
        if self._outages is not None:
            self._outages.failed(error)
        self.failures[address] = Failure.of(address, error)
