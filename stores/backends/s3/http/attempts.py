"""
How many requests go out, attempt by attempt, for each backend on a shared client.

boto3 announces every attempt in the thread that makes the call, retries and
redirects as well. A call that a counter surrounds has its attempts counted there.

At the same place boto3 can be told what became of an attempt, in place of
making it: one that was made without it (`already_made`), or none at all
(`rehearse`). And a body can be altered behind its back (`altered`).
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

from snapferry.stores.backends.s3.direct.http1 import Full
from snapferry.stores.rate_limiter import Pace
from snapferry.stores.requests import Requests

from .sockets import Passing, check_passing


class _Call(threading.local):
    counter: SentCounter | None = None
    pace: Pace | None = None
    paid = False
    began = 0.0
    first: Callable[[Any], AWSResponse] | None = None
    body: bytes | None = None


_call = _Call()


class SentCounter:
    """Counts what is sent inside of `counting`, at a *pace* if there is one. Safe to share between threads."""

    def __init__(self) -> None:
        self._sent = Requests()
        self._lock = threading.Lock()
        self.pace: Pace | None = None

    @contextmanager
    def counting(self, body_bytes: int = 0, *, at_pace: bool = True) -> Iterator[None]:
        """
        Count here what this thread sends in the block, which is a request with a body of so many bytes.

        It waits for its time, unless it is not *at_pace*.
        """
        pace = self.pace if at_pace else None
        # Before it is signed: a signature is good for minutes only. Not for an attempt that was made already.
        paid = pace is not None and _call.first is None
        if paid:
            _pay(pace, body_bytes)
        before, _call.counter = _call.counter, self
        _call.pace, _call.paid, _call.began = pace, paid, time.monotonic()
        try:
            yield
        finally:
            _call.counter = before
            _call.pace, _call.paid = None, False

    def pay(self, body_bytes: int = 0) -> None:
        """Return when a request with a body of so many bytes may be sent."""
        _pay(self.pace, body_bytes)

    def add(self, operation: str) -> None:
        """Count one request."""
        with self._lock:
            self._sent[operation] += 1

    def sent(self) -> Requests:
        """Return what was counted so far, a copy."""
        with self._lock:
            return self._sent.copy()


def seconds_of_call() -> float:
    """Return the seconds since this thread began the call that is being counted."""
    return time.monotonic() - _call.began


def _pay(pace: Pace | None, body_bytes: int) -> None:
    if pace is not None:
        pace.requests(1)
        if body_bytes:
            pace.bytes(body_bytes)


def before_attempt(event_name: str, request: Any, **_: object) -> AWSResponse | None:
    """
    Take note of an attempt: boto3 calls this with ``before-send.s3.<operation>`` for each.

    What is returned, or raised, is for boto3 the end of the attempt, and nothing is sent.
    """
    first, _call.first = _call.first, None
    if first is not None:
        return first(request)
    check_passing()
    if _call.counter is not None:
        paid, _call.paid = _call.paid, False
        if not paid and _call.pace is not None:
            try:
                _pay(_call.pace, int(request.headers.get("Content-Length") or 0))
            except Exception as error:
                raise Passing(error) from error
        _call.counter.add(event_name.rpartition(".")[2])
    if _call.body is not None:
        request.body = _call.body
    return None


@contextmanager
def altered(body: bytes) -> Iterator[None]:
    """
    Let the calls of this thread in the block send *body* in place of their own, which is as long.

    Everything else of the request is as if it had been altered on the way: digests, checksums, the signature.
    """
    _call.body = body
    try:
        yield
    finally:
        _call.body = None


@contextmanager
def already_made(outcome: Full | Exception) -> Iterator[None]:
    """
    Let the next call of this thread in the block take *outcome* for that of its first attempt.

    It is not counted. With a failure or an answer that is not success, boto3
    does what it does after any first attempt: it follows, waits, asks again or raises.
    """

    def first(request: Any) -> AWSResponse:
        if isinstance(outcome, Exception):
            raise outcome
        # To a HEAD a length is announced of what does not come.
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


class _Rehearsed(Exception):
    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


def rehearse(call: Callable[..., Any], **parameters: object) -> Any:
    """Return the signed request with which *call* of a client would begin. It is not sent, and not counted."""

    def first(request: Any) -> AWSResponse:
        raise _Rehearsed(request)

    _call.first = first
    try:
        call(**parameters)
    except _Rehearsed as rehearsed:
        return rehearsed.request
    finally:
        _call.first = None
    raise AssertionError("boto3 sends a request without saying so")
