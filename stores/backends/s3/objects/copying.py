"""
Copies that the server makes by itself, between two keys of a bucket.

A server answers only when it has copied, and a request should not take longer than a read may be silent. So a large
object is copied in parts (UploadPartCopy), several at the same time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from typing import Any, Final

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.errors import StoreError, StoreFault, StoreUnavailable
from snapferry.stores.runtime.interruption import checkpoint, grace

from .leftovers import ABORT_S, create_upload

# Amazon copies up to 5 GB by one request (API reference, CopyObject).
MAX_COPY_BYTES: Final = 1024**3
PART_BYTES: Final = 512 * 1024**2
PARTS: Final = 10_000
IN_FLIGHT: Final = 4


def copy_object(bucket: Bucket, key: str, place: str, length: int, etag: str) -> None:
    """
    Let the server copy the object of *length* bytes with *etag* from *key* to *place*.

    Raises `StoreError`, whose answer has the status 412 where the object has another ETag. Nothing is visible then.
    """
    source = {
        "CopySource": {"Bucket": bucket.name, "Key": bucket.full_key(key)},
        "CopySourceIfMatch": etag,
    }
    if length <= MAX_COPY_BYTES:
        with bucket.errors(place):
            bucket.call("copy_object", Key=bucket.full_key(place), **source)
        return
    target = {"Key": bucket.full_key(place), "UploadId": str(create_upload(bucket, place)["UploadId"])}
    try:
        parts = _copy_parts(bucket, place, length, target, source)
        with bucket.errors(place):
            answer = bucket.call("complete_multipart_upload", **target, MultipartUpload={"Parts": parts})
            answer["ETag"]
    except BaseException:
        late = StoreUnavailable(bucket.label, place, f"was not aborted within {ABORT_S} s")
        with suppress(StoreError), grace(ABORT_S, late), bucket.errors(place):
            bucket.call("abort_multipart_upload", **target)
        raise


def _copy_parts(
    bucket: Bucket, place: str, length: int, target: dict[str, str], source: dict[str, Any]
) -> list[dict[str, Any]]:
    """Copy all parts; return them as CompleteMultipartUpload lists them."""
    part_bytes = max(PART_BYTES, -(-length // PARTS))

    def copy_part(number: int) -> dict[str, Any]:
        checkpoint()
        start = (number - 1) * part_bytes
        stop = min(start + part_bytes, length)
        with bucket.errors(place):
            answer = bucket.call(
                "upload_part_copy",
                **target,
                **source,
                PartNumber=number,
                CopySourceRange=f"bytes={start}-{stop - 1}",
            )
        etag = (answer.get("CopyPartResult") or {}).get("ETag")
        if not etag:
            # A server that does not know the header takes the request for one with an empty part.
            raise StoreFault(bucket.label, place, "the server did not copy a part")
        return {"PartNumber": number, "ETag": str(etag)}

    executor = ThreadPoolExecutor(IN_FLIGHT, "s3-copy")
    try:
        numbers = range(1, -(-length // part_bytes) + 1)
        copies = [executor.submit(copy_context().run, copy_part, number) for number in numbers]
        return [copy.result() for copy in copies]
    finally:
        executor.shutdown(cancel_futures=True)
