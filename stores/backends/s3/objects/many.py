"""
Many short objects at once, on the direct path alone.

*only what is right*: a request that did not succeed, and a write that the server has not confirmed, is left to the
functions for one object. They send it again, and give its error.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TypeVar

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct_path import DirectPath, NewObject
from snapferry.stores.backends.s3.features import Confirmation, ServerFeatures
from snapferry.stores.errors import StoreError
from snapferry.stores.requests import GET, PUT
from snapferry.stores.runtime.interruption import is_owners

from .confirm import DETECT_AFTER_BYTES
from .small import md5_of

_I = TypeVar("_I")
_T = TypeVar("_T")


def fetch_many(bucket: Bucket, keys: Sequence[str], most: int) -> list[bytes | None]:
    """Return the short objects under *keys*, None for each that must be requested by itself; at most *most* at once."""
    found: list[bytes | None] = [None] * len(keys)
    with _what_it_can(bucket):
        for at, data in _each(bucket, GET, keys, lambda path, some: path.get_each(some, most)):
            found[at] = data
    return found


def writes_many(bucket: Bucket) -> bool:
    """Return whether `write_many` sends anything now. Never raises `StoreError`."""
    found: list[bool] = []
    with _what_it_can(bucket):
        found.append(bucket.free_path is not None and _is_known(bucket.features))
    return any(found)


def write_many(bucket: Bucket, keys: Sequence[str], data: Sequence[bytes], most: int) -> list[bool]:
    """
    Write *data* under *keys*, at most *most* at once. Return which are confirmed; count these.

    Any other may have been written or not, and must be written by itself.
    """
    confirmed = [False] * len(keys)
    with _what_it_can(bucket):
        features = bucket.features
        checksum, content_md5 = features.checksums, features.content_md5
        md5s: list[str] = []

        def to_send() -> Iterator[NewObject]:
            for key, body in zip(keys, data, strict=True):
                if not _is_known(features):
                    return
                md5s.append(md5_of(body) if features.needs_md5(len(body)) else "")
                yield NewObject(key, body, md5s[-1] if content_md5 else "")

        for at, etag in _each(
            bucket, PUT, to_send(), lambda path, some: path.put_each(some, most, checksum=checksum)
        ):
            if md5s[at] and etag.strip('"').lower() == md5s[at]:
                how = Confirmation.DIGEST if content_md5 else Confirmation.ETAG
            elif features.confirmation is Confirmation.DIGEST and features.content_md5 == content_md5:
                how = Confirmation.DIGEST
            else:
                continue
            bucket.confirmations.add(how)
            confirmed[at] = True
    return confirmed


def _each(
    bucket: Bucket,
    operation: str,
    items: Iterable[_I],
    begin: Callable[[DirectPath, Iterable[_I]], Generator[tuple[int, _T | None]]],
) -> Iterator[tuple[int, _T]]:
    """
    Send a request for each of *items*, as *begin* does, and yield the position and the outcome of each success.

    Stops when requests must wait, as they do one by one.
    """
    path = bucket.free_path
    if path is None:
        return
    sent = succeeded = 0

    def to_send() -> Iterator[_I]:
        nonlocal sent
        for item in items:
            if bucket.free_path is None:
                return
            sent += 1
            yield item

    try:
        with closing(begin(path, to_send())) as outcomes:
            for position, found in outcomes:
                if found is not None:
                    succeeded += 1
                    yield position, found
    finally:
        bucket.count_direct(operation, sent, succeeded)


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
    """Return whether the answer confirms a write, and the server takes the headers that are sent with it."""
    if features.checksums and not features.checksum_accepted:
        return False
    if features.confirmation is None:
        return features.md5_bytes <= DETECT_AFTER_BYTES
    return features.confirmation in {Confirmation.DIGEST, Confirmation.ETAG}
