"""
The interface of a backend: bytes under keys in one kind of store.

A backend knows nothing of addresses, hashes and manifests. `stores.snapshot_store.SnapshotStore` stands on any backend
and does all of that once. What only some stores can do is a protocol of its own, see `stores.features` and
`stores.diagnosis.diagnosable`.

Obligations of every backend, checked by ``tests/conformance``:

*whole or not at all*: a key holds either its previous bytes or all of the new ones, at any moment and after any crash.
*an unanswered question is an error*: a refusal or a fault is never reported as "absent".
*one tree of errors*: a backend raises `stores.errors.StoreError` and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from .streams import OpenReader, Upload


@dataclass(frozen=True)
class Capabilities:
    """
    What a backend is good at.

    *concurrency*: how many calls one process should keep in flight. 1 where a call costs CPU time and no waiting.
    *pages_listings*: `Backend.keys` costs one request per 1,000 keys and can begin anywhere, so that a ranged listing
    answers many existence questions at once.
    *commits_together*: how many uploads are worth committing by one `Backend.commit_all`. 1 where there is no gain. A
    backend may raise it when it knows what a commit costs.
    *piece_bytes*: read and write streams longer than *pieces_above_bytes* in pieces of this size. 0 where the size of a
    piece does not matter. Other sizes work as well, at the cost of more copying.
    """

    concurrency: int
    pages_listings: bool
    commits_together: int = 1
    piece_bytes: int = 0
    pieces_above_bytes: int = 0

    def piece_bytes_of(self, size_hint: int) -> int:
        """Return the best size of a piece of a stream of *size_hint* bytes, 0 where it does not matter."""
        return self.piece_bytes if size_hint > self.pieces_above_bytes else 0


class Listed(NamedTuple):
    """A key in a listing. *size* is in bytes, *modified* in seconds since the epoch by the store's clock."""

    key: str
    size: int
    modified: float


class Backend(ABC):
    """
    Bytes under keys in one kind of store. Safe to share between threads.

    A key is a relative path of ASCII parts joined by ``/``. `stores.address` makes the keys of objects and manifests,
    `stores.names.name` those of names.
    """

    label: str
    """The store's URL without credentials and parameters, for messages and metrics."""

    capabilities: Capabilities

    inner: Backend | None = None
    """The backend that this one wraps (`stores.wrappers`), None for a store itself."""

    @property
    def may_wait(self) -> bool:
        """Whether calls may wait for another machine: then more of them in flight than *concurrency* may help."""
        return True

    @abstractmethod
    def check(self, *, for_writing: bool) -> None:
        """
        Make sure that the store exists and answers. Changes nothing.

        Raises `StoreNotFound`, `AccessDenied` or `StoreUnavailable`. With *for_writing*, a directory that does not
        exist but can be created passes.
        """

    def prepare(self) -> None:  # noqa: B027 - most stores need no preparing
        """
        Make the store ready for its first write: create the directory. A bucket must exist already.

        May be called again. Raises `StoreNotFound`, `AccessDenied`.
        """

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Return the length in bytes of what is filed under *key*, None if the store answers that there is nothing."""

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        """Return the `size` of each of *keys*, in their order, with as many calls in flight as is useful."""
        workers = min(self.capabilities.concurrency, len(keys))
        if workers <= 1:
            return [self.size(key) for key in keys]
        context = copy_context()
        with ThreadPoolExecutor(workers) as pool:
            # Only one thread at a time can enter a context.
            return list(pool.map(lambda key: context.copy().run(self.size, key), keys))

    @abstractmethod
    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        """
        Open what is filed under *key* for reading in a ``with`` block. Raises `KeyMissing`.

        *size_hint* is the expected length in bytes. It may be wrong; it only decides how the bytes are fetched.
        """

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        """
        Return what is filed under *key*, about *size_hint* bytes, if one call for all of it is faster than `open`.

        Returns None where it is not; call `open` then. Bytes that are longer than *size_hint* may have been cut off, so
        the caller must verify them before it takes them for the whole. Raises `KeyMissing`.
        """
        return None

    @abstractmethod
    def write(self, key: str, data: bytes) -> None:
        """
        File *data* under *key* and replace what was there. May be called again.

        After an error the key holds its previous bytes or all of *data*.
        """

    @abstractmethod
    def upload(self, key: str, size_hint: int) -> Upload:
        """
        Begin to file a stream under *key* without holding it in memory.

        *size_hint* is the expected length in bytes. It may be wrong; it only decides how the upload is cut into parts.
        """

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        """
        Commit *uploads* of this backend, to which everything was written.

        After an error each upload is in the state that an error of its own `Upload.commit` leaves.
        """
        for upload in uploads:
            upload.commit()

    @abstractmethod
    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        """
        Yield every key that begins with *prefix* and sorts after *start_after*, in byte order.

        *prefix* ends with ``/``. Raises `StoreNotFound` for a store that does not exist; it is not an empty store.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove *key*. Does nothing where nothing is filed under it."""

    def flush(self) -> None:  # noqa: B027 - for most stores a write is durable
        """Return when everything written so far survives a power cut."""


@runtime_checkable
class SendsMany(Protocol):
    """
    A backend that keeps many requests for short keys in flight, from one thread.

    Ask the outermost backend alone, not `feature_of`: a wrapper must see each key. *most*: how many keys may be in
    flight at once. A key whose position is not yielded must be read or written by itself, which also gives its error:
    it may be unknown, or not sent. So it is with all others after a `StoreError`. Raises also what the arguments and a
    checkpoint raise. Close an iterator that is not read to its end.
    """

    def fetch_each(self, keys: Iterable[str], most: int) -> Generator[tuple[int, bytes]]:
        """Yield the position and the bytes of *keys* in any order."""

    def writes_each(self) -> bool:
        """Return whether writes are sent now: not while it is unknown how the store confirms them."""

    def write_each(self, objects: Iterable[tuple[str, bytes]], most: int) -> Generator[tuple[int, int]]:
        """Write *objects*, each a key and its bytes. Yield the position and the length in bytes of those written."""

    def copy_each(
        self, source: SendsMany, keys: Iterable[str], is_right: Callable[[int, bytes], bool], most: int
    ) -> Generator[tuple[int, int]] | None:
        """
        As `write_each`, with the bytes of *keys* in *source*, if *is_right* says so for a position and its bytes.

        A key is in flight until it is written. None where this backend cannot do that with *source*.
        """
