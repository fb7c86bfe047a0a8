"""
Copy the parts of one object, in any order and from any process, and make it visible when all of them are right.

*one version*: every part is read from the version at the source that the copy began with.
*verified*: each part is hashed to its chaining value, before it is written. The object becomes visible only if the
values of all parts make its address. A value counts only with the signature of a process that can read the destination.
*bounded*: a process holds the parts that it is copying, and uses their memory again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final, Self

from snapferry.stores import treehash
from snapferry.stores.address import Address, object_key
from snapferry.stores.backend import Backend
from snapferry.stores.errors import PartsGone
from snapferry.stores.features import (
    PartsShape,
    PartsUpload,
    PinnedObject,
    ReadsRanges,
    TakesParts,
    feature_of,
)
from snapferry.stores.runtime.containment import contained
from snapferry.stores.wrappers.throttled import acquire_part

from .record import DonePart, seal, unseal

logger = logging.getLogger(__name__)

# The most parts of a multipart upload of S3.
MOST_PARTS: Final = 10_000

# A process holds a whole part. An object that needs larger ones is longer than a bucket takes.
LARGEST_PART_BYTES: Final = 1024 * 1024 * 1024

# An object with fewer parts is not worth it.
FEWEST_PARTS: Final = 4


def can_copy_in_parts(source: Backend, destination: Backend) -> bool:
    """Return whether objects can be copied in parts between these stores. Sends nothing."""
    taking = feature_of(destination, TakesParts)
    return (
        feature_of(source, ReadsRanges) is not None and taking is not None and not taking.copies_whole(source)
    )


def part_bytes_of(length: int, least: int) -> int:
    """Return how large the parts of *length* bytes are: *least*, a power of two, or the next ones up."""
    size = least
    while -(-length // size) > MOST_PARTS:
        size *= 2
    return size


def parts_of(length: int, least: int) -> int:
    """Return in how many parts an object of *length* bytes is copied, 0 if it is copied whole."""
    part_bytes = part_bytes_of(length, least)
    parts = -(-length // part_bytes)
    return parts if parts >= FEWEST_PARTS and part_bytes <= LARGEST_PART_BYTES else 0


class PartsCopy:
    """
    The copy of the object at *address* in parts, by this process and others. Safe to share between threads.

    Use it in a ``with`` block, which releases what this process holds.
    """

    def __init__(
        self,
        address: Address,
        backends: tuple[Backend, Backend],
        source: PinnedObject,
        upload: PartsUpload,
    ) -> None:
        self.address = address
        self.shape = upload.shape
        self.name = upload.name
        self._from, self._to = backends
        self._source = source
        self._upload = upload
        self._buffers: list[bytearray] = []

    @classmethod
    def begin(
        cls, source: Backend, destination: Backend, address: Address, owner: str, size: int, least_bytes: int
    ) -> Self | None:
        """
        Begin a copy for *owner* of an object of *size* bytes, in parts of *least_bytes* or more.

        None where the object is better copied whole: it has another length, or the stores cannot do it after all.
        Raises `StoreError`.
        """
        key = object_key(address)
        reading, taking = feature_of(source, ReadsRanges), feature_of(destination, TakesParts)
        if reading is None or taking is None:
            return None
        acquire_part(source, 0)
        with contained(source.label, address):
            pinned = reading.pin(key)
        if pinned is None:
            return None
        upload = None
        try:
            shape = PartsShape(size, part_bytes_of(size, least_bytes), pinned.version, source.label)
            if pinned.length == size and parts_of(size, least_bytes):
                acquire_part(destination, 0)
                with contained(destination.label, address):
                    upload = taking.begin_parts(key, owner, shape)
        finally:
            if upload is None:
                pinned.close()
        return None if upload is None else cls(address, (source, destination), pinned, upload)

    @classmethod
    def join(
        cls, source: Backend, destination: Backend, address: Address, owner: str, least_bytes: int
    ) -> Self | None:
        """
        Join the copy that a process has begun for *owner*, in parts of *least_bytes* or more; None if there is none.

        Raises `StoreError`, and `PartsGone` where it is of another source, of a version that is gone, or in parts of
        another size than `begin` gives them: a note at the destination must not set how much this process holds.
        """
        reading, taking = feature_of(source, ReadsRanges), feature_of(destination, TakesParts)
        if reading is None or taking is None:
            return None
        with contained(destination.label, address):
            upload = taking.join_parts(object_key(address), owner)
        if upload is None:
            return None
        shape = upload.shape
        try:
            if shape.source != source.label:
                raise PartsGone(destination.label, address, "its copy in parts is from another source")
            right_bytes = part_bytes_of(shape.length, least_bytes)
            if shape.part_bytes != right_bytes or not parts_of(shape.length, least_bytes):
                raise PartsGone(destination.label, address, "its copy in parts has parts of another size")
            with contained(source.label, address):
                pinned = reading.pinned(object_key(address), shape.version, shape.length)
        except BaseException:
            upload.close()
            raise
        return cls(address, (source, destination), pinned, upload)

    def copy_part(self, part: int, mine: Callable[[], bool], record: Callable[[str], bool]) -> None:
        """
        Copy *part*, and give its signed record to *record*. *mine*: as for `PartsUpload.write`.

        Raises `StoreError`, and `PartsGone` where the copy cannot go on.
        """
        start, stop = self.shape.range_of(part)
        data = self._buffer(stop - start)
        acquire_part(self._from, stop - start)
        with contained(self._from.label, self.address), memoryview(data) as view:
            self._source.read_into(start, view)
        value = treehash.subtree(data, start)
        acquire_part(self._to, stop - start)

        def written(receipt: str) -> bool:
            return record(seal(self._upload.secret, self.name, DonePart(part, receipt, value)))

        with contained(self._to.label, self.address):
            self._upload.write(part, data, mine, written)
        self._buffers.append(data)

    def _buffer(self, length: int) -> bytearray:
        while self._buffers:
            with suppress(IndexError):
                found = self._buffers.pop()
                if len(found) == length:
                    return found
        return bytearray(length)

    def part_in(self, record: str) -> DonePart | None:
        """Return the part that *record* describes; None for a text that was not signed for this copy."""
        done = unseal(self._upload.secret, self.name, record)
        return done if done is not None and 0 <= done.part < self.shape.parts else None

    def kept(self, done: Mapping[int, DonePart]) -> set[int]:
        """Return those of the parts that were *done* that the destination still has. Raises `StoreError`."""
        if not done:
            return set()
        with contained(self._to.label, self.address):
            return self._upload.kept({part: one.receipt for part, one in done.items()})

    def commit(self, done: Callable[[], Mapping[int, DonePart]]) -> None:
        """
        Make the object visible if it has its address. *done* returns all parts, when none can change any more.

        Raises `PartsGone` if it has another address, and other `StoreError`s. Call `abort` then.
        """

        def settled() -> list[str]:
            parts = done()
            if len(parts) != self.shape.parts:
                raise PartsGone(self._to.label, self.address, "not all of its parts are there")
            ordered = [parts[part] for part in range(self.shape.parts)]
            found = treehash.root([one.value for one in ordered], self.shape.part_bytes)
            if found != self.address:
                # A reading from front to end decides which side is wrong.
                raise PartsGone(self._from.label, self.address, "its parts do not make its address")
            return [one.receipt for one in ordered]

        with contained(self._to.label, self.address):
            self._upload.commit(settled)

    def abort(self) -> bool:
        """Remove everything that was written; return whether nothing is left. Never raises `StoreError`."""
        return self._upload.abort()

    def abort_others(self) -> None:
        """Remove what dead uploads of the same object left, but not this one."""
        self._upload.abort_others()

    def close(self) -> None:
        """Release what this process holds. To be called once; a ``with`` block does."""
        self._buffers.clear()
        self._source.close()
        self._upload.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def drop_parts(destination: Backend, address: Address, owner: str) -> bool:
    """
    Remove what a copy in parts for *owner* has left at *destination*; return whether nothing is left, as far as known.

    Never raises `StoreError`.
    """
    taking = feature_of(destination, TakesParts)
    if taking is None:
        return True
    with contained(destination.label, address):
        return taking.drop_parts(object_key(address), owner)
