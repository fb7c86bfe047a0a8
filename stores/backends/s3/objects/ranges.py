"""
Read an object: a large one in ranges, several at the same time, returned in order.

*bounded*: a reader holds up to `RANGES_IN_FLIGHT` ranges of `RANGE_BYTES` bytes, and the one that it returns from.
*one object*: every range comes from the object that the first one came from. An object that is replaced meanwhile is
an error.
*read to the end*: a range that breaks off is requested again, alone.

Range requests are described in Amazon's API reference, GetObject, and in RFC 9110, section 14.
"""

from __future__ import annotations

import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.errors import ErrorClass, status_of
from snapferry.stores.backends.s3.http.bounded_body import announced_too_long
from snapferry.stores.backends.s3.http.errors import AnswerTooLong
from snapferry.stores.backends.s3.sizes import (
    MAX_OBJECT_BYTES,
    RANGE_BYTES,
    RANGED_ABOVE_BYTES,
    RANGES_IN_FLIGHT,
)
from snapferry.stores.errors import KeyMissing, StoreError, StoreFault, StoreUnavailable
from snapferry.stores.streams import OpenReader

from .small import confirm_length, get

# Attempts for a range whose body breaks off. boto3 retries what fails before the body.
RANGE_ATTEMPTS: Final = 3

_content_range = re.compile(r"bytes (\d+)-(\d+)/(\d+)").fullmatch


def open_object(bucket: Bucket, key: str, size_hint: int) -> OpenReader:
    """
    Open the object under *key*, which should have *size_hint* bytes: in ranges if that is large. Raises `KeyMissing`.

    An object without ranges, because it is empty or because the server does not support them, is read by one request.
    A server that rejects range requests is sent none again.
    """
    return open_tagged(bucket, key, size_hint)[0]


def open_tagged(bucket: Bucket, key: str, size_hint: int) -> tuple[OpenReader, str]:
    """As `open_object`. Return also the ETag of what is read, as the server sends it, "" if there is none."""
    if size_hint <= RANGED_ABOVE_BYTES or not bucket.features.ranges:
        return get(bucket, key, size_hint if size_hint <= RANGED_ABOVE_BYTES else 0)
    try:
        answer = _request(bucket, key, 0, RANGE_BYTES)
    except StoreFault as error:
        if status_of(error) not in {416, 501}:
            raise
        # 416: the object is empty. 501: the server does not support ranges.
        bucket.features.ranges = status_of(error) != 501
        return get(bucket, key, 0)
    try:
        with bucket.errors(key):
            found = _content_range(str(answer.get("ContentRange")))
            received = int(found[2]) + 1 if found is not None else 0
            bucket.refund(max(0, RANGE_BYTES - received))
            length = int(found[3]) if found is not None and found[1] == "0" else None
            if length is not None and length > MAX_OBJECT_BYTES:
                raise AnswerTooLong(announced_too_long(length))
        if length is not None:
            confirm_length(bucket, key, length, size_hint)
    except BaseException:
        _close(answer)
        raise
    if length is None:
        _close(answer)
        return get(bucket, key, 0)
    reader = RangesReader(bucket, key, answer, length)
    return reader, reader.etag


class RangesReader:
    """An object of *length* bytes that is being read; *first* is boto3's answer to the request for its first range."""

    def __init__(self, bucket: Bucket, key: str, first: Any, length: int) -> None:
        self.etag = str(first.get("ETag") or "")
        self.length = length
        self._version = Version(bucket, key, self.etag, length)
        self._requested = 0
        self._in_flight: deque[Future[bytes]] = deque()
        self._range = memoryview(b"")
        self._executor = ThreadPoolExecutor(RANGES_IN_FLIGHT, "s3-range")
        self._fetch_ahead(first)

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes, fewer only at the end. A whole range is returned without being copied."""
        parts: list[bytes] = []
        while size > 0:
            if not self._range:
                if not self._in_flight:
                    break
                self._range = memoryview(self._in_flight.popleft().result())
                self._fetch_ahead()
            if len(self._range) <= size:
                part, self._range = self._range, memoryview(b"")
            else:
                part, self._range = self._range[:size], self._range[size:]
            whole = part.obj
            parts.append(whole if isinstance(whole, bytes) and len(whole) == len(part) else bytes(part))
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._in_flight.clear()
        self._range = memoryview(b"")

    def _fetch_ahead(self, answer: Any = None) -> None:
        while self._requested < self.length and len(self._in_flight) < RANGES_IN_FLIGHT:
            start, stop = self._requested, min(self._requested + RANGE_BYTES, self.length)
            self._in_flight.append(
                self._executor.submit(copy_context().run, self._fetch, start, stop, answer)
            )
            self._requested, answer = stop, None

    def _fetch(self, start: int, stop: int, answer: Any) -> bytes:
        return read_range(self._version, start, stop, answer)


class Version(NamedTuple):
    """
    One version of the object under *key*, of *length* bytes, by its ETag as the server sends it.

    *replaced* is the error for another object under the key.
    """

    bucket: Bucket
    key: str
    etag: str
    length: int
    replaced: ErrorClass = StoreUnavailable

    def not_there(self) -> StoreError:
        """Return the error for another object under the key."""
        return self.replaced(self.bucket.label, self.key, "the object was replaced while it was read")


def read_range(version: Version, start: int, stop: int, answer: Any = None) -> bytes:
    """
    Return the bytes from *start* up to *stop*, exclusive.

    *answer*: boto3's answer to a request for them that was sent already. A range that breaks off is requested again.
    """
    attempt = 1
    while True:
        if answer is None:
            answer = _request_again(version, start, stop)
        try:
            return _receive(version, start, stop, answer)
        except StoreUnavailable:
            if attempt == RANGE_ATTEMPTS:
                raise
        finally:
            _close(answer)
        attempt, answer = attempt + 1, None


def _request_again(version: Version, start: int, stop: int) -> Any:
    try:
        return _request(version.bucket, version.key, start, stop, version.etag)
    except StoreFault as error:
        # 412: another object is under the key by now. 416: it is shorter than it was.
        if status_of(error) not in {412, 416}:
            raise
        raise version.not_there() from error


def _receive(version: Version, start: int, stop: int, answer: Any) -> bytes:
    content_range, etag = answer.get("ContentRange"), str(answer.get("ETag") or "")
    another = etag and version.etag and etag != version.etag
    if another or content_range != f"bytes {start}-{stop - 1}/{version.length}":
        raise version.not_there()
    with version.bucket.errors(version.key):
        # One byte more than the range has: the server may send anything after such a header.
        received: bytes = answer["Body"].read(stop - start + 1)
    if len(received) != stop - start:
        raise StoreUnavailable(
            version.bucket.label, version.key, "the body of an answer is not as long as its range"
        )
    return received


def _request(bucket: Bucket, key: str, start: int, stop: int, etag: str = "") -> Any:
    """Request the bytes from *start* up to *stop*, exclusive, of the object with *etag* if that is given."""
    # A weak ETag matches no If-Match (RFC 9110, section 13.1.1).
    condition = {"IfMatch": etag} if etag and not etag.startswith("W/") else {}
    prepaid = bucket.prepay(stop - start)
    try:
        with bucket.errors(key, missing=KeyMissing):
            return bucket.call(
                "get_object", Key=bucket.full_key(key), Range=f"bytes={start}-{stop - 1}", **condition
            )
    except Exception:
        bucket.refund(prepaid)
        raise


def _close(answer: Any) -> None:
    # After its end, a body has released its connection. Before, the connection is of no more use.
    with suppress(Exception):
        answer["Body"].close()
