"""Quarantine in a bucket: the server copies the wrong object to another key."""

from __future__ import annotations

import logging
from typing import Final

from snapferry.stores.address import quarantine_key
from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.errors import AccessDenied, KeyMissing, StoreFault
from snapferry.stores.hashing import digest

logger = logging.getLogger(__name__)

# Amazon copies up to 5 GB by one request (API reference, CopyObject), but it answers only when it has copied. The
# request should not take longer than a read may be silent.
MAX_COPY_BYTES: Final = 1024**3


def quarantine(bucket: Bucket, key: str) -> str | None:
    """As `Quarantining.quarantine`. Raises `StoreError`."""
    try:
        with bucket.errors(key, missing=KeyMissing):
            found = bucket.call("head_object", Key=bucket.full_key(key))
            length, etag = int(found["ContentLength"]), str(found.get("ETag") or "")
    except KeyMissing:
        return ""
    if not length:
        return ""
    # Equal bytes have equal keys in quarantine, so a repeated call keeps them once. An ETag may hold any characters.
    place = quarantine_key(key, digest(etag.encode())[:16])
    if length > MAX_COPY_BYTES or not etag:
        return None
    try:
        with bucket.errors(place):
            bucket.call(
                "copy_object",
                Key=bucket.full_key(place),
                CopySource={"Bucket": bucket.name, "Key": bucket.full_key(key)},
            )
    except (AccessDenied, StoreFault) as error:
        # Some servers cannot copy. For Amazon, copying needs more permissions than reading and writing.
        logger.info("the server does not copy an object to quarantine, this process does: %s", error)
        return None
    return place
