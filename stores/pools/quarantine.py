"""
Verified bytes in the place of wrong ones, which are kept in quarantine first.

*kept first*: the wrong bytes are durable in quarantine before the new ones are visible. Nothing is kept of an empty
file.
*quarantine*: keys that begin with `address.QUARANTINE`. No listing of objects or manifests has them. snapferry neither
reads nor deletes them.
"""

from __future__ import annotations

import time

from snapferry.stores.address import QUARANTINE, Key, quarantine_key
from snapferry.stores.backend import Backend
from snapferry.stores.errors import AccessDenied, KeyMissing, StoreError, StoreFault
from snapferry.stores.features import Quarantining, feature_of
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.runtime.containment import contained
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.streams import Upload


def commit_over(backend: Backend, key: Key, subject: str, upload: Upload) -> str:
    """
    Quarantine what is under *key* and commit *upload* in its place; return the key in quarantine, "" for none.

    Everything was written to *upload*, and verified. Raises `StoreError` about *subject*: before the commit nothing
    has changed, except that something other than a file may be in quarantine already.
    """
    with contained(backend.label, subject):
        try:
            quarantined = _quarantine(backend, key)
        except (AccessDenied, StoreFault) as error:
            kept = (
                f"was not replaced, because what is there could not be kept below {QUARANTINE} of the store"
            )
            raise _because(error, subject, kept) from error
        try:
            upload.commit()
        except (AccessDenied, StoreFault) as error:
            raise _because(error, subject, "cannot be replaced, and stays as it is") from error
    return quarantined


def _because(error: StoreError, subject: str, what: str) -> StoreError:
    return type(error)(error.store, subject, f"{what}: {error.detail}")


def _quarantine(backend: Backend, key: Key) -> str:
    own = feature_of(backend, Quarantining)
    found = None if own is None else own.quarantine(key)
    return _copy(backend, key) if found is None else found


def _copy(backend: Backend, key: Key) -> str:
    """Quarantine what is under *key* by reading and writing it."""
    place = quarantine_key(key, f"{time.time_ns():x}")
    try:
        length = backend.size(key)
        if not length:
            return ""
        piece_bytes = max(CHUNK_BYTES, backend.capabilities.piece_bytes_of(length))
        with backend.open(key, size_hint=length) as reader, backend.upload(place, length) as upload:
            while chunk := reader.read(piece_bytes):
                checkpoint()
                upload.write(chunk)
            upload.commit()
    except KeyMissing:
        return ""
    backend.flush()
    return place
