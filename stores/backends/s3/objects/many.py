"""
Many short objects at once, on the direct path alone.

*only what is right*: a request that did not succeed, and a write that the server has not confirmed, is left to the
functions for one object. They send it again, and give its error. Only a write that may have left other bytes is sent
again here, by the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, Self

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct_path import DirectPath, NewObject, Request
from snapferry.stores.backends.s3.features import Confirmation, ServerFeatures
from snapferry.stores.errors import StoreError
from snapferry.stores.requests import GET, PUT
from snapferry.stores.runtime.interruption import is_owners

from .confirm import DETECT_AFTER_BYTES, write
from .small import md5_of


def fetch_each(bucket: Bucket, keys: Iterable[str], most: int) -> Generator[tuple[int, bytes]]:
    """Yield the position and the bytes of the short objects under *keys*, at most *most* requests at once."""
    with bucket.errors(""), _Sender(bucket, GET) as sender:
        yield from sender.exchange(
            (sender.get(at, key, lambda at, _, data: (at, data)) for at, key in enumerate(keys)), most
        )


def writes_each(bucket: Bucket) -> bool:
    """Return whether `write_each` and `copy_each` send anything now. Never raises `StoreError`."""
    try:
        with bucket.errors(""):
            return bucket.free_path is not None and _is_known(bucket.features)
    except StoreError:
        return False


def write_each(bucket: Bucket, objects: Iterable[tuple[str, bytes]], most: int) -> Generator[tuple[int, int]]:
    """
    Write *objects*, each a key and its bytes, at most *most* at once. Yield those that are confirmed; count these.

    That is the position and the length in bytes. Any other may have been written or not.
    """
    with bucket.errors(""), _Writer(bucket) as writer:
        yield from writer.exchange((writer.put(at, *each) for at, each in enumerate(objects)), most)


def copy_each(
    source: Bucket, bucket: Bucket, keys: Iterable[str], is_right: Callable[[int, bytes], bool], most: int
) -> Generator[tuple[int, int]]:
    """
    As `write_each`, with the objects under *keys* of *source*, each as soon as it arrives, if it *is_right*.

    An object is in flight until it is confirmed.
    """
    with bucket.errors(""), _Sender(source, GET) as reader, _Writer(bucket) as writer:

        def put(at: int, key: str, data: bytes) -> Request | None:
            return writer.put(at, key, data) if is_right(at, data) else None

        yield from reader.exchange((reader.get(at, key, put) for at, key in enumerate(keys)), most)


class _Sender:
    """Makes requests of one kind to *bucket*, and counts them. Makes none while requests must wait, as one by one."""

    def __init__(self, bucket: Bucket, operation: str) -> None:
        self._bucket = bucket
        self._operation = operation
        self._sent = self.succeeded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sent:
            self._bucket.count_direct(self._operation, self._sent, self.succeeded)

    def path(self) -> DirectPath | None:
        """Return the path for one request, which counts as sent, None where nothing may be sent."""
        path = self._bucket.free_path
        self._sent += path is not None
        return path

    def get(self, at: int, key: str, then: Callable[[int, str, bytes], object]) -> Request | None:
        """Return the request for the object under *key*; *then* is called with *at*, *key* and the bytes."""
        path = self.path()

        def arrived(data: bytes) -> object:
            self.succeeded += 1
            return then(at, key, data)

        return None if path is None else path.to_get(key, arrived)

    def exchange(self, requests: Iterable[Request | None], most: int) -> Generator[Any]:
        """Yield what comes of *requests*; None is the end of them."""
        path = self._bucket.free_path
        if path is not None:
            # `iter` with two arguments ends at the second one.
            until_none = iter(iter(requests).__next__, None)
            with closing(path.exchange(until_none, most)) as outcomes:
                yield from outcomes


class _Writer(_Sender):
    """Makes requests that store objects in *bucket*."""

    def __init__(self, bucket: Bucket) -> None:
        super().__init__(bucket, PUT)
        self._features = features = bucket.features
        self._checksum, self._content_md5 = features.checksums, features.content_md5

    def put(self, at: int, key: str, data: bytes) -> Request | None:
        """Return the request that stores *data* under *key*: it gives *at* and the length once that is confirmed."""
        path = self.path() if _is_known(self._features) else None
        if path is None:
            return None
        md5 = md5_of(data) if self._features.needs_md5(len(data)) else ""

        def stored(etag: str) -> tuple[int, int] | None:
            self.succeeded += 1
            how = self._confirmation(md5, etag)
            if how is not None:
                self._bucket.confirmations.add(how)
            elif md5 and self._features.confirmation in {None, Confirmation.ETAG}:
                # Wrong bytes may be visible, and whoever asked for this may be stopped before the object's turn.
                try:
                    write(self._bucket, key, data)
                except StoreError as error:
                    if is_owners(error):
                        raise
                    return None
            else:
                return None
            return at, len(data)

        # Sent wherever it is known: a server that checks nothing else can refuse wrong bytes, which would be visible.
        return path.to_put(NewObject(key, data, md5), stored, checksum=self._checksum)

    def _confirmation(self, md5: str, etag: str) -> Confirmation | None:
        if md5 and etag.strip('"').lower() == md5:
            return Confirmation.DIGEST if self._content_md5 else Confirmation.ETAG
        is_checked = self._features.confirmation is Confirmation.DIGEST
        return Confirmation.DIGEST if is_checked and self._features.content_md5 == self._content_md5 else None


def _is_known(features: ServerFeatures) -> bool:
    """Return whether the answer confirms a write, and the server takes the headers that are sent with it."""
    if features.checksums and not features.checksum_accepted:
        return False
    if features.confirmation is None:
        return features.md5_bytes <= DETECT_AFTER_BYTES
    return features.confirmation in {Confirmation.DIGEST, Confirmation.ETAG}
