"""
Read an object: a large one in ranges, several at the same time, returned in order.

*bounded*: a reader holds up to `RANGES_IN_FLIGHT` ranges of `RANGE_BYTES` bytes, and the one that it returns from. It
uses the memory of those that come back again.
*one object*: every range comes from the object that the first one came from. An object that is replaced meanwhile is
an error.
*read to the end*: a range that breaks off is requested again, alone.

Range requests are described in Amazon's API reference, GetObject, and in RFC 9110, section 14.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import Final, NamedTuple, Self

from snapferry.stores.backends.s3.bucket import Bucket
from snapferry.stores.backends.s3.direct_path import RANGE_HEADERS, RangeAnswer
from snapferry.stores.backends.s3.errors import ErrorClass, status_of
from snapferry.stores.backends.s3.http.bounded_body import BoundedBody, announced_too_long
from snapferry.stores.backends.s3.http.errors import AnswerTooLong
from snapferry.stores.backends.s3.sizes import (
    MAX_OBJECT_BYTES,
    RANGE_BYTES,
    RANGED_ABOVE_BYTES,
    RANGES_IN_FLIGHT,
)
from snapferry.stores.errors import KeyMissing, StoreError, StoreFault, StoreUnavailable
from snapferry.stores.requests import GET
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
            found = _content_range(answer.content_range)
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
    if not length:
        # No range, or one of an object without bytes, which has no ranges.
        _close(answer)
        return get(bucket, key, 0)
    reader = RangesReader(bucket, key, answer, length)
    return reader, reader.etag


class RangesReader:
    """An object of *length* bytes that is being read; *first* is the answer to the request for its first range."""

    def __init__(self, bucket: Bucket, key: str, first: RangeAnswer, length: int) -> None:
        self.etag = first.etag
        self.length = length
        self._version = Version(bucket, key, self.etag, length)
        self._requested = 0
        self._in_flight: deque[Future[bytearray]] = deque()
        self._range = bytearray()
        self._left = memoryview(self._range)
        self._free: list[bytearray] = []
        self._executor = ThreadPoolExecutor(RANGES_IN_FLIGHT, "s3-range")
        self._fetch_ahead(first)

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes, fewer only at the end."""
        parts: list[bytes] = []
        while size > 0:
            if not self._left:
                # Where `give` raises, the memory must not come back a second time.
                used, self._range = self._range, bytearray()
                self.take_back(used)
                self._range = self.give()
                self._left = memoryview(self._range)
                if not self._range:
                    break
            part, self._left = self._left[:size], self._left[size:]
            parts.append(bytes(part))
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def give(self) -> bytearray:
        """Return the next range, as `GivesPieces.give`. Not for a reader from which `read` was called."""
        if not self._in_flight:
            return bytearray()
        # A range that failed stays first: a later call must not return the range behind it.
        piece = self._in_flight[0].result()
        self._in_flight.popleft()
        self._fetch_ahead()
        return piece

    def take_back(self, piece: bytearray, /) -> None:
        """As `GivesPieces.take_back`."""
        if len(piece) == RANGE_BYTES:
            self._free.append(piece)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self._executor.shutdown(cancel_futures=True)
        self._in_flight.clear()
        self._free.clear()
        self._left = memoryview(b"")
        self._range = bytearray()

    def _fetch_ahead(self, answer: RangeAnswer | None = None) -> None:
        while self._requested < self.length and len(self._in_flight) < RANGES_IN_FLIGHT:
            start, stop = self._requested, min(self._requested + RANGE_BYTES, self.length)
            self._in_flight.append(
                self._executor.submit(copy_context().run, self._fetch, start, stop, answer)
            )
            self._requested, answer = stop, None

    def _fetch(self, start: int, stop: int, answer: RangeAnswer | None) -> bytearray:
        piece = None
        if stop - start == RANGE_BYTES:
            with suppress(IndexError):
                piece = self._free.pop()
        if piece is None:
            piece = bytearray(stop - start)
        with memoryview(piece) as view:
            read_range(self._version, start, view, answer)
        return piece


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


def read_range(version: Version, start: int, into: memoryview, answer: RangeAnswer | None = None) -> None:
    """
    Fill *into* with the bytes from *start* on.

    *answer*: that to a request for them that was sent already. A range that breaks off is requested again.
    """
    attempt = 1
    while True:
        if answer is None:
            answer = _request_again(version, start, start + len(into))
        try:
            return _receive(version, start, into, answer)
        except StoreUnavailable:
            if attempt == RANGE_ATTEMPTS:
                raise
        finally:
            _close(answer)
        attempt, answer = attempt + 1, None


def _request_again(version: Version, start: int, stop: int) -> RangeAnswer:
    try:
        return _request(version.bucket, version.key, start, stop, version.etag)
    except StoreFault as error:
        # 412: another object is under the key by now. 416: it is shorter than it was.
        if status_of(error) not in {412, 416}:
            raise
        raise version.not_there() from error


def _receive(version: Version, start: int, into: memoryview, answer: RangeAnswer) -> None:
    length = len(into)
    another = answer.etag and version.etag and answer.etag != version.etag
    if another or answer.content_range != f"bytes {start}-{start + length - 1}/{version.length}":
        raise version.not_there()
    body = answer.body
    # The server may send anything after such a header.
    right = body.length in {None, length}
    if right:
        with version.bucket.errors(version.key):
            right = body.read_into(into) == length and (body.length is not None or not body.read(1))
    if not right:
        raise StoreUnavailable(
            version.bucket.label, version.key, "the body of an answer is not as long as its range"
        )


def _request(bucket: Bucket, key: str, start: int, stop: int, etag: str = "") -> RangeAnswer:
    """Request the bytes from *start* up to *stop*, exclusive, of the object with *etag* if that is given."""
    headers = {"range": f"bytes={start}-{stop - 1}"}
    # A weak ETag matches no If-Match (RFC 9110, section 13.1.1).
    if etag and not etag.startswith("W/"):
        headers["if-match"] = etag
    prepaid = bucket.prepay(stop - start)
    try:
        with bucket.errors(key, missing=KeyMissing):
            return bucket.direct_or_boto(
                GET,
                lambda path: path.get_range(key, headers),
                lambda: _request_by_boto(bucket, key, headers, stop - start),
            )
    except Exception:
        bucket.refund(prepaid)
        raise


def _request_by_boto(bucket: Bucket, key: str, headers: Mapping[str, str], length: int) -> RangeAnswer:
    parameters = {RANGE_HEADERS[name]: value for name, value in headers.items()}
    answer = bucket.call("get_object", Key=bucket.full_key(key), **parameters)
    content_range = str(answer.get("ContentRange") or "")
    body = BoundedBody(answer["Body"], answer.get("ContentLength"), length)
    return RangeAnswer(content_range, str(answer.get("ETag") or ""), body)


def _close(answer: RangeAnswer) -> None:
    # After its end, a body has released its connection. Before, the connection is of no more use.
    with suppress(Exception):
        answer.body.close()
