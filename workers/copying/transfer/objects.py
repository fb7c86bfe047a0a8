"""Copy the objects of a batch: each by itself, or staged in groups that become visible together."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

from snapferry.stores.address import Address
from snapferry.stores.errors import AccessDenied, StoreError, StoreFull, StoreNotFound
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.pools.together import in_runs
from snapferry.stores.runtime.containment import is_unexpected, unexpected
from snapferry.stores.runtime.interruption import mark_as_owners
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.streams import Upload
from snapferry.workers.outcome import OVER_BUDGET, Failure

from .budget import BudgetMeter, OverBudget, current_meter
from .counting import ByteCounter
from .interfaces import CopyVerb, Destination, JobPaused, OutageDetector, Progress

REFUSALS = (StoreFull, StoreNotFound)
"""Errors of a destination that concern the whole store, never one object."""

MANY_DENIED = 20
"""If the first objects are all denied, and there are this many, the destination denies every object."""

_T = TypeVar("_T")

# A staged object: its upload, its length, and how many of its planned and of its moved bytes are not counted yet.
_Staged = tuple[Upload, int, int, int]


class Group(NamedTuple):
    """
    How to stage objects that become visible together.

    *stage* stages an object. *stage_short* stages many short ones and returns those that must be staged one by one.
    *stage_each* does so with a number of them in flight at once, and returns what is staged. Both are for one thread.
    """

    stage: Callable[[Address], None]
    stage_short: Callable[[Sequence[Address]], list[Address]]
    stage_each: Callable[[Iterable[Address], int], Container[Address]]


class DestinationRefuses(Exception):
    """The destination accepts no object at all, for *reason*."""

    def __init__(self, reason: StoreError) -> None:
        super().__init__(reason)
        self.reason = reason


class ObjectCopier:
    """
    Copies the objects of a batch. Safe to call from several threads.

    *results*: address -> length in bytes of the copied object, or its failure, as soon as either is known.
    """

    def __init__(
        self,
        source: StreamStore,
        destination: Destination,
        objects: Mapping[Address, int],
        progress: Progress,
        outages: OutageDetector | None,
        copy: CopyVerb,
    ) -> None:
        self.results: dict[Address, int | Failure] = {}
        self._outages = outages
        self._copy = copy
        self._source = source
        self._destination = destination
        self._objects = objects
        self._progress = progress
        self._meter = current_meter()
        # Called for every object, so the labels are read once.
        self._labels = source.label, destination.label
        self._denied = 0
        self._some_copied = False

    def copy(self, address: Address) -> None:
        """Copy an object. Raises `DestinationRefuses`."""
        size = self._objects[address]
        counter = ByteCounter(self._progress, size) if size > CHUNK_BYTES else None
        moved = 0
        try:
            if self._meter is None and counter is None:
                length = self._copy(self._source, address, size_hint=size)
            else:
                length = metered(self._meter, self._copy, self._source, address, size, counter)
        except OverBudget as over:
            self.results[address] = over_budget(address, over)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this object's failure
            self._fail(address, as_failure(self._source, address, error))
        else:
            self.results[address] = length
            self._note_success(address)
            moved = 0 if counter else length
        self._progress.advance(1, counter.left if counter else size, moved)

    def copy_each(self, addresses: Iterable[Address], most: int) -> Container[Address]:
        """Copy those short objects *addresses* that both stores keep in flight, *most* at once; return what is done."""
        if self._meter is not None:
            return ()
        objects, results = self._objects, self.results
        asked = ((address, objects[address]) for address in addresses)
        with closing(self._destination.copy_each(self._source, asked, most)) as copied:
            for some in in_runs(copied):
                results.update(some)
                self._note_success(some[0][0])
                planned = sum(objects[address] for address, _ in some)
                self._progress.advance(len(some), planned, sum(length for _, length in some))
        return results

    @contextmanager
    def group(self) -> Iterator[Group]:
        """
        Commit together, at the end of the block, the objects that were staged in it.

        Where the block raises, the staged objects are dropped, unless the destination refuses the rest or the job is
        paused.
        """
        staged: dict[Address, _Staged] = {}
        try:
            yield Group(
                partial(self._stage, staged),
                partial(self._stage_short, staged),
                partial(self._stage_each, staged),
            )
        except (DestinationRefuses, JobPaused):
            self._commit(staged)
            raise
        except BaseException:
            for upload, *_ in staged.values():
                upload.abort()
            raise
        self._commit(staged)

    def _stage_short(self, staged: dict[Address, _Staged], addresses: Sequence[Address]) -> list[Address]:
        """Stage those of *addresses* that both stores handle together; return the others."""
        if self._meter is not None:
            return list(addresses)
        objects = self._objects
        sizes = [objects[address] for address in addresses]
        found = self._destination.stage_objects(self._source, addresses, sizes)
        for address, (upload, length) in found.items():
            staged[address] = upload, length, objects[address], length
        if len(found) == len(addresses):
            return []
        return [address for address in addresses if address not in found]

    def _stage_each(
        self, staged: dict[Address, _Staged], addresses: Iterable[Address], most: int
    ) -> Container[Address]:
        """Stage those short objects *addresses* that both stores keep in flight, *most* at once; return what is."""
        if self._meter is not None:
            return ()
        objects = self._objects
        asked = ((address, objects[address]) for address in addresses)
        with closing(self._destination.stage_each(self._source, asked, most)) as found:
            for some in found:
                for address, (upload, length) in some.items():
                    staged[address] = upload, length, objects[address], length
        return staged

    def _stage(self, staged: dict[Address, _Staged], address: Address) -> None:
        size = self._objects[address]
        counter = ByteCounter(self._progress, size) if size > CHUNK_BYTES else None
        try:
            upload, length = metered(
                self._meter, self._destination.stage_object, self._source, address, size, counter
            )
        except OverBudget as over:
            self.results[address] = over_budget(address, over)
            self._progress.advance(1, counter.left if counter else size)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is this object's failure
            self._fail(address, as_failure(self._source, address, error))
            self._progress.advance(1, counter.left if counter else size)
        else:
            left, moved = (counter.left, 0) if counter else (size, length)
            staged[address] = upload, length, left, moved

    def _commit(self, staged: dict[Address, _Staged]) -> None:
        """Make *staged* visible."""
        if not staged:
            return
        absent: set[Address] = set()
        reason: StoreError | None = None
        try:
            self._destination.commit_staged([each[0] for each in staged.values()])
        except Exception as error:  # noqa: BLE001 - whatever it is, it is these objects' failure
            # Some objects of the group may be visible all the same; only the destination knows which.
            reason = as_failure(self._source, min(staged), error)
            absent = set(staged) if len(staged) == 1 else set(self._destination.objects_needed(staged))
        planned = moved = 0
        for address, (_, length, left, uncounted) in staged.items():
            if address not in absent:
                self.results[address] = length
                planned += left
                moved += uncounted
        # Visible objects are counted first, because a refusal of the others ends the batch.
        if len(absent) < len(staged):
            self._note_success(next(address for address in staged if address not in absent))
            self._progress.advance(len(staged) - len(absent), planned, moved)
        if reason is not None:
            for address in absent:
                self._fail(address, reason)
                self._progress.advance(1, staged[address][2])

    def _note_success(self, address: Address) -> None:
        self._some_copied = True
        if self._outages is not None:
            self._outages.succeeded(address, *self._labels)

    def _fail(self, address: Address, error: StoreError) -> None:
        if self._outages is not None:
            self._outages.failed(error)
        if error.store == self._destination.label:
            self._denied += isinstance(error, AccessDenied)
            only_denied = self._denied >= MANY_DENIED and not self._some_copied
            if isinstance(error, REFUSALS) or only_denied:
                raise DestinationRefuses(error)
        self.results[address] = Failure.of(address, error)


def metered(
    meter: BudgetMeter | None,
    copy: Callable[..., _T],
    source: StreamStore,
    address: Address,
    size: int,
    counter: ByteCounter | None,
) -> _T:
    """
    Return what *copy*, a verb of a destination, returns for an object of *source*, of *size* bytes by the manifest.

    Reports each piece to *counter* and to the budget. Raises `OverBudget`, and what *copy* raises.
    """
    if meter is None:
        return copy(source, address, size_hint=size, on_bytes=counter.add if counter else None)
    flight = _as_owner(meter.begin, size)

    def add(size_bytes: int) -> None:
        _as_owner(flight.read, size_bytes)
        if counter is not None:
            counter.add(size_bytes)

    copied = False
    try:
        found = copy(source, address, size_hint=size, on_bytes=add)
        copied = True
    finally:
        flight.end(copied=copied)
    return found


def as_failure(source: StreamStore, address: Address, error: Exception) -> StoreError:
    """Return *error* as the failure of an object. Raises it again where the owner of this work raised it."""
    if isinstance(error, StoreError):
        return error
    if not is_unexpected(error):
        raise error
    return unexpected(error, source.label, address)


def _as_owner(count: Callable[[int], _T], size_bytes: int) -> _T:
    """Call *count*. What it raises comes from the ledger; the mark keeps stores from taking it for their own error."""
    try:
        return count(size_bytes)
    except Exception as error:
        mark_as_owners(error)
        raise


def over_budget(address: Address, over: OverBudget) -> Failure:
    """Return the failure of an object for which the budget has no room."""
    return Failure(address, OVER_BUDGET, "", str(over), transient=False)
