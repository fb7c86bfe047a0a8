"""
The worker that has the batch of a large object: it begins the copy in parts, or joins the one that a dead worker began.

It copies parts like every other worker that has joined, and waits for theirs. When all are done it makes the object
visible. Progress and budget are counted here alone, whoever copied a part.

*one judge*: after any trouble with the parts, everything that was written is removed, and the object is copied whole.
That reads it from front to end, verifies it, and gives the errors that every other object has.
*kept*: when this worker shuts down or dies, its job is paused, or a store is away, the parts stay. The next run of the
batch keeps those that are still there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Final, Protocol, Unpack

from redis.exceptions import RedisError

from snapferry.stores.address import Address
from snapferry.stores.errors import PartsGone, StoreError
from snapferry.stores.pools.in_parts import PartsCopy, can_copy_in_parts, drop_parts
from snapferry.stores.runtime.interruption import checkpoint, is_owners, mark_as_owners
from snapferry.stores.runtime.liveness import is_dead
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.broker.connection import OUTAGE
from snapferry.workers.copying.transfer.batch import copy_batch
from snapferry.workers.copying.transfer.budget import OverBudget
from snapferry.workers.copying.transfer.interfaces import BatchOptions, JobStopped, Progress
from snapferry.workers.ledger import Ledger, PartsOf
from snapferry.workers.messages import BatchMessage
from snapferry.workers.outcome import BatchOutcome
from snapferry.workers.telemetry.logs import fields

from . import sizes
from .asking import message_for
from .claims import Claims
from .done import DoneParts
from .threads import PartThreads

log = logging.getLogger(__name__)

OnBytes = Callable[[int], None] | None

# Seconds between two readings of what others have done. Seconds between two searches for claims of dead workers and for
# parts that the record has lost.
LOOK_S: Final = 0.25
TIDY_S: Final = 2.0

# If no part was done for so long, the owner takes over those that others have claimed: a call that hangs, as to a dead
# network file system, may hold a claim for ever.
TAKE_OVER_S: Final = 300.0


class Ask(Protocol):
    """Asks other workers to join the copy of an object, as `Asking.ask`."""

    def __call__(self, address: Address, /, *, parts: int, joined: int) -> None: ...


class PartsCopying:
    """
    Copies a batch, its large objects in parts where both stores can do that; `run` is a `BatchFunction`.

    *worker* runs it. *last*: a transient error will not be retried.
    """

    def __init__(self, batch: BatchMessage, ledger: Ledger, worker: str, ask: Ask, *, last: bool) -> None:
        self._batch = batch
        self._ledger = ledger
        self._worker = worker
        self._ask = ask
        self._last = last

    def run(
        self,
        source: StreamStore,
        destination: StreamStore,
        objects: Mapping[Address, int],
        progress: Progress,
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchOutcome:
        """As `copy_batch`."""
        large = {address: size for address, size in objects.items() if sizes.is_large(size)}
        if (
            not large
            or not sizes.hashes_fast()
            or not isinstance(source, SnapshotStore)
            or not isinstance(destination, SnapshotStore)
            or not can_copy_in_parts(source.objects, destination.objects)
        ):
            return copy_batch(source, destination, objects, progress, **options)
        interrupted = options.get("abort_unfinished", False)
        one_by_one = options | {"abort_unfinished": False, "concurrency": 1}
        copies = _Copies(self._batch, self._ledger, self._worker, self._ask, source, destination)
        copies.last, copies.interrupted = self._last, interrupted
        total = copy_batch(source, destination, large, progress, copy=copies.copy, together=1, **one_by_one)
        if interrupted:
            # An object that is present was completed, but its worker may have died before it removed the note.
            present = {address: size for address, size in large.items() if address not in copies.tried}
            for address in present:
                drop_parts(destination.objects, address, self._batch.job_id)
                with suppress(RedisError):
                    self._ledger.end_parts(self._batch.job_id, address)
            destination.abort_unfinished(present)
        rest = {address: size for address, size in objects.items() if address not in large}
        if not rest:
            return total
        other = copy_batch(source, destination, rest, progress, **options)
        return replace(
            other,
            copied=total.copied + other.copied,
            present=total.present + other.present,
            bytes_copied=total.bytes_copied + other.bytes_copied,
            needed_bytes=total.needed_bytes + other.needed_bytes,
            failures=total.failures + other.failures,
        )


class _Copies:
    """
    Copies single objects, in parts or whole. *tried*: the addresses that it was asked for.

    *interrupted*: a worker died that ran this batch. *last* as for `PartsCopying`.
    """

    def __init__(
        self,
        batch: BatchMessage,
        ledger: Ledger,
        worker: str,
        ask: Ask,
        source: SnapshotStore,
        destination: SnapshotStore,
    ) -> None:
        self.tried: set[Address] = set()
        self.last = self.interrupted = False
        self._batch = batch
        self._ledger = ledger
        self._worker = worker
        self._ask = ask
        self._source = source
        self._destination = destination

    def copy(
        self, source: StreamStore, address: Address, *, size_hint: int = 0, on_bytes: OnBytes = None
    ) -> int:
        """As `StreamStore.copy_object`."""
        self.tried.add(address)
        if (copy := self._begun(address, size_hint)) is not None:
            with copy:
                if self._is_copied(copy, on_bytes):
                    return size_hint
        return self._destination.copy_object(source, address, size_hint=size_hint, on_bytes=on_bytes)

    def _begun(self, address: Address, size: int) -> PartsCopy | None:
        """Join or begin the copy of an object in parts; return None where it is to be copied whole."""
        stores, job_id = (self._source.objects, self._destination.objects), self._batch.job_id
        try:
            try:
                copy = PartsCopy.join(*stores, address, job_id, sizes.LEAST_PART_BYTES)
            except PartsGone as gone:
                log.info("copy in parts begun anew: %s", gone.detail)
                copy = None
            if copy is not None and copy.shape.length != size:
                copy.close()
                copy = None
            if copy is None:
                # An upload that cannot be joined may have left a file or a note.
                drop_parts(stores[1], address, job_id)
            if self.interrupted and copy is None:
                self._destination.abort_unfinished({address: size})
            elif self.interrupted and copy is not None:
                with ExitStack() as stack:
                    stack.enter_context(copy)
                    copy.abort_others()
                    stack.pop_all()
            if copy is None:
                copy = PartsCopy.begin(*stores, address, job_id, size, sizes.LEAST_PART_BYTES)
        except StoreError as error:
            log.info("object copied whole, its copy in parts cannot begin: %s", error)
            return None
        return copy

    def _is_copied(self, copy: PartsCopy, on_bytes: OnBytes) -> bool:
        """Copy an object in parts. Return False where it is to be copied whole; then nothing is left of its parts."""
        gone = False
        of = PartsOf(self._batch.job_id, copy.name)
        run = _PartsRun(copy, self._ledger, of, self._worker, on_bytes)
        try:
            self._ledger.begin_parts(of, copy.address, self._message(copy.address))
            run.to_end(self._ask, self._batch.concurrency)
        except (JobStopped, OverBudget):
            self._discard(copy, of)
            raise
        except OUTAGE as error:
            mark_as_owners(error)
            raise
        except StoreError as error:
            if error.transient and not self.last:
                # A store is away. The next run of the batch goes on with the parts.
                raise
            log.warning("object copied whole: %s", error, extra=fields(error=type(error).__name__))
            gone = isinstance(error, PartsGone)
        except RedisError as error:
            log.warning("object copied whole, the record of its parts is damaged: %s", error)
        except Exception as error:
            if is_owners(error):
                raise
            log.exception("uncaught exception; the object is copied whole")
        else:
            with suppress(RedisError):
                self._ledger.end_parts(of.job_id, copy.address, of.upload)
            return True
        self._discard(copy, of)
        # Another run of the batch, at the same time, may have made it visible. After any other error, what is visible
        # may be what this upload has made, and wrong.
        return gone and self._destination.has_object(copy.address)

    def _discard(self, copy: PartsCopy, of: PartsOf) -> None:
        # The keys end first: then no other worker begins a part.
        with suppress(RedisError):
            self._ledger.end_parts(of.job_id, copy.address, of.upload)
        if not copy.abort():
            # A worker tries again when the job ends.
            with suppress(RedisError):
                self._ledger.begin_parts(of, copy.address, self._message(copy.address))

    def _message(self, address: Address) -> str:
        return message_for(self._batch, address).model_dump_json()


class _PartsRun:
    """One run of a batch, while it copies one object in parts."""

    def __init__(self, copy: PartsCopy, ledger: Ledger, of: PartsOf, worker: str, on_bytes: OnBytes) -> None:
        self._copy = copy
        self._ledger = ledger
        self._of = of
        self._worker = worker
        self._done = DoneParts(copy, ledger, of, on_bytes)
        self._tidy_at = time.monotonic() + TIDY_S
        self._moved_at, self._last_done = time.monotonic(), 0

    def to_end(self, ask: Ask, concurrency: int | None) -> None:
        """
        Copy all parts that are not done, with whoever joins, and make the object visible.

        Raises `StoreError`, `RedisError`, and whatever interrupts the batch. The parts stay then.
        """
        began, done, ledger, of = time.monotonic(), self._done, self._ledger, self._of
        done.read()
        done.keep()
        kept = len(done.parts)
        ledger.offer_parts(of, done.missing)
        done.count()
        in_flight = sizes.parts_in_flight(self._copy.shape.part_bytes, concurrency)
        log.info(
            "object copied in parts",
            extra=fields(object=self._copy.address, parts=self._copy.shape.parts, kept=kept),
        )
        with Claims(ledger, of, self._copy.shape.parts, self._worker) as claims:
            threads = PartThreads(self._copy, claims, stay=True)
            try:
                if done.missing:
                    ask(self._copy.address, parts=len(done.missing), joined=0)
                    threads.start(in_flight)
                while done.missing and threads.wait(LOOK_S):
                    checkpoint()
                    done.read()
                    done.count()
                    self._tidy(ask, claims.holder)
            finally:
                threads.stop()
        if threads.error is not None:
            raise threads.error
        done.read()
        done.count()
        self._copy.commit(done.settled)
        log.info(
            "all parts copied",
            extra=fields(
                object=self._copy.address,
                kept=kept,
                own=threads.copied,
                others=self._copy.shape.parts - kept - threads.copied,
                seconds=round(time.monotonic() - began, 3),
            ),
        )

    def _tidy(self, ask: Ask, holder: str) -> None:
        """Offer parts whose worker is dead, or that the record has lost; ask workers that came later."""
        if time.monotonic() < self._tidy_at:
            return
        self._tidy_at = time.monotonic() + TIDY_S
        to_do = self._ledger.parts_to_do(self._of)
        # A part leaves those to do in the same step in which it is recorded as done. So one that is in neither, in this
        # order, is lost.
        self._done.read()
        missing = self._done.missing
        holders = self._ledger.part_holders(self._of)
        takes_over = self._takes_over()
        for part, other in holders.items():
            if other != holder and (takes_over or is_dead(other.partition("#")[0])):
                self._ledger.give_up_part(self._of, other, part)
        self._ledger.offer_parts(self._of, missing - to_do)
        joined = len({other for other in holders.values() if other != holder})
        ask(self._copy.address, parts=len(missing), joined=joined)

    def _takes_over(self) -> bool:
        now, done = time.monotonic(), len(self._done.parts)
        if done != self._last_done:
            self._moved_at, self._last_done = now, done
        if now - self._moved_at < TAKE_OVER_S:
            return False
        self._moved_at = now
        log.warning("no part was done for %.0f s: parts of other workers are taken over", TAKE_OVER_S)
        return True
