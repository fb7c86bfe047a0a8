"""
Abort multipart uploads of dead processes: a bucket keeps their parts, which cost money and are not visible.

An upload that fails or is cancelled aborts itself. One whose process was killed cannot, and S3 has only its key to tell
it from an upload that still runs.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Final

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import code_of
from snapferry.stores.backends.s3.sizes import requests_to_upload
from snapferry.stores.errors import StoreError, StoreFault, StoreUnavailable
from snapferry.stores.requests import CREATE_UPLOAD
from snapferry.stores.runtime.interruption import grace

logger = logging.getLogger(__name__)

# The seconds that an upload may take to abort after its owner has stopped it.
ABORT_S: Final = 10

# A page has at most 1,000 uploads (API reference, ListMultipartUploads).
MAX_PAGES: Final = 1000


def abort_uploads(bucket: Bucket, key: str, size_hint: int, *, but: str = "") -> None:
    """
    Abort every multipart upload to *key* that is listed, *but* one. Never raises; what cannot be aborted is logged.

    Sends nothing for an object whose size, *size_hint*, needs no multipart upload.
    """
    if CREATE_UPLOAD in requests_to_upload(size_hint):
        _abort_all(bucket, key, but=but)


def create_upload(bucket: Bucket, key: str, **parameters: object) -> dict[str, Any]:
    """
    Begin a multipart upload to *key*; return boto3's answer. Raises `StoreError`.

    If the answer to an attempt was lost, nobody knows the upload that it began. So where there was more than one
    attempt, the other uploads to *key* are aborted, within `ABORT_S` seconds.
    """
    late = StoreUnavailable(bucket.label, key, f"was not aborted within {ABORT_S} s")
    try:
        with bucket.errors(key):
            created: dict[str, Any] = bucket.call(
                "create_multipart_upload", Key=bucket.full_key(key), **parameters
            )
            upload = str(created["UploadId"])
    except StoreUnavailable:
        with grace(ABORT_S, late):
            _abort_all(bucket, key)
        raise
    if created.get("ResponseMetadata", {}).get("RetryAttempts"):
        with grace(ABORT_S, late):
            _abort_all(bucket, key, but=upload)
    return created


def _abort_all(bucket: Bucket, key: str, *, but: str = "") -> None:
    try:
        for upload in _uploads(bucket, key):
            if upload != but:
                _abort(bucket, key, upload)
    except StoreError as error:
        # rclone's server returns NoSuchUpload where there are no uploads (measured: rclone 1.75).
        if code_of(error) != "NoSuchUpload":
            logger.warning("unfinished multipart uploads may be left behind: %s", error)


def _uploads(bucket: Bucket, key: str) -> Iterator[str]:
    """Yield the ids of the uploads to exactly *key*."""
    full_key = bucket.full_key(key)
    parameters: dict[str, str] = {"Prefix": full_key}
    for _ in range(MAX_PAGES):
        with bucket.errors(key):
            page = bucket.call("list_multipart_uploads", **parameters)
            found = [(upload["Key"], upload["UploadId"]) for upload in page.get("Uploads", ())]
        yield from (upload for upload_key, upload in found if upload_key == full_key)
        if not page.get("IsTruncated"):
            return
        markers = page.get("NextKeyMarker", ""), page.get("NextUploadIdMarker", "")
        if markers == (parameters.get("KeyMarker"), parameters.get("UploadIdMarker")):
            raise StoreFault(bucket.label, key, "a listing of uploads is truncated, but does not advance")
        parameters |= {"KeyMarker": markers[0], "UploadIdMarker": markers[1]}
    raise StoreFault(bucket.label, key, f"a listing of uploads does not end within {MAX_PAGES} pages")


def _abort(bucket: Bucket, key: str, upload: str) -> None:
    try:
        with bucket.errors(key):
            bucket.call("abort_multipart_upload", Key=bucket.full_key(key), UploadId=upload)
    except StoreUnavailable as error:
        # Another process has finished it or aborted it meanwhile.
        if code_of(error) != "NoSuchUpload":
            raise
    else:
        logger.info("%s: aborted an unfinished multipart upload of %s", bucket.label, key)
