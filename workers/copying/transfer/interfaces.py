"""What runs a batch, what stops it, and the interfaces through which it reports, waits and notices an outage."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypedDict, Unpack, runtime_checkable

from snapferry.stores.address import Address
from snapferry.stores.backend import SendsMany
from snapferry.stores.errors import StoreError
from snapferry.stores.stream_store import Staged, StreamStore
from snapferry.stores.streams import Upload
from snapferry.workers.outcome import BatchOutcome


class BatchStopped(BaseException):
    """
    A batch, or a step of a job, stopped before its end. What was copied so far stays, and nothing is half-written.

    Not an `Exception`: any wait may raise it, and no handler on the way may take it for the failure of an object.
    """


class JobStopped(BatchStopped):
    """The job was cancelled, failed, or spent its budget."""


class JobPaused(BatchStopped):
    """The job is paused: the batch must be run again when the job resumes."""


class WorkerStopping(BatchStopped):
    """The worker shuts down: another worker must run the batch again."""


class Progress(Protocol):
    """Receives the progress of a batch. Several threads call `advance`."""

    def begin(self, needed: list[Address]) -> None:
        """Record addresses to copy, before the first of them is copied. May be called again. Raises as `advance`."""

    def advance(self, objects: int, size_bytes: int, moved: int = 0) -> None:
        """
        Add *objects* to the objects that are settled, and *size_bytes* to the planned bytes that are settled.

        *moved* bytes were read and written for them: none for objects that were present or failed.
        Raises a `BatchStopped` when the batch must stop.
        """


@runtime_checkable
class CountsHashed(Protocol):
    """A `Progress` that counts bytes which are read for a checksum before the file is sent."""

    def hashed(self, size_bytes: int) -> None:
        """
        Add *size_bytes* to the bytes that were read so. Raises nothing.

        It is negative for bytes that were counted so and will be sent without another reading.
        """


class Repairs(Protocol):
    """Receives which objects of a destination are wrong, and what took their place. Several threads call it."""

    def found(self, wrong: Mapping[Address, str]) -> None:
        """Record wrong objects, address -> what is wrong, before the first of them is repaired."""

    def repaired(self, address: Address, wrong: str, source: str, quarantined: str) -> None:
        """Record the store that an object came from, and the key under which the destination keeps what was there."""

    def failed(self, address: Address) -> None:
        """Record that an object was not repaired."""


class CopyVerb(Protocol):
    """Copies an object to a destination, as `StreamStore.copy_object` does."""

    def __call__(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> int: ...


class Destination(Protocol):
    """What a copy needs of its destination: the methods of a `StreamStore` that bring objects to it."""

    @property
    def label(self) -> str: ...

    @property
    def concurrency(self) -> int: ...

    @property
    def may_wait(self) -> bool: ...

    @property
    def commits_together(self) -> int: ...

    @property
    def sends_many(self) -> SendsMany | None: ...

    @property
    def confirmed(self) -> dict[str, int]: ...

    def objects_needed(self, addresses: Iterable[str], /) -> list[Address]: ...

    def has_object(self, address: str, /) -> bool: ...

    @property
    def copy_object(self) -> CopyVerb: ...

    def stage_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> tuple[Upload, int]: ...

    def stage_objects(
        self, source: StreamStore, addresses: Sequence[Address], size_hints: Sequence[int], /
    ) -> dict[Address, tuple[Upload, int]]: ...

    def copy_each(
        self, source: StreamStore, objects: Iterable[tuple[Address, int]], most: int, /
    ) -> Generator[tuple[Address, int]]: ...

    def stage_each(
        self, source: StreamStore, objects: Iterable[tuple[Address, int]], most: int, /
    ) -> Generator[Staged]: ...

    def commit_staged(self, uploads: Sequence[Upload], /) -> None: ...

    def abort_unfinished(self, objects: Mapping[Address, int], /, *, dead_only: bool = False) -> None: ...

    def flush(self) -> None: ...


class ConcurrencyLimit(AbstractContextManager[Any], Protocol):
    """
    Limits the objects in flight: each object is copied inside a ``with`` block of it, in one of several threads.

    Entering the block waits for a free slot, and raises a `BatchStopped` when the batch must stop.
    """

    def expect(self, flights: int) -> None:
        """Record how many objects the batch could have in flight. Called once, before the first object."""

    def enter_some(self, most: int) -> int:
        """
        Let in up to *most* objects, those for which there is room now, and return how many: they must `leave_some`.

        Raises as the block does.
        """

    def keeps_some(self, count: int, most: int) -> bool:
        """
        Return whether `enter_some`, with *most*, would let in as many again as the *count* that it has let in.

        Raises as the block does.
        """

    def leave_some(self, count: int) -> None:
        """Note that *count* objects, which `enter_some` let in, are no longer in flight."""


class OutageDetector(Protocol):
    """Receives each success and each failure, from several threads, and ends the batch when a store is away."""

    def succeeded(self, address: Address, *holders: str) -> None:
        """Record that the object at *address* was copied or found intact; *holders*: labels of stores that hold it."""

    def failed(self, error: StoreError) -> None:
        """Record that an object failed with *error*. Raises to end the batch without an outcome."""


class BatchOptions(TypedDict, total=False):
    """
    How a batch is run, whatever its action. All are optional.

    At most *concurrency* objects are in flight at once, by default as many as the stores can handle; see `flights_of`.
    *limit* may allow fewer. *abort_unfinished*: an earlier run of the batch, whose worker died, may have left invisible
    uploads behind; remove them first. *outages* receives how each object ended, and may end the batch.
    """

    concurrency: int | None
    abort_unfinished: bool
    limit: ConcurrencyLimit | None
    outages: OutageDetector | None


class BatchFunction(Protocol):
    """
    Runs a batch of objects (address -> advisory size in bytes), as `copy_batch` does for `Action.COPY`.

    Each object ends in exactly one outcome: changed (``copied``), right as it was (``present``), or failed. May be
    called with any part of the batch, again, and at the same time.

    Raises `StoreError` if a store gives no answer for the whole batch, `BatchStopped`, and what *outages* raises.
    """

    def __call__(
        self,
        source: StreamStore,
        destination: StreamStore,
        objects: Mapping[Address, int],
        progress: Progress,
        /,
        **options: Unpack[BatchOptions],
    ) -> BatchOutcome: ...
