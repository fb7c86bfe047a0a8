"""
The rate limit of a store: the owner of the limit passes in a `RateLimiter`, and every request waits for it.

*pay first*: bytes are acquired before they move. Before an answer is requested, as many bytes are acquired as it is
expected to have, because they cannot be stopped after the request. Only bytes beyond the expectation are acquired
after they arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Final, Protocol, Self

from .runtime.interruption import mark_as_owners
from .streams import Buffer, OpenReader, Reader

# The most bytes that are acquired before an answer is requested. The rest of a longer answer is acquired while it is
# read; until then it waits in the buffers of the connection.
PREPAID_BYTES: Final = 32 * 1024 * 1024


class RateLimiter(Protocol):
    """
    The limits of one store. Several threads call it; each call returns when the limits allow what was asked for.

    A call may raise the exception with which the owner stops the work. Nothing was sent then, and the store's method
    that called lets the exception pass.
    """

    def acquire_requests(self, count: int, /) -> None:
        """Return when *count* requests may be sent."""

    def acquire_bytes(self, count: int, /) -> None:
        """Return when *count* bytes may move, in either direction."""

    def refund_bytes(self, count: int, /) -> None:
        """Take back *count* bytes that were acquired and did not move. Returns at once."""


class OwnedRateLimiter:
    """
    The rate limiter *inner*, with its exceptions marked as the owner's, so that they are not taken for faults.

    See `stores.runtime.interruption`.
    """

    def __init__(self, inner: RateLimiter) -> None:
        self._inner = inner
        self.refund_bytes = inner.refund_bytes

    def acquire_requests(self, count: int, /) -> None:
        try:
            self._inner.acquire_requests(count)
        except Exception as error:
            mark_as_owners(error)
            raise

    def acquire_bytes(self, count: int, /) -> None:
        try:
            self._inner.acquire_bytes(count)
        except Exception as error:
            mark_as_owners(error)
            raise


def settle(limiter: RateLimiter, prepaid: int, moved: int) -> None:
    """Acquire the bytes that *moved* beyond those *prepaid*, or refund those that did not move."""
    if moved > prepaid:
        limiter.acquire_bytes(moved - prepaid)
    elif moved < prepaid:
        limiter.refund_bytes(prepaid - moved)


class RateLimitedReader:
    """
    The reader *inner*, whose bytes are acquired from *limiter*. *expected* is its expected length; it may be wrong.

    *prepaid* bytes are acquired already. Bytes that did not arrive are refunded on exit.
    """

    def __init__(self, inner: OpenReader, limiter: RateLimiter, *, expected: int, prepaid: int = 0) -> None:
        self.inner = inner
        self._limiter = limiter
        self._expected = max(expected, 0)
        self._prepaid = prepaid

    @property
    def length(self) -> int | None:
        """The length that the inner reader announces, None where it announces none."""
        return getattr(self.inner, "length", None)

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes, as the inner reader does."""
        self.prepay(size)
        chunk = self.inner.read(size)
        self.note_arrival(len(chunk))
        return chunk

    def prepay(self, size: int) -> None:
        """Acquire the next *size* bytes, as far as that many are expected."""
        lacking = min(size, self._expected) - self._prepaid
        if lacking > 0:
            self._limiter.acquire_bytes(lacking)
            self._prepaid += lacking

    def note_arrival(self, length: int) -> None:
        """Note that *length* bytes arrived. Acquires those of them that were not prepaid."""
        self._expected = max(0, self._expected - length)
        unpaid = max(0, length - self._prepaid)
        self._prepaid = max(0, self._prepaid - length)
        if unpaid:
            self._limiter.acquire_bytes(unpaid)

    def let_take(
        self,
        take: Callable[[Reader, Callable[[Buffer], None]], bool],
        show: Callable[[Buffer], None],
        piece_bytes: int,
    ) -> bool:
        """
        Call *take*, as `Upload.take`, with the inner reader, which an upload of its own kind of store recognises.

        What it shows, in pieces of at most *piece_bytes*, is acquired as if it was read here.
        """

        def note_and_show(piece: Buffer) -> None:
            self.note_arrival(len(piece))
            show(piece)
            self.prepay(piece_bytes)

        self.prepay(piece_bytes)
        return take(self.inner, note_and_show)

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        if self._prepaid:
            self._limiter.refund_bytes(self._prepaid)
            self._prepaid = 0
        return self.inner.__exit__(kind, error, trace)
