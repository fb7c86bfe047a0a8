"""
Verified bytes in the place of wrong ones, which are kept in quarantine first.

*kept first*: the wrong bytes are durable in quarantine before the new ones are visible. Nothing is kept of an empty
file.
*only wrong bytes*: what is there is read again just before, and what is kept is what was read. If another program has
replaced it by right bytes, they stay, and none of them are in quarantine.
*quarantine*: keys that begin with `address.QUARANTINE`. No listing of objects or manifests has them. snapferry neither
reads nor deletes them.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from typing import Final

from snapferry.stores.address import QUARANTINE, Address, Key, SnapshotId, quarantine_key
from snapferry.stores.backend import Backend
from snapferry.stores.errors import (
    AccessDenied,
    IntegrityError,
    KeyChanged,
    KeyMissing,
    StoreError,
    StoreFault,
)
from snapferry.stores.features import IsRight, Quarantining, Seen, feature_of
from snapferry.stores.hashing import CHUNK_BYTES, HashingReader
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.containment import contained
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.streams import Reader, Upload

logger = logging.getLogger(__name__)

# Attempts to replace what another program replaces at the same time.
ATTEMPTS: Final = 4


def holds_object(address: Address) -> IsRight:
    """Return a function that tells whether bytes are those of the object with *address*."""

    def is_right(reader: Reader) -> bool:
        hashing = HashingReader(reader)
        while hashing.read(CHUNK_BYTES):
            pass
        return hashing.hexdigest() == address

    return is_right


def holds_manifest(label: str, snapshot_id: SnapshotId) -> IsRight:
    """Return a function that tells whether bytes are those of the manifest of *snapshot_id* in the store *label*."""

    def is_right(reader: Reader) -> bool:
        try:
            with Manifest.read(label, snapshot_id, reader):
                return True
        except IntegrityError as error:
            if error.store != label:
                raise
            return False

    return is_right


def replace_wrong(
    backend: Backend, key: Key, subject: str, stage: Callable[[], Upload], is_right: IsRight
) -> str | None:
    """
    Quarantine what is under *key* and put what *stage* wrote in its place; return the key in quarantine, "" for none.

    None where the right bytes are there by now, because another program has replaced the wrong ones. *stage* returns an
    upload to which everything was written, and verified; it is called again where another program was faster.

    Raises `StoreError` about *subject*: nothing has changed then, except that something other than a file may be in
    quarantine already.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with stage() as upload:
                return _commit_over(backend, key, subject, upload, is_right)
        except KeyChanged as error:
            if attempt == ATTEMPTS:
                raise
            logger.info("%s; looking again", error)
    raise AssertionError


def _commit_over(backend: Backend, key: Key, subject: str, upload: Upload, is_right: IsRight) -> str | None:
    with contained(backend.label, subject):
        try:
            seen = _quarantine(backend, key, is_right)
        except (AccessDenied, StoreFault) as error:
            kept = (
                f"was not replaced, because what is there could not be kept below {QUARANTINE} of the store"
            )
            raise _because(error, subject, kept) from error
        if seen.right:
            return None
        if seen.version is not None:
            upload.only_over(seen.version)
        try:
            upload.commit()
        except (AccessDenied, StoreFault) as error:
            raise _because(error, subject, "cannot be replaced, and stays as it is") from error
    return seen.place or ""


def _because(error: StoreError, subject: str, what: str) -> StoreError:
    return type(error)(error.store, subject, f"{what}: {error.detail}")


def _quarantine(backend: Backend, key: Key, is_right: IsRight) -> Seen:
    own = feature_of(backend, Quarantining)
    seen = Seen() if own is None else own.quarantine(key, is_right)
    if seen.right or seen.place is not None:
        return seen
    return _copy(backend, key, is_right, seen.version)


def _copy(backend: Backend, key: Key, is_right: IsRight, version: str | None) -> Seen:
    """Quarantine what is under *key* by reading and writing it. The bytes that are kept are those that were wrong."""
    place = quarantine_key(key, f"{time.time_ns():x}")
    try:
        length = backend.size(key)
        if not length:
            right = length is not None and is_right(io.BytesIO())
            return Seen(Key(""), version, right=right)
        with backend.open(key, size_hint=length) as reader:
            if is_right(reader):
                return Seen(right=True)
        with backend.open(key, size_hint=length) as reader, backend.upload(place, length) as upload:
            both = _WritesToo(reader, upload)
            if is_right(both):
                return Seen(right=True)
            piece_bytes = max(CHUNK_BYTES, backend.capabilities.piece_bytes_of(length))
            while both.read(piece_bytes):
                pass
            upload.commit()
    except KeyMissing:
        return Seen(Key(""), None)
    backend.flush()
    return Seen(place, version)


class _WritesToo:
    """A reader that writes everything that it reads to *upload*."""

    def __init__(self, reader: Reader, upload: Upload) -> None:
        self._reader = reader
        self._upload = upload

    def read(self, size: int, /) -> bytes:
        checkpoint()
        chunk = self._reader.read(size)
        if chunk:
            self._upload.write(chunk)
        return chunk
