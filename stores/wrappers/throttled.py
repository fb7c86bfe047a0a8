"""
A wrapper that applies a rate limiter to a backend that has none of its own.

One request is: an object or a manifest that is opened, written, deleted or asked for, or a thousand keys listed. A
clone (`Upload.take`) counts as many bytes as a copy, because all of them are read to be verified.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from snapferry.stores.backend import Backend, Listed
from snapferry.stores.features import Throttled, feature_of
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.rate_limiter import OwnedRateLimiter, RateLimitedReader, RateLimiter
from snapferry.stores.streams import Buffer, OpenReader, Reader, Upload

from .forwarding import ForwardingBackend

KEYS_IN_A_REQUEST: Final = 1000


def throttled(backend: Backend, limiter: RateLimiter) -> Backend:
    """Return *backend* limited by *limiter*: itself if it is `Throttled`, else a `ThrottledBackend` around it."""
    own = feature_of(backend, Throttled)
    if own is None:
        return ThrottledBackend(backend, limiter)
    own.limit_rate(limiter)
    return backend


def acquire_part(backend: Backend, size_bytes: int) -> None:
    """
    Return when *backend* may read or write a part of that many bytes by a feature of a backend that it wraps.

    A backend that keeps to its limits by itself waits for them in the feature.
    """
    at: Backend | None = backend
    while at is not None:
        if isinstance(at, ThrottledBackend):
            at.acquire_part(size_bytes)
        at = at.inner


class ThrottledBackend(ForwardingBackend, Throttled):
    """The backend *inner*, limited by *limiter*."""

    def __init__(self, inner: Backend, limiter: RateLimiter) -> None:
        super().__init__(inner)
        self._limiter: RateLimiter = OwnedRateLimiter(limiter)

    def limit_rate(self, limiter: RateLimiter) -> None:
        self._limiter = OwnedRateLimiter(limiter)

    def acquire_part(self, size_bytes: int) -> None:
        """Return when one request may be sent and that many bytes may move."""
        self._limiter.acquire_requests(1)
        self._limiter.acquire_bytes(size_bytes)

    def size(self, key: str) -> int | None:
        self._limiter.acquire_requests(1)
        return self.inner.size(key)

    def sizes(self, keys: Sequence[str]) -> list[int | None]:
        if keys:
            self._limiter.acquire_requests(len(keys))
        return self.inner.sizes(keys)

    def open(self, key: str, *, size_hint: int = 0) -> OpenReader:
        self._limiter.acquire_requests(1)
        return RateLimitedReader(self.inner.open(key, size_hint=size_hint), self._limiter, expected=size_hint)

    def fetch(self, key: str, size_hint: int) -> bytes | None:
        if size_hint > CHUNK_BYTES:
            return None
        prepaid = max(size_hint, 0)
        self._limiter.acquire_bytes(prepaid)
        moved = 0
        try:
            data = self.inner.fetch(key, size_hint)
            moved = len(data or b"")
        finally:
            if moved < prepaid:
                self._limiter.refund_bytes(prepaid - moved)
        if data is None:
            return None
        # Only now is it known that this was a request: a backend without `fetch` asked for nothing.
        self._limiter.acquire_requests(1)
        if moved > prepaid:
            self._limiter.acquire_bytes(moved - prepaid)
        return data

    def write(self, key: str, data: bytes) -> None:
        self._limiter.acquire_requests(1)
        self._limiter.acquire_bytes(len(data))
        self.inner.write(key, data)

    def upload(self, key: str, size_hint: int) -> Upload:
        self._limiter.acquire_requests(1)
        return _ThrottledUpload(self.inner.upload(key, size_hint), self._limiter)

    def commit_all(self, uploads: Sequence[Upload]) -> None:
        # Uploads that began before the limit was set are not wrapped.
        self.inner.commit_all([one.inner if isinstance(one, _ThrottledUpload) else one for one in uploads])

    def keys(self, prefix: str, start_after: str = "") -> Iterator[Listed]:
        self._limiter.acquire_requests(1)
        for number, listed in enumerate(self.inner.keys(prefix, start_after)):
            if number and number % KEYS_IN_A_REQUEST == 0:
                self._limiter.acquire_requests(1)
            yield listed

    def delete(self, key: str) -> None:
        self._limiter.acquire_requests(1)
        self.inner.delete(key)


class _ThrottledUpload(Upload):
    def __init__(self, inner: Upload, limiter: RateLimiter) -> None:
        self.inner = inner
        self._limiter = limiter

    def write(self, chunk: bytes) -> None:
        self._limiter.acquire_bytes(len(chunk))
        self.inner.write(chunk)

    def take(self, reader: Reader, show: Callable[[Buffer], None]) -> bool:
        def acquire_and_show(piece: Buffer) -> None:
            self._limiter.acquire_bytes(len(piece))
            show(piece)

        if isinstance(reader, RateLimitedReader):
            return reader.let_take(self.inner.take, acquire_and_show, CHUNK_BYTES)
        return self.inner.take(reader, acquire_and_show)

    def finish(self) -> None:
        self.inner.finish()

    def only_over(self, version: str) -> None:
        self.inner.only_over(version)

    def commit(self) -> None:
        self.inner.commit()

    def abort(self) -> None:
        self.inner.abort()
