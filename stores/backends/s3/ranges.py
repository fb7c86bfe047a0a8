"""
How a large object comes in: in ranges, several at once, handed over in order.

*bounded*: a reader holds up to `RANGES_IN_FLIGHT` ranges of `RANGE_BYTES` bytes
and the one that it hands over.
*one object*: every range is of the object that the first one came from; one
that was replaced meanwhile is an error.
*read to the end*: a range that breaks off is asked for again, by itself.
"""

from __future__ import annotations

import math
import re
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from snapferry.stores.base import OpenReader
from snapferry.stores.errors import KeyMissing, StoreError, StoreFault, StoreUnavailable
from snapferry.stores.requests import GET, Requests

from .http.bounded_body import announced_too_long
from .http.sockets import AnswerTooLong
from .multipart import MAX_OBJECT_BYTES

if TYPE_CHECKING:
    from .backend import S3Backend

RANGE_BYTES: Final = 8 * 1024 * 1024
RANGES_IN_FLIGHT: Final = 4

# A smaller object comes in one answer. A batch holds few that are larger, so few have ranges in flight at once.
RANGED_ABOVE_BYTES: Final = RANGES_IN_FLIGHT * RANGE_BYTES

# How often a range is asked for whose answers break off. What precedes a body is tried again by boto3.
RANGE_ATTEMPTS: Final = 3

_content_range = re.compile(r"bytes (\d+)-(\d+)/(\d+)").fullmatch


def requests_to_download(size: int) -> Requests:
    """Return what reading an object of *size* bytes, announced as such, sends."""
    return Requests({GET: math.ceil(size / RANGE_BYTES) if size > RANGED_ABOVE_BYTES else 1})


def open_ranges(backend: S3Backend, key: str, size_hint: int) -> OpenReader:
    """
    Open an object that is said to be large.

    Where it has no ranges, because it is empty or because the server knows
    none, it is opened as a small one is. A server that refuses ranges is asked
    for none again. Raises as `Backend.open` does.
    """
    conduct = backend.conduct
    if not conduct.ranges:
        return backend.open(key)
    try:
        answer = _ask(backend, key, 0, RANGE_BYTES)
    except StoreFault as error:
        if _status(error) not in {416, 501}:
            raise
        # 416 is for an empty object, 501 for a server.
        conduct.ranges = _status(error) != 501
        return backend.open(key)
    try:
        with backend._errors(key):
            found = _content_range(str(answer.get("ContentRange")))
            came = int(found[2]) + 1 if found is not None else 0
            if backend._pace is not None and came < RANGE_BYTES:
                backend._pace.give_back(RANGE_BYTES - came)
            length = int(found[3]) if found is not None and found[1] == "0" else None
            if length is not None and length > MAX_OBJECT_BYTES:
                raise AnswerTooLong(announced_too_long(length))
        if length is not None:
            backend._confirm(key, length, size_hint)
    except BaseException:
        _close(answer)
        raise
    if length is None:
        _close(answer)
        return backend.open(key)
    return RangesReader(backend, key, answer, length)


class RangesReader:
    """An object of *length* bytes on its way in; *first* is the answer to the question for its first range."""

    def __init__(self, backend: S3Backend, key: str, first: Any, length: int) -> None:
        self._backend = backend
        self._key = key
        self._etag = str(first.get("ETag") or "")
        self._length = self.length = length
        self._asked = 0
        self._in_flight: deque[Future[bytes]] = deque()
        self._range = memoryview(b"")
        self._fetcher = ThreadPoolExecutor(RANGES_IN_FLIGHT, "s3-range")
        self._fetch_ahead(first)

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes, fewer only at the end. A whole range is returned without copying it."""
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
        self._fetcher.shutdown(cancel_futures=True)
        self._in_flight.clear()
        self._range = memoryview(b"")

    def _fetch_ahead(self, answer: Any = None) -> None:
        while self._asked < self._length and len(self._in_flight) < RANGES_IN_FLIGHT:
            start, stop = self._asked, min(self._asked + RANGE_BYTES, self._length)
            self._in_flight.append(self._fetcher.submit(copy_context().run, self._fetch, start, stop, answer))
            self._asked, answer = stop, None

    def _fetch(self, start: int, stop: int, answer: Any) -> bytes:
        attempt = 1
        while True:
            if answer is None:
                answer = self._ask_again(start, stop)
            try:
                return self._receive(answer, start, stop)
            except StoreUnavailable:
                if attempt == RANGE_ATTEMPTS:
                    raise
            finally:
                _close(answer)
            attempt, answer = attempt + 1, None

    def _ask_again(self, start: int, stop: int) -> Any:
        try:
            return _ask(self._backend, self._key, start, stop, self._etag)
        except StoreFault as error:
            # It is another object by now, or no longer as long as it was.
            if _status(error) not in {412, 416}:
                raise
            raise self._replaced() from error

    def _receive(self, answer: Any, start: int, stop: int) -> bytes:
        span, etag = answer.get("ContentRange"), str(answer.get("ETag") or "")
        another = etag and self._etag and etag != self._etag
        if another or span != f"bytes {start}-{stop - 1}/{self._length}":
            raise self._replaced()
        with self._backend._errors(self._key):
            # One byte more than there may be: what says that it is a range may be anything.
            received: bytes = answer["Body"].read(stop - start + 1)
        if len(received) != stop - start:
            raise StoreUnavailable(self._backend.label, self._key, "an answer is not as long as its range")
        return received

    def _replaced(self) -> StoreError:
        return StoreUnavailable(self._backend.label, self._key, "the object was replaced while it was read")


def _ask(backend: S3Backend, key: str, start: int, stop: int, etag: str = "") -> Any:
    """Ask for the bytes from *start* to before *stop*, of the object with this *etag* if there is one."""
    # A weak ETag matches no condition, by the rules of HTTP.
    condition = {"IfMatch": etag} if etag and not etag.startswith("W/") else {}
    paid = backend._pay_ahead(stop - start)
    try:
        with backend._errors(key, missing=KeyMissing):
            return backend._call(
                "get_object", Key=backend._prefix + key, Range=f"bytes={start}-{stop - 1}", **condition
            )
    except Exception:
        backend._give_back(paid)
        raise


def _status(error: StoreError) -> int:
    """Return the HTTP status that *error* was made from, 0 if it was none."""
    answer: Any = getattr(error.__cause__, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _close(answer: Any) -> None:
    # A body that was read to its end has given its connection back; any other one's is of no more use.
    with suppress(Exception):
        answer["Body"].close()
