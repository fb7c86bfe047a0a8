"""
The two floors of a store.

A `Backend` moves bytes under keys for one kind of store and knows nothing of
addresses. A `StreamStore` files objects and manifests under addresses, and
verifies them. `snapferry.stores.snapshot_store.SnapshotStore` is the one StreamStore:
it stands on any backend, so no backend can forget to verify.

Obligations of every backend, checked by ``tests/conformance``:

*whole or not at all*: a key holds either its previous bytes or all of the new
ones, whenever a reader looks and whatever kills the writer.
*an unanswered question is an error*: a refusal or a fault is never "absent".
*one tree*: nothing but `snapferry.stores.errors.StoreError` leaves a backend.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from .diagnosis.findings import Finding
from .requests import Requests

if TYPE_CHECKING:
    from .rate_limiter import Pace


@dataclass(frozen=True)
class Capabilities:
    """
    What a backend is good at, declared rather than sniffed.

    ``concurrency``: how many calls one process should keep in flight. 1 where a
    call costs CPU and no waiting; threads would only contend.
    ``pages_listings``: `Backend.keys` costs one request per 1,000 keys and can
    begin anywhere, so a ranged listing answers many existence questions at once.
    ``commits_together``: how many uploads are worth committing by one
    `Backend.commit_all`. 1 where each costs the same alone.
    """

    concurrency: int
    pages_listings: bool
    commits_together: int = 1


class Listed(NamedTuple):
    """A key in a listing; *size* in bytes, *modified* in seconds since the epoch, by the store's clock."""

    key: str
    size: int
    modified: float


class Reader(Protocol):
    """Bytes being read, front to back."""

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes, fewer only at the end of the stream, ``b""`` after it."""


class OpenReader(Reader, Protocol):
    """A reader that holds a file or a connection, and gives it back on exit."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...


Buffer = bytes | memoryview


class Upload(ABC):
    """
    Bytes on their way to a key, in no one's sight until `commit`.

    Leaving the ``with`` block without a commit, by an exception or not, aborts.
    """

    @abstractmethod
    def write(self, chunk: bytes) -> None:
        """
        Append *chunk*.

        Raises `StoreError`; the upload can then only be aborted.
        """

    def take(self, reader: Reader, show: Callable[[Buffer], None]) -> bool:
        """
        Write everything that *reader* has, by a way of the store's own that beats reading and `write`.

        Neither may have been used yet. False where there is no such way; then
        nothing was read nor written. *show* is called with each piece of what
        `commit` makes visible, in order: bytes that are good until it returns.

        Raises `StoreError` of either side, and what *show* raises; the upload
        can then only be aborted.
        """
        return False

    @abstractmethod
    def commit(self) -> None:
        """
        Make all that was written visible under the key, at once, and end the upload.

        After an error the key holds either its previous bytes or all of the
        new ones, and which of the two is unknown; a new upload may be made.
        """

    @abstractmethod
    def abort(self) -> None:
        """Drop all that was written and leave no trace; harmless after commit or abort. Never raises."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()


class Backend(ABC):
    """
    Bytes under keys in one kind of store. Safe to share between threads.

    A key is a relative path of ASCII parts joined by ``/``, made by
    `snapferry.stores.address` alone.
    """

    label: str
    """The store's URL without credentials, for messages."""

    capabilities: Capabilities

    @abstractmethod
    def check(self, *, for_writing: bool) -> None:
        """
        Make sure that the store is there and answers; change nothing.

        Raises `StoreNotFound`, `AccessDenied` or `StoreUnavailable`. With
        *for_writing*, a directory that does not exist but can be created is fine.
        """

    def prepare(self) -> None:  # noqa: B027 - most stores need no preparing
        """
        Make the store ready for its first write: a directory is created, a bucket must exist already.

        May be called again. Raises `StoreNotFound`, `AccessDenied`.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Return the length in bytes of what is filed under *key*, None if the store says: nothing."""

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Answer `size` for each of *keys*, in their order, with as many calls in flight as is useful."""
        workers = min(self.capabilities.concurrency, len(keys))
        if workers <= 1:
            return [self.size(key) for key in keys]
        context = copy_context()
        with ThreadPoolExecutor(workers) as pool:
            # A context can be entered by one thread at a time.
            return list(pool.map(lambda key: context.copy().run(self.size, key), keys))

    @abstractmethod
    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        """
        Open what is filed under *key* for reading, in a ``with`` block. Raises `KeyMissing`.

        *size_hint* is the expected length in bytes; it may be wrong, and only
        steers how the bytes are fetched.
        """

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        """
        Return what is filed under *key*, about *size_hint* bytes, where asking for it all at once is worth it.

        None where it is not: `open` it. What is returned may be cut off at any
        length, so only bytes that were verified are known to be all. Raises
        `KeyMissing`.
        """
        return None

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """
        File *data* under *key*, replacing what was there. May be called again.

        After an error the key holds its previous bytes or all of *data*.
        """

    @abstractmethod
    def upload(self, key: str, size_hint: int) -> Upload:
        """
        Begin to file a stream under *key* without holding it in memory.

        *size_hint* is the expected length in bytes; it may be wrong, and only
        steers how the upload is cut into parts.
        """

    def stage(self, key: str, data: bytes) -> Upload:
        """Return an `upload` to *key* to which all of *data* was written. Raises `StoreError`, leaving no trace."""
        upload = self.upload(key, len(data))
        try:
            upload.write(data)
        except BaseException:
            upload.abort()
            raise
        return upload

    def abort_unfinished(self, key: str, size_hint: int) -> None:  # noqa: B027 - most stores keep none
        """
        Remove what uploads of about *size_hint* bytes to *key* that were never ended have left in the store.

        For a caller who knows that such an upload died. One that still runs is
        not told from it: it fails as if the store had been unavailable, and
        leaves nothing. What is visible under *key* is not touched. Never
        raises: what cannot be removed is logged and stays. May be called again.
        """

    def piece_bytes(self, size_hint: int) -> int:
        """
        Return how many bytes at once a stream of *size_hint* bytes is best read and written in.

        0 where it does not matter. Other pieces do as well, for more copying.
        """
        return 0

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        """
        Commit *uploads* of this backend, whose streams have ended.

        After an error each of them is as after an error of its own `Upload.commit`.
        """
        for upload in uploads:
            upload.commit()

    @abstractmethod
    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        """
        Yield every key that begins with *prefix* and sorts behind *start_after*.

        *prefix* ends with ``/``. In byte order. Raises `StoreNotFound` for a
        store that does not exist: it is not an empty one.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove *key*. Nothing happens where nothing is filed under it."""

    def flush(self) -> None:
        """Return when everything written so far survives a power cut. For most stores a write already does."""
        return

    def probe(self, spaces: Sequence[str], *, for_writing: bool) -> Iterator[Finding]:
        """
        Yield what is to be known of this place before a copy; write nothing but probes, and leave none.

        With *for_writing*, a probe is written where keys of each of *spaces*
        go. Never raises `StoreError`. For a place that passed `check`. May be
        called again, and by several at once.
        """
        from .diagnosis.round_trip import FOLDER, round_trip

        if for_writing:
            for space in spaces:
                yield from round_trip(self, space + FOLDER, space.strip("./"))

    def probe_beside(self, source: Backend, key: str) -> Iterator[Finding]:
        """
        Yield what is to be known of copying from *source*, which holds *key*, to here, as `probe` does.

        Nothing, for most pairs.
        """
        return iter(())

    def clock(self) -> tuple[float, float] | None:
        """
        Return the earliest and the latest that the store's own clock showed just now, in seconds since the epoch.

        None where it has none, or does not say. Never raises `StoreError`.
        """
        return None

    def free_bytes(self) -> int | None:
        """Return how many bytes may still be written, None where nobody knows. Raises `StoreError`."""
        return None

    def keep_pace(self, pace: Pace) -> bool:
        """
        Send everything from now on at *pace*, also for what was begun before; say whether this store can.

        One that cannot is wrapped (`snapferry.stores.wrappers.throttled`). That is enough
        where a call is a request; where it may be many, the store itself must keep to it.
        """
        return False

    def requests_to_read(self, size: int) -> Requests:
        """Return the requests by which `open` and reading to the end get *size* bytes."""
        return Requests()

    def requests_to_write(self, size: int) -> Requests:
        """Return the requests by which an `upload` announced as *size* bytes, and as long, is filed."""
        return Requests()

    @property
    def confirmed(self) -> dict[str, int]:
        """How many objects this backend has written so far, by what confirmed that the store has the right bytes."""
        return {}

    @property
    def requests_sent(self) -> Requests:
        """What this backend has sent so far, a copy: every attempt counts, whatever became of it."""
        return Requests()


class StreamStore(ABC):
    """Objects and manifests, filed under their addresses, in one place."""

    @abstractmethod
    def has_object(self, address: str) -> bool:
        """Say whether the object is there. An unanswered question raises, it is never False."""

    @abstractmethod
    def objects_needed(self, addresses: Iterable[str]) -> list[str]:
        """
        Return those of *addresses* that are absent, in input order.

        Every address is checked for its form before the first question is asked.
        """

    @abstractmethod
    def get_object(self, address: str) -> bytes:
        """
        Return the object's bytes, which hash to *address*. For objects that fit in memory.

        Raises `ObjectMissing`, `IntegrityError`.
        """

    @abstractmethod
    def put_object(self, address: str, data: bytes) -> None:
        """
        File *data* under *address*. May be called again.

        Raises `IntegrityError` if it does not hash to *address*; then nothing was written.
        """

    @abstractmethod
    def get_manifest(self, snapshot_id: str) -> bytes:
        """
        Return the manifest's text, which hashes to *snapshot_id*.

        Raises `ManifestMissing`, `IntegrityError`, `ManifestSyntaxError`.
        """

    @abstractmethod
    def put_manifest(self, snapshot_id: str, manifest: bytes) -> None:
        """
        Publish a snapshot: check that every object of it is there, then file its manifest.

        Presence is asked from scratch, and the manifest is read back. Raises
        `IntegrityError` if it does not hash to *snapshot_id*,
        `ManifestIncomplete` if objects are absent; in both cases, and after any
        other error before the write, no manifest was written. May be called again.
        """

    @abstractmethod
    def list_manifest_ids(self) -> list[str]:
        """Return the ids of all snapshots published here, sorted. Raises `StoreNotFound`."""

    @abstractmethod
    def delete_manifest(self, snapshot_id: str) -> None:
        """Withdraw a snapshot; its objects stay. Nothing happens where it is not published."""
