"""
What only some backends can do, as small protocols beside `stores.backend.Backend`.

A backend lists the protocols that it fulfils among its base classes. Callers use `feature_of`, which looks through
wrappers, so a wrapper need not repeat features that it does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from .address import Key
from .backend import Backend, Listed
from .errors import StoreError
from .rate_limiter import RateLimiter
from .requests import Requests
from .streams import OpenReader, Reader, Upload

_F = TypeVar("_F")


def feature_of(backend: Backend, protocol: type[_F]) -> _F | None:
    """Return the outermost backend, *backend* or one that it wraps, that fulfils *protocol*. None if none does."""
    at: Backend | None = backend
    while at is not None:
        if isinstance(at, protocol):
            return at
        at = at.inner
    return None


def innermost(backend: Backend) -> Backend:
    """Return the backend of the store itself, without wrappers."""
    while backend.inner is not None:
        backend = backend.inner
    return backend


@runtime_checkable
class Throttled(Protocol):
    """A backend that keeps to a rate limiter by itself: one of its calls may be many requests."""

    def limit_rate(self, limiter: RateLimiter) -> None:
        """Use *limiter* from now on, also for calls in progress. May be called again with another limiter."""


@runtime_checkable
class Priced(Protocol):
    """A backend whose requests are counted, because a provider charges for them."""

    def requests_to_read(self, size: int) -> Requests:
        """Return the requests that `Backend.open` and reading to the end take for *size* bytes."""

    def requests_to_write(self, size: int) -> Requests:
        """Return the requests of a `Backend.upload` whose size hint and length are *size* bytes."""

    @property
    def requests_sent(self) -> Requests:
        """A copy of the counts of the requests sent so far. Every attempt counts, also a failed one."""


@runtime_checkable
class PricesCopies(Protocol):
    """A `Priced` backend whose objects may also be copied in parts, or by its server."""

    def requests_to_read_parts(self, parts: int) -> Requests:
        """Return the requests by which one process reads an object in so many *parts*, by `ReadsRanges`."""

    def requests_to_write_parts(self, parts: int) -> Requests:
        """Return the requests by which one process writes an object in so many *parts*, by `TakesParts`."""

    def requests_to_copy_on_server(self, size: int) -> Requests:
        """Return the requests of a `ServerCopy` of *size* bytes to this store, beside those of reading it."""


@runtime_checkable
class Confirming(Protocol):
    """A backend that has the store confirm what was written."""

    @property
    def confirmed(self) -> dict[str, int]:
        """How many objects this backend has written so far, by what confirmed that the store has the right bytes."""


class ServerCopy(Protocol):
    """An object of one store that the server is to copy to the same key of another."""

    def open(self) -> OpenReader:
        """Open the object at the source, to be verified by the caller. Raises `KeyMissing`. May be called again."""

    def upload(self) -> Upload:
        """
        Return the upload of what was opened last. It is to be shown by `Upload.write` all that was read, and sends none
        of it.

        What `Upload.commit` makes visible is what was read: it raises `StoreUnavailable` where the source holds
        something else by then. It raises `CopyRefused` where the server does not copy, as may `Upload.write`.
        """


@runtime_checkable
class CopiesOnServer(Protocol):
    """A store whose server can copy objects from some other stores by itself."""

    def server_copy(self, source: Backend, key: str, size_hint: int) -> ServerCopy | None:
        """
        Return the copy of *key* from *source*; None where this server cannot copy from there, or has refused to.

        *size_hint* is the expected length in bytes. The first call may write a probe. Raises `StoreError`.
        """


class PinnedObject(Protocol):
    """One version of an object, of *length* bytes. Safe to share between threads."""

    version: str
    length: int

    def read_into(self, start: int, buffer: memoryview) -> None:
        """Fill *buffer* with the bytes from *start* on. Raises `PartsGone` for another version."""

    def close(self) -> None:
        """Release what it holds. To be called once."""


@runtime_checkable
class ReadsRanges(Protocol):
    """A store that can read any range of one version of an object."""

    def pin(self, key: str) -> PinnedObject | None:
        """
        Return what is under *key* now; None where its versions cannot be told apart. Raises `KeyMissing`.

        The caller closes it.
        """

    def pinned(self, key: str, version: str, length: int) -> PinnedObject:
        """Return a version that this or another process has pinned. Raises `PartsGone` and `KeyMissing`."""


class PartsShape(NamedTuple):
    """
    What is copied in parts: *length* bytes, of *version* of the object in the store with the label *source*.

    Each part has *part_bytes* bytes, but the last one, which may be shorter. Parts are numbered from 0.
    """

    length: int
    part_bytes: int
    version: str
    source: str

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-self.length // self.part_bytes)

    def range_of(self, part: int) -> tuple[int, int]:
        """Return where *part* begins and ends."""
        start = part * self.part_bytes
        return start, min(start + self.part_bytes, self.length)


class PartsUpload(Protocol):
    """
    An upload that takes parts in any order, also from several processes. Nothing is visible before `commit`.

    *name* tells it from every other upload, and *secret* is known only to those who may read this store. A *receipt*
    is what a process needs to know of a part that another one wrote. Safe to share between threads.
    """

    shape: PartsShape
    name: str
    secret: bytes

    def write(
        self, part: int, data: bytearray, mine: Callable[[], bool], record: Callable[[str], bool], /
    ) -> None:
        """
        Write all bytes of *part*, durably, and call *record* with its receipt. It returns False where the upload has
        ended: then the part is removed.

        *mine* returns whether the part is still this writer's. Where two writers could harm each other, nothing is
        written or recorded without asking it. Raises `StoreError`, and `PartsGone` where the upload has ended.
        """

    def kept(self, receipts: Mapping[int, str], /) -> set[int]:
        """Return those parts that are there as their *receipts* say. Raises `StoreError`."""

    def commit(self, settled: Callable[[], Sequence[str]], /) -> None:
        """
        Make the object visible in one step, and end the upload.

        *settled* returns the receipts of all parts, in order. It is called when no other writer can change a part, and
        raises if the bytes are not right. After an error, `abort` the upload.
        """

    def abort(self) -> bool:
        """
        Remove everything that was written, and what the store remembers of it; return whether nothing is left.

        Never raises `StoreError`.
        """

    def abort_others(self) -> None:
        """As `KeepsUnfinished.abort_unfinished`, for all other uploads to the same key."""

    def close(self) -> None:
        """Release what this process holds; others may go on. Harmless after `commit` or `abort`."""


@runtime_checkable
class TakesParts(Protocol):
    """
    A store to which several processes can write the parts of one object.

    The store itself remembers an upload under a key and an *owner*, a text such as the id of a job.
    """

    def copies_whole(self, source: Backend, /) -> bool:
        """Return whether objects from *source* get here faster in one piece, as by a clone."""

    def begin_parts(self, key: str, owner: str, shape: PartsShape, /) -> PartsUpload | None:
        """Begin an upload; None where this store cannot take parts after all. Raises `StoreError`."""

    def join_parts(self, key: str, owner: str, /) -> PartsUpload | None:
        """Return the upload that any process has begun for *owner*, None if there is none. Raises `StoreError`."""

    def drop_parts(self, key: str, owner: str, /) -> bool:
        """
        Abort the upload for *owner*, or remove what is left of it; return whether nothing is left.

        False also where that is unknown, because the store does not answer. Never raises `StoreError`.
        """


@runtime_checkable
class KeepsUnfinished(Protocol):
    """A store that keeps the parts of a dead upload until they are removed."""

    def abort_unfinished(self, key: str, size_hint: int, *, dead_only: bool = False) -> None:
        """
        Remove the parts that dead uploads of about *size_hint* bytes to *key* have left in the store.

        Call it after such an upload died. A store may be unable to tell it from one that is paused or in progress, and
        abort that too: it then fails as if the store had been unavailable, and leaves nothing. *dead_only*: remove only
        what a process left that is known to be dead, and send no request. What is visible under *key* is not touched.
        May be called again. Never raises `StoreError`: what cannot be removed is logged and stays.
        """


IsRight = Callable[[Reader], bool]
"""Reads bytes to their end; returns whether they are those that belong under a key. Raises what the reader raises."""


class Seen(NamedTuple):
    """
    What was under a key when it was to be quarantined.

    *right*: its bytes are right, and nothing was done. *place*: the key under which it is kept, "" where nothing or no
    byte was there, None where the caller must keep it by reading and writing. *version*: for `Upload.only_over`, None
    where the store cannot tell versions of a key apart.
    """

    place: Key | None = None
    version: str | None = None
    right: bool = False


@runtime_checkable
class Quarantining(Protocol):
    """A store that can keep what is under a key elsewhere in the store, without sending it here and back."""

    def quarantine(self, key: str, is_right: IsRight) -> Seen:
        """
        Keep what is under *key* under another key, durably, unless *is_right* says that its bytes are right.

        What is kept is what *is_right* has read, twice, even if another program replaces it meanwhile. Afterwards *key*
        holds what it held, or nothing where that could only be renamed. Raises `StoreError`, and `KeyChanged` where it
        was replaced; then nothing that is right is in quarantine. May be called again.
        """


@runtime_checkable
class ListsAround(Protocol):
    """A store in which something else may be in the place of keys, so that `Backend.keys` raises."""

    def keys_around(self, prefix: str, skip: Callable[[StoreError], None]) -> Iterator[Listed]:
        """
        As `Backend.keys`, and go on behind a part that cannot be listed, after *skip* was called with the error.

        Whatever has the name of a key is listed, also what is no file. Raises transient errors.
        """


@runtime_checkable
class Locking(Protocol):
    """A store whose writers can exclude each other."""

    def lock(self, folder: str) -> AbstractContextManager[bool]:
        """
        Hold the lock of *folder*, the first part of some keys, inside a ``with`` block: one process at a time does.

        The block is given False where the store cannot lock; then nothing is held. Writers that do not lock are not
        kept out. Raises `StoreUnavailable` if another process does not release the lock, and other `StoreError`s.
        """


@runtime_checkable
class Conditional(Protocol):
    """A store that may be able to write only if a key holds what the writer expects, in one step."""

    def supports_conditions(self, space: str) -> bool:
        """Return whether it can, for keys that begin with *space*. Writes a probe once. Raises `StoreUnavailable`."""

    def write_if(self, key: str, data: bytes, expected: bytes | None) -> bool:
        """
        File *data* under *key* if it holds exactly *expected*, None: if it holds nothing; return whether it did.

        Call it only where `supports_conditions`. Raises `StoreError`; then it may be filed.
        """


@runtime_checkable
class ConditionalDelete(Protocol):
    """A store that may be able to delete only what its caller expects, in one step."""

    def supports_conditional_delete(self, space: str) -> bool:
        """As `Conditional.supports_conditions`, for deletions. Many stores support conditions on writes alone."""

    def delete_if(self, key: str, expected: bytes) -> bool:
        """
        Delete *key* if it holds exactly *expected*; return whether it did.

        Call it only where `supports_conditional_delete`. Raises `StoreError`; then it may be deleted.
        """


@runtime_checkable
class FiniteSpace(Protocol):
    """A store on a disk or under a quota."""

    def free_bytes(self) -> int | None:
        """Return how many bytes may still be written, None if that is unknown. Raises `StoreError`."""


@runtime_checkable
class Mounted(Protocol):
    """A store in a directory: where its file system is not mounted, the directory is often there, and empty."""

    def holds(self, space: str) -> bool:
        """
        Return whether there is a directory for keys that begin with *space*. Never raises.

        What this backend writes later goes to the store that was looked at, whatever has its path by then.
        """


@runtime_checkable
class FetchesMany(Protocol):
    """
    A backend that reads many short keys in one call, in less CPU time than by a `Backend.fetch` for each.

    Ask the outermost backend alone, not `feature_of`: a wrapper changes what a single call does, so it must see each.
    """

    def fetch_many(self, keys: Sequence[str], size_hints: Sequence[int]) -> list[bytes | None]:
        """
        Return for each of *keys* what `Backend.fetch` returns, and None where that would raise.

        `Backend.fetch` or `Backend.open` then gives the error of that key.
        """


@runtime_checkable
class UploadsMany(Protocol):
    """A backend that begins many short uploads in one call. Ask the outermost backend alone, as for `FetchesMany`."""

    def upload_many(self, keys: Sequence[str], data: Sequence[bytes]) -> list[Upload]:
        """
        Begin an upload for each of *keys*, write its *data*, and finish it.

        Fewer uploads than keys are returned where one failed: `Backend.upload` for the next key then gives the error.
        """
