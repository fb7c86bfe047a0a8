"""
Count requests attempt by attempt, for each backend that uses a shared client of boto3.

boto3 announces every attempt, retries and redirects included, in the thread that makes the call. A call inside
`RequestCounter.counting` is counted there.

At the same place boto3 accepts an outcome in place of sending the attempt: the outcome of a request that was sent
without boto3 (`first_attempt`), or none at all (`signed_request`). And a body can be changed after it was signed
(`corrupted`).
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from botocore.awsrequest import AWSResponse
from urllib3 import HTTPResponse

from snapferry.stores.backends.s3.direct_path import Response
from snapferry.stores.rate_limiter import RateLimiter
from snapferry.stores.requests import Requests

from .errors import CarriedError, checkpoint_through_boto
from .pace import Pace


class _Call(threading.local):
    """The call that this thread makes."""

    counter: RequestCounter | None = None
    limiter: RateLimiter | None = None
    pace: Pace | None = None
    granted = False
    """The rate limiter has granted the next attempt already."""
    began = 0.0
    first: Callable[[Any], AWSResponse] | None = None
    body: bytes | None = None


_call = _Call()


class RequestCounter:
    """Counts the requests that are sent and passes them through *limiter* if set. Safe to share between threads."""

    def __init__(self) -> None:
        self._sent = Requests()
        self._lock = threading.Lock()
        self.limiter: RateLimiter | None = None

    @contextmanager
    def counting(self, pace: Pace, body_bytes: int = 0, *, rate_limited: bool = True) -> Iterator[None]:
        """
        Count what boto3 sends in the block from this thread: a request with a body of *body_bytes* bytes.

        Waits for the rate limiter first if *rate_limited*, and before each attempt for *pace*.
        """
        limiter = self.limiter if rate_limited else None
        # Wait before the request is signed, because a signature expires after some minutes. An attempt that was sent
        # on the direct path has waited already.
        granted = limiter is not None and _call.first is None
        if granted:
            _wait_for(limiter, body_bytes)
        before, _call.counter = _call.counter, self
        _call.limiter, _call.granted, _call.began = limiter, granted, time.monotonic()
        _call.pace = pace if rate_limited else None
        try:
            yield
        finally:
            _call.counter = before
            _call.limiter, _call.pace, _call.granted = None, None, False

    def wait(self, body_bytes: int = 0) -> None:
        """Wait until a request with a body of *body_bytes* bytes may be sent."""
        _wait_for(self.limiter, body_bytes)

    def add(self, operation: str, count: int = 1) -> None:
        """Count *count* requests."""
        with self._lock:
            self._sent[operation] += count

    def sent(self) -> Requests:
        """Return a copy of the counts."""
        with self._lock:
            return self._sent.copy()


def note_outcome(*, throttled: bool) -> None:
    """Note how the attempt of this thread's call ended. *throttled*: the server asked to slow down."""
    pace = _call.pace
    if pace is None:
        return
    if throttled:
        pace.told_to_slow_down()
    else:
        pace.answered()


def seconds_of_call() -> float:
    """Return the seconds since this thread began the call that is counted."""
    return time.monotonic() - _call.began


def _wait_for(limiter: RateLimiter | None, body_bytes: int) -> None:
    if limiter is not None:
        limiter.acquire_requests(1)
        if body_bytes:
            limiter.acquire_bytes(body_bytes)


def before_attempt(event_name: str, request: Any, **_: object) -> AWSResponse | None:
    """
    Handle boto3's event ``before-send.s3.<operation>``, which announces an attempt.

    boto3 takes what this returns or raises as the outcome of the attempt, and sends nothing. None: boto3 sends it.
    """
    first, _call.first = _call.first, None
    if first is not None:
        return first(request)
    checkpoint_through_boto()
    if _call.counter is not None:
        granted, _call.granted = _call.granted, False
        if not granted and _call.limiter is not None:
            try:
                _wait_for(_call.limiter, int(request.headers.get("Content-Length") or 0))
            except Exception as error:
                raise CarriedError(error) from error
        if _call.pace is not None:
            _call.pace.wait(checkpoint_through_boto)
        _call.counter.add(event_name.rpartition(".")[2])
    if _call.body is not None:
        request.body = _call.body
    return None


@contextmanager
def corrupted(body: bytes) -> Iterator[None]:
    """
    Let the calls of this thread in the block send *body* in place of their own body, which has the same length.

    Digests, checksums and the signature are those of the original body, as if the network had changed it.
    """
    _call.body = body
    try:
        yield
    finally:
        _call.body = None


@contextmanager
def first_attempt(outcome: Response | Exception) -> Iterator[None]:
    """
    Let the next call of this thread in the block take *outcome* as the outcome of its first attempt.

    That attempt is not counted. For a failure, or an answer that is not a success, boto3 does what it does after any
    first attempt: it follows a redirect, waits and retries, or raises.
    """

    def first(request: Any) -> AWSResponse:
        if isinstance(outcome, Exception):
            raise outcome
        # With the method, because the answer to a HEAD announces a length and has no body.
        body = HTTPResponse(
            io.BytesIO(outcome.body),
            outcome.headers,
            outcome.status,
            preload_content=False,
            request_method=request.method,
        )
        return AWSResponse(request.url, outcome.status, outcome.headers, body)

    _call.first = first
    try:
        yield
    finally:
        _call.first = None


class _Prepared(Exception):
    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


def signed_request(call: Callable[..., Any], **parameters: object) -> Any:
    """Return the signed request that *call*, a method of a client, would send first. Nothing is sent or counted."""

    def first(request: Any) -> AWSResponse:
        raise _Prepared(request)

    _call.first = first
    try:
        call(**parameters)
    except _Prepared as prepared:
        return prepared.request
    finally:
        _call.first = None
    raise AssertionError("boto3 sends a request without announcing it")
