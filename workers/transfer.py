"""
Copy a batch of objects from one store to another.

Plain functions: no queue, no ledger. Running a batch twice, also at the same
time as itself, changes nothing: what is present is not copied again, and
copying the same object twice files the same bytes under the same address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from stores.errors import AccessDenied, StoreError, StoreFull, StoreNotFound
from stores.hashing import CHUNK_BYTES
from stores.snapshot_store import SnapshotStore, Staged

# What a destination says of itself and not of one object.
_REFUSALS = (AccessDenied, StoreFull, StoreNotFound)


class Cancelled(Exception):
    """The job was cancelled while a batch of it ran. What was copied so far stays; nothing is half-visible."""


class Progress(Protocol):
    """Told how a batch gets on; `advance` from several threads."""

    def begin(self, needed: int, needed_bytes: int) -> None:
        """Note how many objects, of how many planned bytes, are to be copied; called once, before the first is."""

    def advance(self, objects: int, size_bytes: int) -> None:
        """
        Count *objects* more as settled and *size_bytes* more of the planned bytes as dealt with.

        Raises `Cancelled` when the batch should stop.
        """


@dataclass(frozen=True)
class Failure:
    """
    One object that could not be copied, and why.

    *error* is the class's name, *store* the label of the store that it comes
    from, *detail* what happened there, in words.
    """

    address: str
    error: str
    store: str
    detail: str
    transient: bool

    @classmethod
    def of(cls, address: str, error: StoreError) -> Failure:
        """Return the failure of the object at *address* by *error*."""
        return cls(address, type(error).__name__, error.store, error.detail, error.transient)


@dataclass
class BatchOutcome:
    """
    How the objects of a batch ended: each is counted in exactly one of copied, present and failures.

    *bytes_copied* is what was read and written, not what the manifest claimed;
    *needed_bytes* is what the manifest claimed of the objects that were not present.
    """

    copied: int = 0
    present: int = 0
    bytes_copied: int = 0
    needed_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def transient_failures(self) -> bool:
        """Say whether trying the batch again may end better."""
        return any(failure.transient for failure in self.failures)


def copy_batch(
    source: SnapshotStore,
    destination: SnapshotStore,
    objects: Mapping[str, int],
    progress: Progress,
    *,
    concurrency: int | None = None,
) -> BatchOutcome:
    """
    Bring *objects* (address -> advisory size in bytes) to *destination*, those that are not there yet.

    One object that fails stops no other, but a destination that takes nothing
    is not asked object by object: its refusal is raised. When this returns, every object
    counted as copied is durable at the destination. Raises `StoreError` if the
    destination refuses or does not say what it holds, `Cancelled`; then some objects may
    have been copied. May be called again.
    """
    outcome = BatchOutcome()
    needed = destination.objects_needed(objects)
    outcome.present = len(objects) - len(needed)
    outcome.needed_bytes = sum(objects[address] for address in needed)
    progress.begin(len(needed), outcome.needed_bytes)
    progress.advance(outcome.present, sum(objects.values()) - outcome.needed_bytes)

    flights = min(concurrency or max(source.concurrency, destination.concurrency), len(needed))
    copy = _Copy(source, destination, objects, progress)
    together = destination.commits_together
    ended: Iterable[int | Failure]
    if together > 1:
        ended = (
            end
            for at in range(0, len(needed), together)
            for end in copy.group(needed[at : at + together], flights)
        )
    else:
        ended = _in_flight(copy.one, needed, flights)
    for end in ended:
        if isinstance(end, Failure):
            outcome.failures.append(end)
        else:
            outcome.copied += 1
            outcome.bytes_copied += end
    if outcome.copied:
        destination.flush()
    return outcome


class _Copy:
    """The copying of a batch's objects: one by one, or in groups that become visible together."""

    def __init__(
        self,
        source: SnapshotStore,
        destination: SnapshotStore,
        objects: Mapping[str, int],
        progress: Progress,
    ) -> None:
        self._source = source
        self._destination = destination
        self._objects = objects
        self._progress = progress

    def one(self, address: str) -> int | Failure:
        """Copy an object; return its length."""
        return self._staged(address, self._commit)

    def group(self, addresses: list[str], flights: int) -> list[int | Failure]:
        """Stage objects, *flights* at once, and commit them together; return their lengths."""
        staged: dict[str, Staged] = {}

        def stage(address: str) -> int | Failure:
            return self._staged(address, lambda one: staged.__setitem__(address, one))

        try:
            ends = _in_flight(stage, addresses, flights)
        except BaseException:
            for one in staged.values():
                one.upload.abort()
            raise
        try:
            self._destination.commit_staged(list(staged.values()))
        except StoreError as error:
            if self._refused(error):
                raise
            return [
                Failure.of(address, error) if address in staged else end
                for address, end in zip(addresses, ends, strict=True)
            ]
        return ends

    def _commit(self, staged: Staged) -> None:
        self._destination.commit_staged([staged])

    def _staged(self, address: str, use: Callable[[Staged], None]) -> int | Failure:
        size = self._objects[address]
        counter = _Counter(self._progress, size)
        try:
            staged = self._destination.stage_object(
                self._source, address, size_hint=size, on_bytes=counter.add if size > CHUNK_BYTES else None
            )
            use(staged)
        except StoreError as error:
            if self._refused(error):
                raise
            counter.settle()
            return Failure.of(address, error)
        counter.settle()
        return staged.length

    def _refused(self, error: StoreError) -> bool:
        return isinstance(error, _REFUSALS) and error.store == self._destination.label


def _in_flight(
    copy: Callable[[str], int | Failure], addresses: list[str], flights: int
) -> list[int | Failure]:
    """Run *copy* for each address, *flights* at once. The first exception stops the rest and is raised."""
    if flights <= 1:
        return [copy(address) for address in addresses]
    raised: list[BaseException] = []

    def unless_stopped(address: str) -> int | Failure:
        if raised:
            raise Cancelled
        try:
            return copy(address)
        except BaseException as error:
            raised.append(error)
            raise

    with ThreadPoolExecutor(flights) as pool:
        try:
            return list(pool.map(unless_stopped, addresses))
        except Exception:
            # The pool raises by the order of addresses; what stopped the rest is what was raised first.
            if raised:
                raise raised[0] from None
            raise


class _Counter:
    """Count one object's planned bytes, neither more nor less than its advisory size in the end."""

    def __init__(self, progress: Progress, size: int) -> None:
        self._progress = progress
        self._left = size

    def add(self, size_bytes: int) -> None:
        counted = min(size_bytes, self._left)
        self._left -= counted
        self._progress.advance(0, counted)

    def settle(self) -> None:
        self._progress.advance(1, self._left)
