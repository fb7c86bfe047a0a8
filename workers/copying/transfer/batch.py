"""
Copy a batch of objects from one store to another.

A batch may be copied twice, also at the same time: objects that are present are not copied again, and copying an
object twice files the same bytes under the same address.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import copy_context
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, Final, Unpack

from snapferry.stores.address import Address
from snapferry.stores.errors import StoreError
from snapferry.stores.pools.together import MOST_TOGETHER, SHORT_BYTES
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.lifecycle.process_setup import limited_by_open_files, max_in_flight
from snapferry.workers.outcome import BatchOutcome, Failure

from .interfaces import BatchOptions, BatchStopped, ConcurrencyLimit, CopyVerb, Destination, Progress
from .objects import MANY_DENIED, REFUSALS, DestinationRefuses, ObjectCopier

ASK_AGAIN_S: Final = 5.0
"""Seconds for which objects are kept in flight before limits are asked for again."""

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

    flights = flights_of(len(needed), options.get("concurrency"), source, destination)
    if limit is not None:
        limit.expect(flights)
    copier = ObjectCopier(source, destination, objects, progress, outages, copy or destination.copy_object)
    # Whether one thread is enough for each of the stores, and keeps many objects in flight at one of them.
    in_flight = flights > 1 and all(
        store.concurrency <= 1 or store.sends_many is not None for store in (source, destination)
    )
    try:
        if (together or destination.commits_together) > 1:
            for group in _groups(needed, destination, together):
                with copier.group() as staging:
                    left = group
                    if flights <= 1:
                        left = run_together(staging.stage_short, group, objects, limit)
                    elif in_flight:
                        left = run_in_flight(
                            staging.stage_each, staging.stage, group, objects, flights, limit
                        )
                    run_concurrently(staging.stage, left, flights, limit)
        else:
            left = needed
            if in_flight and copy is None:
                left = run_in_flight(copier.copy_each, copier.copy, needed, objects, flights, limit)
            run_concurrently(copier.copy, left, flights, limit)
    except DestinationRefuses as refusal:
        for address in needed:
            copier.results.setdefault(address, Failure.of(address, refusal.reason))
    outcome.confirmed = destination.confirmed
    _count(copier.results.values(), outcome)
    # Objects that are present are flushed too: an earlier run of this batch may have been killed before its flush.
    if outcome.copied or outcome.present:
        destination.flush()
    return outcome


def flights_of(count: int, most: int | None, *stores: Destination | StreamStore) -> int:
    """
    Return how many of *count* objects of a batch to keep in flight: *most*, None for as many as *stores* can handle.

    One where no store ever waits, whatever *most* is: threads would only wait for each other.
    """
    handled = max(store.concurrency for store in stores)
    if most is None or (handled <= 1 and not any(store.may_wait for store in stores)):
        most = handled
    return limited_by_open_files(min(most, count))


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
    copy: Callable[[Sequence[Address]], list[Address]],
    addresses: list[Address],
    sizes: Mapping[Address, int],
    limit: AbstractContextManager[Any] | None = None,
) -> list[Address]:
    """
    Call *copy* for the short objects among *addresses*, some at a time, each call inside a ``with`` block of *limit*.

    Returns the objects that *copy* returns, and the longer ones. *sizes* are in bytes. Such a call handles one object
    after the other, so one is in flight.
    """
    within = limit if limit is not None else nullcontext()
    short = [address for address in addresses if sizes[address] <= SHORT_BYTES]
    left = [] if len(short) == len(addresses) else [each for each in addresses if sizes[each] > SHORT_BYTES]
    for first in range(0, len(short), MOST_TOGETHER):
        with within:
            left += copy(short[first : first + MOST_TOGETHER])
    return left


def run_in_flight(
    each: Callable[[Iterable[Address], int], Container[Address]],
    one: Callable[[Address], None],
    addresses: list[Address],
    sizes: Mapping[Address, int],
    flights: int,
    limit: ConcurrencyLimit | None = None,
) -> list[Address]:
    """
    Call *each* for the short objects among *addresses*, with how many of them may be in flight at once.

    That is *flights*, or less where *limit* has less room. *each* reads from the addresses that it is given, and
    returns those that it has handled. Each other one that it has read is handled by *one*. Returns those that it does
    not read, and the longer objects. *sizes* are in bytes.
    """
    short = iter([address for address in addresses if sizes[address] <= SHORT_BYTES])
    began = False
    while True:
        entered = flights if limit is None else limit.enter_some(flights)
        taken: list[Address] = []
        try:
            allowed = partial(_keeps, limit, entered, flights)
            done = each(_while_allowed(short, taken, allowed), entered) if entered else ()
        finally:
            if limit is not None:
                limit.leave_some(entered)
        missed = [address for address in taken if address not in done]
        nothing_done = len(missed) == len(taken)
        if not taken and not began:
            # How the destination confirms a write may be unknown until some objects were written.
            missed = list(islice(short, flights))
            nothing_done = not missed
        run_concurrently(one, missed, flights, limit)
        if nothing_done:
            break
        began = True
    left = list(short)
    return left + [address for address in addresses if sizes[address] > SHORT_BYTES]


def _keeps(limit: ConcurrencyLimit | None, entered: int, most: int) -> bool:
    """Return whether *limit* lets in as many as *entered* now. Never raises `BatchStopped`."""
    try:
        return limit is None or limit.keeps_some(entered, most)
    except BatchStopped:
        # Whoever enters next gets it. What is in flight may end before.
        return False


def _while_allowed(
    addresses: Iterator[Address], taken: list[Address], allowed: Callable[[], bool]
) -> Iterator[Address]:
    """
    Yield *addresses*, and add each to *taken*, as long as *allowed* says so, which is asked now and then.

    Not for a fixed time: at its end, everything would wait for the slowest object.
    """
    ask_at = monotonic() + ASK_AGAIN_S
    for address in addresses:
        taken.append(address)
        yield address
        if monotonic() >= ask_at:
            if not allowed():
                return
            ask_at = monotonic() + ASK_AGAIN_S


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
