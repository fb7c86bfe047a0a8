"""
Multipart uploads that nobody will finish: a bucket keeps their parts, in no one's sight and for money.

An upload that fails or is cancelled aborts itself. One whose process was killed
cannot, and S3 tells them from those that run by nothing but their key.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from snapferry.stores.errors import StoreError, StoreFault, StoreUnavailable
from snapferry.stores.requests import CREATE_UPLOAD

from .multipart import requests_to_upload

if TYPE_CHECKING:
    from .backend import S3Backend

logger = logging.getLogger(__name__)

# Of 1,000 uploads each, to one key.
MAX_PAGES: Final = 1000


def abort_uploads(backend: S3Backend, key: str, size_hint: int) -> None:
    """
    Abort every multipart upload to *key* that can be seen. Never raises; what cannot be removed is logged.

    Asks nothing for an object of a size that is uploaded by one request.
    """
    if CREATE_UPLOAD not in requests_to_upload(size_hint):
        return
    try:
        for upload in _uploads(backend, key):
            _abort(backend, key, upload)
    except StoreError as error:
        # NoSuchUpload is how rclone's server says that there is none.
        if _code(error.__cause__) != "NoSuchUpload":
            logger.warning("unfinished multipart uploads may be left behind: %s", error)


def _uploads(backend: S3Backend, key: str) -> Iterator[str]:
    """Yield the ids of the uploads to exactly *key*."""
    full_key = backend._prefix + key
    request: dict[str, str] = {"Prefix": full_key}
    for _ in range(MAX_PAGES):
        with backend._errors(key):
            page = backend._call("list_multipart_uploads", **request)
            found = [(one["Key"], one["UploadId"]) for one in page.get("Uploads", ())]
        yield from (upload for its_key, upload in found if its_key == full_key)
        if not page.get("IsTruncated"):
            return
        marks = page.get("NextKeyMarker", ""), page.get("NextUploadIdMarker", "")
        if marks == (request.get("KeyMarker"), request.get("UploadIdMarker")):
            raise StoreFault(backend.label, key, "a listing of uploads says that it goes on, but not where")
        request |= {"KeyMarker": marks[0], "UploadIdMarker": marks[1]}
    raise StoreFault(backend.label, key, f"a listing of uploads does not end within {MAX_PAGES} pages")


def _abort(backend: S3Backend, key: str, upload: str) -> None:
    try:
        with backend._errors(key):
            backend._call("abort_multipart_upload", Key=backend._prefix + key, UploadId=upload)
    except StoreUnavailable as error:
        if _code(error.__cause__) != "NoSuchUpload":
            raise
        # Somebody else finished it or aborted it meanwhile.
    else:
        logger.info("%s: removed an unfinished multipart upload of %s", backend.label, key)


def _code(cause: BaseException | None) -> str:
    answer: Any = getattr(cause, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
