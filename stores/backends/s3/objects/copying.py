"""
Copies that the server makes by itself, between two keys of a bucket.

A server answers only when it has copied, and a request should not take longer than a read may be silent. So a large
object is copied in parts (UploadPartCopy), several at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Final
from urllib.parse import quote

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct_path import COPY_HEADERS
from snapferry.stores.backends.s3.options import is_access_point
from snapferry.stores.errors import StoreFault
from snapferry.stores.requests import COPY
from snapferry.stores.runtime.interruption import checkpoint

from .leftovers import create_upload
from .multipart import abort_upload, short

# Amazon copies up to 5 GB by one request (API reference, CopyObject).
MAX_COPY_BYTES: Final = 1024**3
PART_BYTES: Final = 512 * 1024**2
PARTS: Final = 10_000
IN_FLIGHT: Final = 4


def source_of(bucket: Bucket, key: str, etag: str) -> dict[str, Any]:
    """Return boto3's parameters to copy the object under *key* in *bucket* while it has *etag*."""
    return {
        "CopySource": {"Bucket": bucket.name, "Key": bucket.full_key(key)},
        "CopySourceIfMatch": etag,
    }


def copy_object(bucket: Bucket, key: str, place: str, length: int, etag: str) -> None:
    """
    Let the server copy the object of *length* bytes with *etag* from *key* to *place*.

    Raises `StoreError`, whose answer has the status 412 where the object has another ETag. Nothing is visible then.
    """
    source = source_of(bucket, key, etag)
    if length <= MAX_COPY_BYTES:
        copy_whole(bucket, place, source)
        return
    upload = str(create_upload(bucket, place)["UploadId"])
    target = {"Key": bucket.full_key(place), "UploadId": upload}
    try:
        parts = _copy_parts(bucket, place, length, target, source)
        with bucket.errors(place):
            answer = bucket.call("complete_multipart_upload", **target, MultipartUpload={"Parts": parts})
            answer["ETag"]
    except BaseException:
        abort_upload(bucket, place, upload)
        raise


def copy_whole(bucket: Bucket, place: str, source: dict[str, Any], **more: str) -> str:
    """Let the server copy *source* to *place*; return the copy's ETag as the server sends it, "" if there is none."""

    def by_boto() -> str:
        return _etag(
            bucket.call("copy_object", Key=bucket.full_key(place), **source, **more), "CopyObjectResult"
        )

    parameters = source | more
    with bucket.errors(place):
        # A copy to quarantine is rare. In the name of an access point's object, boto3 inserts a part.
        if not more or is_access_point(source["CopySource"]["Bucket"]):
            return by_boto()
        parameters["CopySource"] = quote("{Bucket}/{Key}".format(**source["CopySource"]), safe="/~")
        headers = {name: parameters[its] for name, its in COPY_HEADERS.items() if its in parameters}
        return bucket.direct_or_boto(COPY, lambda path: path.copy(place, headers), by_boto)


def copy_part(
    bucket: Bucket,
    place: str,
    target: dict[str, str],
    source: dict[str, Any],
    number: int,
    start: int,
    stop: int,
) -> dict[str, Any]:
    """
    Let the server copy the bytes of *source* from *start* up to *stop*, exclusive, to the part *number* of an upload.

    Returns the part as CompleteMultipartUpload lists it. *target* is the upload to *place* in boto3's parameters.
    """
    with bucket.errors(place):
        answer = bucket.call(
            "upload_part_copy",
            **target,
            **source,
            PartNumber=number,
            CopySourceRange=f"bytes={start}-{stop - 1}",
        )
        etag = short(_etag(answer, "CopyPartResult"), "ETag of a part")
    if not etag:
        # A server that does not know the header takes the request for one with an empty part.
        raise StoreFault(bucket.label, place, "the server did not copy a part")
    return {"PartNumber": number, "ETag": etag}


def _etag(answer: Mapping[str, Any], result: str) -> str:
    """Return the ETag in the *result* of a copy, "" where the answer has no body. KeyError if the body ends early."""
    found = answer.get(result) or {}
    length = answer["ResponseMetadata"]["HTTPHeaders"].get("content-length", "0")
    return str(found["ETag"] if length != "0" else found.get("ETag") or "")


def _copy_parts(
    bucket: Bucket, place: str, length: int, target: dict[str, str], source: dict[str, Any]
) -> list[dict[str, Any]]:
    """Copy all parts; return them as CompleteMultipartUpload lists them."""
    part_bytes = max(PART_BYTES, -(-length // PARTS))

    def copy(number: int) -> dict[str, Any]:
        checkpoint()
        start = (number - 1) * part_bytes
        return copy_part(bucket, place, target, source, number, start, min(start + part_bytes, length))

    executor = ThreadPoolExecutor(IN_FLIGHT, "s3-copy")
    try:
        numbers = range(1, -(-length // part_bytes) + 1)
        copies = [executor.submit(copy_context().run, copy, number) for number in numbers]
        return [copy.result() for copy in copies]
    finally:
        executor.shutdown(cancel_futures=True)
