"""
Many short objects at once, on the direct path alone.

*only what is right*: a request that did not succeed, and a write that the server has not confirmed, is left to the
functions for one object. They send it again, and give its error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct_path import NewObject
from snapferry.stores.backends.s3.features import Confirmation, ServerFeatures
from snapferry.stores.errors import StoreError
from snapferry.stores.requests import GET, PUT
from snapferry.stores.runtime.interruption import is_owners

from .confirm import DETECT_AFTER_BYTES
from .small import md5_of


def fetch_many(bucket: Bucket, keys: Sequence[str], most: int) -> list[bytes | None]:
    """Return the short objects under *keys*, None for each that must be requested by itself; at most *most* at once."""
    found: list[bytes | None] = [None] * len(keys)
    with _what_it_can(bucket):
        for at, data in bucket.each_direct(GET, keys, lambda path, some: path.get_each(some, most)):
            found[at] = data
    return found


def write_many(bucket: Bucket, keys: Sequence[str], data: Sequence[bytes], most: int) -> list[bool]:
    """
    Write *data* under *keys*, at most *most* at once. Return which are confirmed; count these.

    Any other may have been written or not, and must be written by itself.
    """
    features = bucket.features
    confirmed = [False] * len(keys)
    sent: dict[int, str] = {}
    checksum, content_md5 = features.checksums, features.content_md5

    def to_send() -> Iterator[NewObject]:
        for at, (key, body) in enumerate(zip(keys, data, strict=True)):
            if not _is_known(features):
                return
            sent[at] = md5 = md5_of(body) if features.needs_md5(len(body)) else ""
            yield NewObject(key, body, md5 if content_md5 else "")

    with _what_it_can(bucket):
        for at, etag in bucket.each_direct(
            PUT, to_send(), lambda path, some: path.put_each(some, most, checksum=checksum)
        ):
            md5 = sent[at]
            if md5 and etag.strip('"').lower() == md5:
                how = Confirmation.DIGEST if content_md5 else Confirmation.ETAG
            elif features.confirmation is Confirmation.DIGEST and features.content_md5 == content_md5:
                how = Confirmation.DIGEST
            else:
                continue
            bucket.confirmations.add(how)
            confirmed[at] = True
    return confirmed


@contextmanager
def _what_it_can(bucket: Bucket) -> Iterator[None]:
    """End the block at an error of the store, without raising it."""
    try:
        with bucket.errors(""):
            yield
    except StoreError as error:
        if is_owners(error):
            raise


def _is_known(features: ServerFeatures) -> bool:
    """Return whether a write can be confirmed by its answer, and the server takes the headers that are sent with it."""
    if features.checksums and not features.checksum_accepted:
        return False
    if features.confirmation is None:
        return features.md5_bytes <= DETECT_AFTER_BYTES
    return features.confirmation in {Confirmation.DIGEST, Confirmation.ETAG}
