"""
Many short objects at once, where a backend can do that.

*only what is right*: what cannot be read, or has wrong bytes, or cannot be written, is left to the methods for one
object. They read it again and raise its error. So nothing here decides that an object is missing or corrupt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from snapferry.stores.address import Address, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.errors import StoreError
from snapferry.stores.features import FetchesMany, UploadsMany, WritesMany
from snapferry.stores.runtime.containment import is_unexpected
from snapferry.stores.stream_store import ShortObjects
from snapferry.stores.streams import Upload
from snapferry.stores.treehash import digests

SHORT_BYTES: Final = 64 * 1024
"""A longer object is not worth fetching together with others."""

MOST_TOGETHER: Final = 64
"""Objects that are best fetched together: they and their copies stay in the processor's cache."""


def fetch_many(
    backend: Backend, addresses: Sequence[Address], size_hints: Sequence[int], most: int
) -> list[bytes | None]:
    """
    Return those objects of *addresses* that *backend* can fetch together, verified; None for each of the others.

    *size_hints* are their advisory sizes, at most `SHORT_BYTES` each. *most*: how many may be in flight at once.
    """
    if not _is_of(backend, FetchesMany):
        return [None] * len(addresses)
    try:
        found = cast(FetchesMany, backend).fetch_many(list(map(object_key, addresses)), size_hints, most)
    except Exception as error:
        if not _is_the_backends(error):
            raise
        return [None] * len(addresses)
    return [
        data if digest == address else None
        for address, digest, data in zip(addresses, digests(found), found, strict=True)
    ]


def copy_many(
    source: ShortObjects, backend: Backend, addresses: Sequence[Address], size_hints: Sequence[int], most: int
) -> dict[Address, int]:
    """
    Copy those objects of *addresses* from *source* to *backend* that both can handle together.

    Returns address -> length in bytes. *size_hints* and *most* as for `fetch_many`.
    """
    if not _is_of(backend, WritesMany) or not cast(WritesMany, backend).writes_many():
        return {}
    fetched = source.fetch_objects(addresses, size_hints, most)
    found = {address: data for address, data in zip(addresses, fetched, strict=True) if data is not None}
    try:
        written = cast(WritesMany, backend).write_many(
            list(map(object_key, found)), list(found.values()), most
        )
    except Exception as error:
        if not _is_the_backends(error):
            raise
        return {}
    return {address: len(data) for (address, data), done in zip(found.items(), written, strict=True) if done}


def stage_many(
    source: ShortObjects, backend: Backend, addresses: Sequence[Address], size_hints: Sequence[int], most: int
) -> dict[Address, tuple[Upload, int]]:
    """
    Bring those objects of *addresses* from *source* to *backend* that both can handle together, all but visible.

    Returns address -> its upload and its length in bytes. *size_hints* and *most* as for `fetch_many`.
    """
    if not _is_of(backend, UploadsMany):
        return {}
    fetched = source.fetch_objects(addresses, size_hints, most)
    found = {address: data for address, data in zip(addresses, fetched, strict=True) if data is not None}
    try:
        uploads = cast(UploadsMany, backend).upload_many(list(map(object_key, found)), list(found.values()))
    except Exception as error:
        if not _is_the_backends(error):
            raise
        return {}
    return {
        address: (upload, len(data))
        for (address, data), upload in zip(found.items(), uploads, strict=False)  # the rest failed
    }


def _is_of(backend: Backend, feature: type) -> bool:
    """Return what `isinstance` does, in a hundredth of the time: that looks for each method of a protocol."""
    return issubclass(type(backend), feature)


def _is_the_backends(error: Exception) -> bool:
    """Return whether *error* is an error of a backend, which a single call will raise again."""
    return isinstance(error, StoreError) or is_unexpected(error)
