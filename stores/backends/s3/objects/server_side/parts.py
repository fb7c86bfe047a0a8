"""The parts of a large object, which the server copies into an upload."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.objects.copying import copy_part
from snapferry.stores.backends.s3.objects.leftovers import create_upload
from snapferry.stores.backends.s3.objects.multipart import abort_upload, short
from snapferry.stores.backends.s3.sizes import COPIES_IN_FLIGHT, copied_part_bytes
from snapferry.stores.errors import StoreError
from snapferry.stores.runtime.interruption import checkpoint


class CopiedParts:
    """
    The parts of an upload to *key*, which the server copies from *origin*, several at the same time.

    The upload is created here, and `begin` copies.
    """

    def __init__(self, bucket: Bucket, key: str, origin: dict[str, Any], length: int) -> None:
        self._errors: list[StoreError] = []
        self._bucket = bucket
        self._key = key
        self._origin = origin
        self._length = length
        self._part_bytes = copied_part_bytes(length)
        created = create_upload(bucket, key)
        with bucket.errors(key):
            upload = short(created["UploadId"], "id of an upload")
        self._target = {"Key": bucket.full_key(key), "UploadId": upload}
        self._executor = ThreadPoolExecutor(COPIES_IN_FLIGHT, "s3-copy")
        self._copies: list[Future[dict[str, Any]]] = []

    @property
    def error(self) -> StoreError | None:
        """The error of the first part that failed, None if none has."""
        return self._errors[0] if self._errors else None

    def begin(self) -> None:
        """Begin to copy. Afterwards `complete` or `abort` must be called."""
        for number in range(1, -(-self._length // self._part_bytes) + 1):
            self._copies.append(self._executor.submit(copy_context().run, self._copy, number))

    def _copy(self, number: int) -> dict[str, Any]:
        checkpoint()
        if (earlier := self.error) is not None:
            # This part may fail as well, and the upload will be aborted.
            raise earlier
        start = (number - 1) * self._part_bytes
        stop = min(start + self._part_bytes, self._length)
        try:
            return copy_part(self._bucket, self._key, self._target, self._origin, number, start, stop)
        except StoreError as error:
            self._errors.append(error)
            raise

    def wait(self) -> list[dict[str, Any]]:
        """Return the parts as CompleteMultipartUpload lists them, when all are copied. Raises the first error."""
        return [copy.result() for copy in self._copies]

    def complete(self, listed: list[dict[str, Any]]) -> str:
        """Make the object visible; return its ETag."""
        with self._bucket.errors(self._key):
            answer = self._bucket.call(
                "complete_multipart_upload", **self._target, MultipartUpload={"Parts": listed}
            )
            etag = str(answer["ETag"])
        self._executor.shutdown()
        return etag

    def abort(self) -> None:
        """Remove all parts. Never raises `StoreError`."""
        # A part that is copied after the abort would stay for ever, so wait for those in flight.
        self._executor.shutdown(cancel_futures=True)
        abort_upload(self._bucket, self._key, self._target["UploadId"])
