"""
Objects that the server copies from another store of its own, while this process reads the same bytes and hashes them.

*what was read is what is copied*: both are of one version of the object, by its ETag. A server that ignores the
condition of a copy is asked afterwards whether the object still has that ETag.
*whole or not at all*: a large object is copied in parts while it is read. The upload is completed when the caller has
found the bytes right, and a smaller object is copied then.
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Any

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import status_of
from snapferry.stores.backends.s3.features import Confirmation
from snapferry.stores.backends.s3.objects.confirm import delete_wrong
from snapferry.stores.backends.s3.objects.copying import copy_whole, source_of
from snapferry.stores.backends.s3.objects.ranges import open_tagged
from snapferry.stores.backends.s3.objects.small import delete, status
from snapferry.stores.backends.s3.sizes import (
    COPIED_WHOLE_BYTES,
    MAX_COPIED_WHOLE_BYTES,
)
from snapferry.stores.errors import (
    AccessDenied,
    CopyRefused,
    IntegrityError,
    StoreError,
    StoreFault,
    StoreUnavailable,
)
from snapferry.stores.streams import OpenReader, Upload

from .parts import CopiedParts
from .probe import ASK_AGAIN_S, CHANGED, directives, is_refusal, may_copy, note_refusal

logger = logging.getLogger(__name__)


def server_copy(bucket: Bucket, source: Bucket, key: str, size_hint: int) -> S3ServerCopy | None:
    """As `CopiesOnServer.server_copy`."""
    if not bucket.shares_server(source) or not may_copy(bucket, source, key):
        return None
    return S3ServerCopy(bucket, source, key, size_hint)


class S3ServerCopy:
    """The copy of *key* from the bucket *source* to *bucket*; see `ServerCopy`."""

    def __init__(self, bucket: Bucket, source: Bucket, key: str, size_hint: int) -> None:
        self._bucket = bucket
        self._source = source
        self._key = key
        self._size_hint = size_hint
        self._etag = ""
        self._announced = 0

    def open(self) -> OpenReader:
        """Open the object at the source, and remember its version."""
        reader, self._etag = open_tagged(self._source, self._key, self._size_hint)
        self._announced = getattr(reader, "length", None) or 0
        return reader

    def upload(self) -> Upload:
        """Return the upload of the version that was opened last. Raises `CopyRefused` for one without a usable ETag."""
        # A weak ETag matches no condition (RFC 9110, section 13.1.1).
        if not self._etag or self._etag.startswith("W/"):
            raise CopyRefused(
                self._bucket.label, self._key, "the object has no ETag by which its copy can be pinned"
            )
        return ServerCopyUpload(self._bucket, self._source, self._key, self._etag, self._announced)


class ServerCopyUpload(Upload):
    """
    An `Upload` that the server fills with the object under *key* in *source*, while that has *etag*.

    *announced* is its length in bytes as the server announced it, 0 where it did not.
    """

    def __init__(self, bucket: Bucket, source: Bucket, key: str, etag: str, announced: int) -> None:
        self._bucket = bucket
        self._source = source
        self._key = key
        self._etag = etag
        self._announced = announced
        self._copies = bucket.features.copies
        self._length = 0
        self._parts: CopiedParts | None = None

    def write(self, chunk: bytes) -> None:
        first = not self._length
        self._length += len(chunk)
        if first and self._announced > COPIED_WHOLE_BYTES:
            self._begin()
        elif self._parts is not None and (error := self._parts.error) is not None:
            self._give_up_parts(error)

    def _begin(self) -> None:
        if time.monotonic() >= self._copies.no_parts_until:
            self._parts = CopiedParts(self._bucket, self._key, self._origin(), self._announced)
            self._parts.begin()
        elif self._announced > MAX_COPIED_WHOLE_BYTES:
            raise self._too_large()

    def _give_up_parts(self, error: StoreError) -> None:
        """Go on without parts where the server cannot copy them. Raises what *error* means otherwise."""
        if isinstance(error, AccessDenied) or not is_refusal(error):
            raise self._meaning_of(error) from error
        self._copies.no_parts_until = time.monotonic() + ASK_AGAIN_S
        logger.info("%s: the server does not copy parts of objects: %s", self._bucket.label, error.detail)
        self.abort()
        if self._announced > MAX_COPIED_WHOLE_BYTES:
            raise self._too_large() from error

    def commit(self) -> None:
        etag = None
        if self._parts is not None:
            etag = self._complete(self._parts)
        if etag is None:
            etag = self._copy_whole()
        if etag != self._etag:
            self._check_copy()
        self._bucket.confirmations.add(Confirmation.SERVER)

    def _copy_whole(self) -> str:
        if self._length > MAX_COPIED_WHOLE_BYTES:
            raise self._too_large()
        try:
            return copy_whole(self._bucket, self._key, self._origin(), **directives(self._copies))
        except StoreError as error:
            raise self._meaning_of(error) from error

    def _complete(self, parts: CopiedParts) -> str | None:
        """Make the copied parts visible; return the ETag. None where the server cannot copy parts."""
        if self._length != self._announced:
            raise self._replaced()
        try:
            listed = parts.wait()
        except StoreError as error:
            self._give_up_parts(error)
            return None
        if not self._copies.enforces_etag and self._source_changed():
            raise self._replaced()
        etag = parts.complete(listed)
        self._parts = None
        return etag

    def _check_copy(self) -> None:
        """
        Look at a copy whose ETag is not the source's, as of an object that was uploaded in parts.

        Raises `IntegrityError` and `StoreUnavailable`; the copy was deleted then.
        """
        try:
            found = status(self._bucket, self._key)
            changed = not self._copies.enforces_etag and self._source_changed()
        except BaseException:
            if not self._copies.enforces_etag:
                # It is unknown what is there, and the next listing would count it as present.
                with suppress(StoreError):
                    delete(self._bucket, self._key)
            raise
        if changed:
            delete_wrong(self._bucket, self._key)
            raise self._replaced()
        if found is None:
            raise StoreUnavailable(
                self._bucket.label, self._key, "the object is not there after the server copied it"
            )
        if found.length != self._length:
            delete_wrong(self._bucket, self._key)
            raise IntegrityError(
                self._bucket.label,
                self._key,
                "the server copied other bytes than were read; they were deleted",
            )

    def _source_changed(self) -> bool:
        found = status(self._source, self._key)
        return found is None or (found.length, found.etag) != (self._length, self._etag)

    def _origin(self) -> dict[str, Any]:
        return source_of(self._source, self._key, self._etag)

    def _meaning_of(self, error: StoreError) -> StoreError:
        if isinstance(error, StoreFault) and status_of(error) in CHANGED:
            return self._replaced()
        if not is_refusal(error):
            return error
        note_refusal(self._bucket, self._source, error)
        return CopyRefused(self._bucket.label, self._key, error.detail)

    def _replaced(self) -> StoreError:
        return StoreUnavailable(
            self._source.label, self._key, "the object was replaced while it was read and copied"
        )

    def _too_large(self) -> StoreError:
        detail = f"the server copies no parts, and the object has more than {MAX_COPIED_WHOLE_BYTES:,} bytes"
        return CopyRefused(self._bucket.label, self._key, detail)

    def abort(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            parts.abort()
