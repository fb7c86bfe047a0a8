"""
How many requests go out, attempt by attempt, for each backend on a shared client.

boto3 announces every attempt in the thread that makes the call, retries and
redirects as well. A call that a counter surrounds has its attempts counted there.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..requests import Requests


class _Call(threading.local):
    counter: SentCounter | None = None


_call = _Call()


class SentCounter:
    """Counts what is sent inside of `counting`. Safe to share between threads."""

    def __init__(self) -> None:
        self._sent = Requests()
        self._lock = threading.Lock()

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count here what this thread sends in the block."""
        before, _call.counter = _call.counter, self
        try:
            yield
        finally:
            _call.counter = before

    def add(self, operation: str) -> None:
        """Count one request."""
        with self._lock:
            self._sent[operation] += 1

    def sent(self) -> Requests:
        """Return what was counted so far, a copy."""
        with self._lock:
            return self._sent.copy()


def count_attempt(event_name: str, **_: object) -> None:
    """Take note of an attempt: boto3 calls this with ``before-send.s3.<operation>`` for each."""
    if _call.counter is not None:
        _call.counter.add(event_name.rpartition(".")[2])
