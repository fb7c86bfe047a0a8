"""
Write an object, and prove that the bucket holds the bytes that were sent.

The proof is something that the server computed from what it received. In this order, and only READ_BACK costs a
request for each object:

*DIGEST*: the server refuses a body that differs from the SHA-256 or the MD5 that is sent with it. `detect` finds out
whether it does, by one request with a body that is corrupted on purpose.
*ETAG*: the ETag of the server is the MD5 of the body. This needs no detection: no server returns the MD5 by chance.
*READ_BACK*: the object is read again and compared.
*NONE*: the object may not be read, or the operator has turned reading back off.

Where the ETag is not the MD5, reading back decides. (Amazon: the ETag of an object that is encrypted with SSE-KMS, or
that was uploaded in parts, is not an MD5; API reference, "Object".) Wrong bytes are deleted, so that none stay visible
at an address that they do not hash to.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from snapferry.stores.address import MANIFESTS
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import code_of
from snapferry.stores.backends.s3.features import Confirmation, ServerFeatures
from snapferry.stores.errors import AccessDenied, IntegrityError, StoreError, StoreFault, StoreUnavailable
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.streams import Reader

from .conditions import only_over
from .detect import detect
from .ranges import open_object
from .small import delete, md5_of, put

logger = logging.getLogger(__name__)

# Attempts for bytes that arrive changed.
SENDS: Final = 3

# Measured: the MD5 of 1 MiB takes 2 ms. After this many bytes, a request to detect that the server checks SHA-256
# costs less than further MD5s.
DETECT_AFTER_BYTES: Final = 64 * 1024 * 1024

MD5_DIGITS: Final = 32

# The codes with which servers refuse a body that differs from a digest of it.
_ALTERED: Final = {"BadDigest", "XAmzContentChecksumMismatch", "XAmzContentSHA256Mismatch"}


class Piece(NamedTuple):
    """A part of an object: its length in bytes, and its SHA-256 or its MD5 in hex."""

    length: int
    digest: str


def piece_of(data: bytes | bytearray) -> Piece:
    """Return *data* as a piece for `read_back` to compare with."""
    return Piece(len(data), hashlib.sha256(data).hexdigest())


def write(bucket: Bucket, key: str, data: bytes, over: str | None = None) -> None:
    """
    Write *data* under *key*, return when it is confirmed, and count the confirmation.

    *over*: the ETag of what may be replaced, "" for nothing at all. Raises `KeyChanged` where something else is there.

    Raises `IntegrityError` where other bytes arrive again and again; they were deleted, or the error tells that they
    could not be. After any other error nothing wrong is visible, unless the store stopped answering in between.
    """
    features = bucket.features

    def undo() -> None:
        with suppress(StoreError):
            delete(bucket, key)

    conditions = [over]

    def send(content_md5: str) -> str:
        # What is sent again replaces what was sent before.
        over = conditions.pop() if conditions else None
        return only_over(bucket, key, over, lambda condition: put(bucket, key, data, content_md5, condition))

    try:
        found = send_confirmed(bucket, features, key, data, send, undo, visible=True)
    except IntegrityError:
        # Before the object is deleted: the server may compute its ETag in another way by now.
        if read_back(bucket, key, [piece_of(data)]) is Confirmation.NONE:
            delete_wrong(bucket, key)
            raise
        found = features.confirmation = Confirmation.READ_BACK
    else:
        if found is Confirmation.READ_BACK:
            found = _read_back_or_resend(bucket, key, data, send)
    bucket.confirmations.add(found)


def _read_back_or_resend(bucket: Bucket, key: str, data: bytes, send: Callable[[str], str]) -> Confirmation:
    pieces = [piece_of(data)]
    for _ in range(SENDS - 1):
        try:
            return read_back(bucket, key, pieces)
        except IntegrityError as error:
            logger.warning("%s; sent again", error)
            send("")
    return read_back(bucket, key, pieces)


def send_confirmed(
    bucket: Bucket,
    features: ServerFeatures,
    key: str,
    data: bytes | bytearray,
    send: Callable[[str], str],
    undo: Callable[[], None] | None = None,
    *,
    visible: bool = False,
) -> Confirmation:
    """
    Send *data* until the server confirms it, and return how. READ_BACK and NONE mean that nothing was compared yet.

    *send* sends it, with the Content-MD5 that it is given if that is not "", and returns the ETag. *undo* is called
    before an error is raised while wrong bytes may be visible. *visible*: what is sent is seen at once. Raises
    `IntegrityError` where other bytes arrive again and again.
    """
    wrong = False
    # Wrong bytes that are seen do harm until they are sent again: a manifest is read, and an object may replace the
    # right bytes that another process has written and published. So a server that checks nothing else gets the chance
    # to refuse them, wherever the MD5 is computed anyway.
    is_manifest = key.startswith(MANIFESTS)
    for left in reversed(range(SENDS)):
        try:
            if features.confirmation is None and features.md5_bytes > DETECT_AFTER_BYTES:
                detect(bucket, features, key)
            md5 = md5_of(data) if is_manifest or features.needs_md5(len(data)) else ""
            with_md5 = features.content_md5
            etag = send(md5 if with_md5 or visible else "")
            if md5 and etag == md5:
                return Confirmation.DIGEST if with_md5 else Confirmation.ETAG
            found = features.confirmation or detect(bucket, features, key)
        except StoreError as error:
            if left and code_of(error) in _ALTERED:
                logger.warning(
                    "%s: %s: the server refused altered bytes; sending them again", bucket.label, key
                )
                continue
            if not wrong:
                raise
            if undo is not None:
                undo()
            # Transient: a batch that is repeated may send the whole object again.
            raise StoreUnavailable(
                bucket.label, key, f"the server received other bytes than were sent; then: {error.detail}"
            ) from error
        except BaseException:
            if wrong and undo is not None:
                undo()
            raise
        if features.content_md5 and not with_md5:
            continue
        if found is not Confirmation.ETAG:
            return found
        if len(etag) != len(md5):
            # Not an MD5, although other ETags of this server are: it proves nothing.
            return Confirmation.READ_BACK
        wrong = True
        logger.warning("%s: %s: the server received other bytes; sending them again", bucket.label, key)
    raise IntegrityError(
        bucket.label, key, f"the server received other bytes than were sent, {SENDS} times in a row"
    )


def read_back(bucket: Bucket, key: str, pieces: list[Piece]) -> Confirmation:
    """
    Read the object under *key*, compare it with *pieces*, and return how it is confirmed.

    Deletes it and raises `IntegrityError` where it is wrong. Returns NONE where it may not be read.
    """
    if not bucket.read_back:
        return Confirmation.NONE
    length = sum(size for size, _ in pieces)
    try:
        with open_object(bucket, key, length) as reader:
            right = all(_matches(reader, piece) for piece in pieces) and not reader.read(1)
    except (AccessDenied, StoreFault) as error:
        logger.warning("%s: %s was written and cannot be read back: %s", bucket.label, key, error.detail)
        return Confirmation.NONE
    except BaseException:
        # It is unknown what is there, and the next listing would count it as present.
        with suppress(StoreError):
            delete(bucket, key)
        raise
    if right:
        return Confirmation.READ_BACK
    delete_wrong(bucket, key)
    raise IntegrityError(bucket.label, key, "the server stored other bytes than were sent; they were deleted")


def _matches(reader: Reader, piece: Piece) -> bool:
    is_md5 = len(piece.digest) == MD5_DIGITS
    found = hashlib.md5(usedforsecurity=False) if is_md5 else hashlib.sha256()
    left = piece.length
    while left and (chunk := reader.read(min(left, CHUNK_BYTES))):
        found.update(chunk)
        left -= len(chunk)
    return not left and found.hexdigest() == piece.digest


def delete_wrong(bucket: Bucket, key: str) -> None:
    """Delete the wrong bytes under *key*. Raises `IntegrityError` where they cannot be deleted."""
    try:
        delete(bucket, key)
    except StoreError as error:
        raise IntegrityError(
            bucket.label,
            key,
            f"the server stored other bytes than were sent, and they cannot be deleted: {error.detail};"
            " delete this key by hand",
        ) from error
