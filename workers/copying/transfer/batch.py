"""
Copy a batch of objects from one store to another.

A batch may be copied twice, also at the same time: objects that are present are not copied again, and copying an
object twice files the same bytes under the same address.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from time import monotonic, thread_time
from typing import Any, Final, Unpack

from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError
from snapferry.stores.pools.together import MOST_TOGETHER, SHORT_BYTES
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.lifecycle.process_setup import limited_by_open_files, max_in_flight
from snapferry.workers.outcome import BatchOutcome, Failure

from .interfaces import BatchOptions, ConcurrencyLimit, CopyVerb, Destination, Progress
from .objects import MANY_DENIED, REFUSALS, DestinationRefuses, ObjectCopier

# Objects that are in one call, their bytes, and the seconds that it should take.
MOST_IN_ONE_CALL: Final = 512
BYTES_IN_ONE_CALL: Final = 8 * 1024 * 1024
CALL_S: Final = 0.5

# One thread waits at the end of each call until the last answer is there. Where it is busy for a smaller share of the
# time than this, threads of their own copy short objects faster. They do so for some seconds.
BUSY: Final = 0.1
FAR_S: Final = 60.0
_far_until: dict[tuple[str, ...], float] = {}

Ask = Callable[[Iterable[Address]], list[Address]]


def copy_batch(
    source: StreamStore,
    destination: Destination,
    objects: Mapping[Address, int],
    progress: Progress,
    *,
    ask: Ask | None = None,
    copy: CopyVerb | None = None,
    together: int | None = None,
    **options: Unpack[BatchOptions],
) -> BatchOutcome:
    """
    Copy those of *objects* (address -> advisory size in bytes) that *destination* lacks; return the outcome of each.

    *ask* returns which it lacks, by default its `objects_needed`. *copy* copies an object that is not staged in a
    group, by default its `copy_object`. *together*: how many objects are staged in a group, by default as many as
    *destination* commits together.

    An object that fails, with whatever exception, does not stop the others. If the destination is full, does not
    exist, or refuses every object, the rest of the batch fails for that reason without further requests. When this
    returns, every object counted as copied or present is durable at the destination.

    Raises `StoreError` if the destination does not answer which objects it has, `BatchStopped`, and what *outages*
    raises. Some objects may have been copied then. May be repeated.
    """
    limit, outages = options.get("limit"), options.get("outages")
    outcome = BatchOutcome()
    needed = _needed(destination, objects, outcome.failures, ask or destination.objects_needed)
    outcome.present = len(objects) - len(needed) - len(outcome.failures)
    outcome.needed_bytes = sum(objects[address] for address in needed)
    if options.get("abort_unfinished"):
        destination.abort_unfinished(objects)
    progress.begin(needed)
    progress.advance(len(objects) - len(needed), sum(objects.values()) - outcome.needed_bytes)

    flights = limited_by_open_files(
        min(options.get("concurrency") or max(source.concurrency, destination.concurrency), len(needed))
    )
    if limit is not None:
        limit.expect(flights)
    copier = ObjectCopier(source, destination, objects, progress, outages, copy or destination.copy_object)
    stores = source.label, destination.label
    # Whether one thread keeps both stores busy.
    in_one_thread = flights <= 1 or all(
        store.concurrency <= 1 or store.many_in_flight for store in (source, destination)
    )
    try:
        if (together or destination.commits_together) > 1:
            for group in _groups(needed, destination, together):
                with copier.group() as staging:
                    if in_one_thread:
                        run_together(
                            staging.stage_short, staging.stage, group, objects, flights, limit, stores
                        )
                    else:
                        run_concurrently(staging.stage, group, flights, limit)
        elif in_one_thread and copy is None:
            run_together(copier.copy_short, copier.copy, needed, objects, flights, limit, stores)
        else:
            run_concurrently(copier.copy, needed, flights, limit)
    except DestinationRefuses as refusal:
        for address in needed:
            copier.results.setdefault(address, Failure.of(address, refusal.reason))
    outcome.confirmed = destination.confirmed
    _count(copier.results.values(), outcome)
    # Objects that are present are flushed too: an earlier run of this batch may have been killed before its flush.
    if outcome.copied or outcome.present:
        destination.flush()
    return outcome


def _count(results: Iterable[int | Failure], outcome: BatchOutcome) -> None:
    """Add the results of objects to *outcome*: the length of what was copied, or a failure."""
    for result in results:
        if isinstance(result, Failure):
            outcome.failures.append(result)
        else:
            outcome.copied += 1
            outcome.bytes_copied += result


def _groups(needed: list[Address], destination: Destination, together: int | None) -> Iterator[list[Address]]:
    """Yield *needed* in groups of *together* objects, by default as many as *destination* commits together by then."""
    first = 0
    while first < len(needed):
        # Each object of a group may hold a descriptor until its commit.
        size = together or min(destination.commits_together, max_in_flight())
        yield needed[first : first + size]
        first += size


def _needed(
    destination: Destination, objects: Mapping[Address, int], failures: list[Failure], ask: Ask
) -> list[Address]:
    """
    Return the addresses that *destination* lacks. Add those for which it gives no answer to *failures*.

    Raises `StoreError` if it gives no answer for any address.
    """
    try:
        return ask(objects)
    except StoreError as error:
        if error.transient or isinstance(error, REFUSALS):
            raise
        refusal = error
    # One object, or all of them, cannot be looked up. Ask for each by itself.
    needed = []
    for number, address in enumerate(objects):
        if number == MANY_DENIED == len(failures):
            raise refusal
        try:
            if not destination.has_object(address):
                needed.append(address)
        except StoreError as denied:
            if denied.transient or isinstance(denied, REFUSALS):
                raise
            failures.append(Failure.of(address, denied))
    if len(failures) == len(objects):
        raise refusal
    return needed


def run_together(
    short_ones: Callable[[Sequence[Address], int], list[Address]],
    one: Callable[[Address], None],
    addresses: list[Address],
    sizes: Mapping[Address, int],
    flights: int,
    limit: ConcurrencyLimit | None,
    stores: tuple[str, ...],
) -> None:
    """
    Call *short_ones* for the short objects among *addresses*, some at a time; it returns those that it leaves out.

    Call *one* for these and for the longer objects, as `run_concurrently` does. *short_ones* is told how many objects
    may be in flight at once: *flights*, or less where *limit* has less room. *sizes* are in bytes, *stores* the labels
    of the stores.
    """
    short = [address for address in addresses if sizes[address] <= SHORT_BYTES]
    longer = (
        [address for address in addresses if sizes[address] > SHORT_BYTES]
        if len(short) < len(addresses)
        else []
    )
    count = MOST_TOGETHER if flights <= 1 else flights
    while short and (flights <= 1 or _far_until.get(stores, 0.0) < monotonic()):
        some = short[:count]
        while len(some) > 1 and sum(map(sizes.__getitem__, some)) > BYTES_IN_ONE_CALL:
            some = some[: len(some) // 2]
        del short[: len(some)]
        began, busy = monotonic(), thread_time()
        entered = flights if limit is None else limit.enter_some(flights)
        try:
            left = short_ones(some, entered) if entered else some
        finally:
            if limit is not None:
                limit.leave_some(entered)
        if flights > 1:
            took, busy = monotonic() - began, thread_time() - busy
            if not left and busy < took * BUSY:
                _far_until[stores] = monotonic() + FAR_S
            # Few enough that progress is seen, and that little is repeated if this process dies.
            count = min(count * 2, MOST_IN_ONE_CALL) if took < CALL_S else max(count // 2, flights)
        run_concurrently(one, left, flights, limit)
    run_concurrently(one, short + longer, flights, limit)


def run_concurrently(
    copy: Callable[[Address], None],
    addresses: list[Address],
    flights: int,
    limit: AbstractContextManager[Any] | None = None,
) -> None:
    """
    Call *copy* for each address, in *flights* threads, each call inside a ``with`` block of *limit*.

    The first exception stops the others and is raised.
    """
    within = limit if limit is not None else nullcontext()
    flights = min(flights, len(addresses))
    if flights <= 1:
        for address in addresses:
            with within:
                copy(address)
        return
    raised: list[BaseException] = []
    left = iter(addresses)

    def run() -> None:
        # Taking the next item from a list's iterator is one step of the interpreter, so no lock is needed.
        for address in left:
            if raised:
                return
            try:
                with within:
                    copy(address)
            except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
                raised.append(error)

    # Each thread gets a copy of the context: the context knows who may interrupt this work.
    threads = [
        threading.Thread(target=copy_context().run, args=(run,), name=f"copy-{n}") for n in range(flights)
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
