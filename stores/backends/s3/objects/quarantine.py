"""
Quarantine in a bucket: the server copies the wrong object to another key.

*what was read is what is kept*: the copy is of the version that was read (CopySourceIfMatch). A server may ignore that
condition, so the object is looked at once more after the copy; a copy of anything else is deleted.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Final

from snapferry.stores.address import Key, quarantine_key
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import status_of
from snapferry.stores.errors import AccessDenied, KeyChanged, KeyMissing, StoreError, StoreFault
from snapferry.stores.features import IsRight, Seen
from snapferry.stores.hashing import digest

from .copying import copy_object
from .ranges import open_object
from .small import Status, delete, status

logger = logging.getLogger(__name__)

READINGS: Final = 2

NOTHING: Final = Seen(Key(""), "")


def quarantine(bucket: Bucket, key: str, is_right: IsRight) -> Seen:
    """As `Quarantining.quarantine`. Raises `StoreError`."""
    found = status(bucket, key)
    if found is None:
        return NOTHING
    if _reads_right(bucket, key, found, is_right):
        return Seen(right=True)
    # A weak ETag matches no condition (RFC 9110, section 13.1.1).
    version = found.etag if found.etag and not found.etag.startswith("W/") else None
    if not found.length:
        return Seen(Key(""), version)
    if version is None:
        return Seen()
    try:
        place, copied = _copy(bucket, key, found)
    except (AccessDenied, StoreFault) as error:
        if status_of(error) == 412:
            raise changed(bucket, key) from error
        # Some servers cannot copy. For Amazon, copying needs more permissions than reading and writing.
        logger.info("the server does not copy an object to quarantine, this process does: %s", error)
        return Seen(None, version)
    try:
        still = status(bucket, key)
    except BaseException:
        _undo(bucket, place, copied=copied)
        raise
    if still != found:
        _undo(bucket, place, copied=copied)
        raise changed(bucket, key)
    return Seen(place, version)


def changed(bucket: Bucket, key: str) -> KeyChanged:
    """Return the error for something else under *key* than what was found wrong there."""
    return KeyChanged(bucket.label, key, "another program has replaced it meanwhile; nothing was replaced")


def _reads_right(bucket: Bucket, key: str, found: Status, is_right: IsRight) -> bool:
    for _ in range(READINGS):
        try:
            with open_object(bucket, key, found.length) as reader:
                if is_right(reader):
                    return True
        except KeyMissing:
            raise changed(bucket, key) from None
    return False


def _copy(bucket: Bucket, key: str, found: Status) -> tuple[Key, bool]:
    """Return where the object is kept, and whether it was not kept there before. Raises `StoreError`."""
    # Equal bytes have equal keys in quarantine, so a repeated call keeps them once. An ETag may hold any characters.
    mark = digest(found.etag.encode())[:16]
    place = quarantine_key(key, mark)
    there = status(bucket, place)
    if there == found:
        return place, False
    if there is not None:
        place = quarantine_key(key, f"{mark}-{time.time_ns():x}")
    copy_object(bucket, key, place, found.length, found.etag)
    copied = status(bucket, place)
    if copied is None or copied.length != found.length:
        # A server that does not know the header makes an empty object.
        _undo(bucket, place, copied=True)
        raise StoreFault(bucket.label, place, "the server did not copy all bytes")
    return place, True


def _undo(bucket: Bucket, place: Key, *, copied: bool) -> None:
    if copied:
        with suppress(StoreError):
            delete(bucket, place)
