"""Read ranges of one version of an object, told by its ETag."""

from __future__ import annotations

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.objects.ranges import Version, read_range
from snapferry.stores.backends.s3.objects.small import status
from snapferry.stores.errors import KeyMissing, PartsGone
from snapferry.stores.features import PinnedObject


def pin(bucket: Bucket, key: str) -> PinnedObject | None:
    """As `ReadsRanges.pin`. Sends a HEAD."""
    if not bucket.features.ranges:
        return None
    found = status(bucket, key)
    if found is None:
        raise KeyMissing(bucket.label, key, "nothing is filed here")
    # A weak ETag matches no If-Match (RFC 9110, section 13.1.1).
    if not found.etag or found.etag.startswith("W/"):
        return None
    return pinned(bucket, key, found.etag, found.length)


def pinned(bucket: Bucket, key: str, version: str, length: int) -> PinnedObject:
    """As `ReadsRanges.pinned`. Sends nothing: each range tells its version."""
    return _S3Object(bucket, key, version, length)


class _S3Object:
    def __init__(self, bucket: Bucket, key: str, version: str, length: int) -> None:
        self.version = version
        self.length = length
        self._version = Version(bucket, key, version, length, PartsGone)

    def read_into(self, start: int, buffer: memoryview) -> None:
        read_range(self._version, start, buffer)

    def close(self) -> None:
        return None
