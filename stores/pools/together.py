"""
Many short objects at once, where a backend can do that: some one after the other, or many in flight.

*only what is right*: what cannot be read, or has wrong bytes, or cannot be written, is left to the methods for one
object. They read it again and raise its error. So nothing here decides that an object is missing or corrupt.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from time import monotonic
from typing import Final, TypeVar, cast

from snapferry.stores.address import Address, object_key
from snapferry.stores.backend import Backend, SendsMany
from snapferry.stores.errors import StoreError
from snapferry.stores.features import FetchesMany, UploadsMany
from snapferry.stores.hashing import digest
from snapferry.stores.runtime.containment import is_unexpected
from snapferry.stores.stream_store import ShortObjects, Staged
from snapferry.stores.streams import Upload
from snapferry.stores.treehash import digests

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

RUN_S: Final = 0.5
"""Seconds after which objects that arrived are handled, however few they are."""

SHORT_BYTES: Final = 64 * 1024
"""A longer object is not worth fetching together with others."""

MOST_TOGETHER: Final = 64
"""Objects that are best fetched together: they and their copies stay in the processor's cache."""


def fetch_many(
    backend: Backend, addresses: Sequence[Address], size_hints: Sequence[int]
) -> list[bytes | None]:
    """
    Return those objects of *addresses* that *backend* can fetch together, verified; None for each of the others.

    *size_hints* are their advisory sizes, at most `SHORT_BYTES` each.
    """
    if not _is_of(backend, FetchesMany):
        return [None] * len(addresses)
    try:
        found = cast(FetchesMany, backend).fetch_many(list(map(object_key, addresses)), size_hints)
    except Exception as error:
        if not _is_the_backends(error):
            raise
        return [None] * len(addresses)
    return [
        data if digest == address else None
        for address, digest, data in zip(addresses, digests(found), found, strict=True)
    ]


def stage_many(
    source: ShortObjects, backend: Backend, addresses: Sequence[Address], size_hints: Sequence[int]
) -> dict[Address, tuple[Upload, int]]:
    """
    Bring those objects of *addresses* from *source* to *backend* that both can handle together, all but visible.

    Returns address -> its upload and its length in bytes. *size_hints* as for `fetch_many`.
    """
    if not _is_of(backend, UploadsMany):
        return {}
    fetched = source.fetch_objects(addresses, size_hints)
    found = [(address, data) for address, data in zip(addresses, fetched, strict=True) if data is not None]
    try:
        return _uploads(backend, found)
    except Exception as error:
        if not _is_the_backends(error):
            raise
        return {}


def _uploads(backend: Backend, found: list[tuple[Address, bytes]]) -> dict[Address, tuple[Upload, int]]:
    keys, data = [object_key(each[0]) for each in found], [each[1] for each in found]
    uploads = cast(UploadsMany, backend).upload_many(keys, data)
    return {
        address: (upload, len(data))
        for (address, data), upload in zip(found, uploads, strict=False)  # the rest failed
    }


def sends_many(backend: Backend) -> SendsMany | None:
    """Return *backend* if it keeps many short objects in flight from one thread."""
    return cast(SendsMany, backend) if _is_of(backend, SendsMany) else None


def fetch_each(
    store: ShortObjects, objects: Iterable[tuple[Address, int]], most: int
) -> Generator[tuple[Address, bytes]]:
    """See `ShortObjects.fetch_each`."""
    backend = store.sends_many
    if backend is None:
        for some in in_runs(objects):
            addresses, sizes = [each[0] for each in some], [each[1] for each in some]
            for address, data in zip(addresses, store.fetch_objects(addresses, sizes), strict=True):
                if data is not None:
                    yield address, data
        return
    asked: list[Address] = []
    with _until_an_error(backend.fetch_each(_keys(objects, asked), most)) as found:
        for at, data in found:
            if digest(data) == asked[at]:
                yield asked[at], data


def copy_each(
    source: ShortObjects, store: ShortObjects, objects: Iterable[tuple[Address, int]], most: int
) -> Generator[tuple[Address, int]]:
    """See `ShortObjects.copy_each`."""
    backend = store.sends_many
    if backend is None or not backend.writes_each():
        return
    asked: list[Address] = []
    copied: Generator[tuple[int, int]] | None = None
    if source.sends_many is not None:
        copied = backend.copy_each(
            source.sends_many, _keys(objects, asked), lambda at, data: digest(data) == asked[at], most
        )
    if copied is None:
        copied = backend.write_each(_with_keys(source.fetch_each(objects, most), asked), most)
    with _until_an_error(copied) as found:
        for at, length in found:
            yield asked[at], length


def stage_each(
    source: ShortObjects, backend: Backend, objects: Iterable[tuple[Address, int]], most: int
) -> Generator[Staged]:
    """See `ShortObjects.stage_each`."""
    if not _is_of(backend, UploadsMany):
        return
    with _until_an_error(source.fetch_each(objects, most)) as fetched:
        for some in in_runs(fetched):
            yield _uploads(backend, some)


def in_runs(items: Iterable[_T]) -> Iterator[list[_T]]:
    """Yield *items* some at a time: as many as are best handled together, fewer where they come slowly."""
    some: list[_T] = []
    until = 0.0
    for item in items:
        some.append(item)
        if len(some) == 1:
            until = monotonic() + RUN_S
        if len(some) == MOST_TOGETHER or monotonic() >= until:
            yield some
            some = []
    if some:
        yield some


def _keys(objects: Iterable[tuple[Address, int]], asked: list[Address]) -> Iterator[str]:
    """Yield the keys of *objects*, and add the address of each to *asked*."""
    for address, _ in objects:
        asked.append(address)
        yield object_key(address)


def _with_keys(found: Generator[tuple[Address, bytes]], asked: list[Address]) -> Iterator[tuple[str, bytes]]:
    with closing(found):
        for address, data in found:
            asked.append(address)
            yield object_key(address), data


@contextmanager
def _until_an_error(found: Generator[_T]) -> Iterator[Generator[_T]]:
    """Close *found* after the block. An error of a store in the block ends it: single calls will raise it again."""
    try:
        with closing(found):
            yield found
    except Exception as error:
        if not _is_the_backends(error):
            raise
        logger.info("objects are handled one by one: %s", error)


def _is_of(backend: Backend, feature: type) -> bool:
    """Return what `isinstance` does, in a hundredth of the time: that looks for each method of a protocol."""
    return issubclass(type(backend), feature)


def _is_the_backends(error: Exception) -> bool:
    """Return whether *error* is an error of a backend, which a single call will raise again."""
    return isinstance(error, StoreError) or is_unexpected(error)
