"""
How fast a store may be asked: whoever knows the limits hands a `Pace` in, and everything sent waits for it.

*paid ahead*: what moves was granted before it moves. Of an answer as many bytes are paid for as it is expected to
have before it is asked for: once asked for, they are on their way. Only what comes beyond the expectation is paid
for after it came.
"""

from __future__ import annotations

from types import TracebackType
from typing import Final, Protocol, Self

from .base import OpenReader
from .runtime.interruption import mark_as_owners

# The most that is paid for before an answer is asked for; of a longer one the rest is paid for as it is read. No answer
# is meant to be longer: of what is not paid for, the buffers on the way take some all the same.
PREPAID_BYTES: Final = 32 * 1024 * 1024


class Pace(Protocol):
    """
    What one store may be asked for. Called from several threads; each call returns when its time has come.

    A call may raise what its owner has for "stop": nothing was sent then, and the store's caller passes it on.
    """

    def requests(self, count: int, /) -> None:
        """Return when *count* requests may be sent."""

    def bytes(self, count: int, /) -> None:
        """Return when *count* bytes may move, either way."""

    def give_back(self, count: int, /) -> None:
        """Take back *count* bytes that were granted and did not move. Returns at once."""


class MarkedPace:
    """The pace *inner*. What its calls raise is marked as the owner's: it is no fault of a store."""

    def __init__(self, inner: Pace) -> None:
        self._inner = inner
        self.give_back = inner.give_back

    def requests(self, count: int, /) -> None:
        try:
            self._inner.requests(count)
        except Exception as error:
            mark_as_owners(error)
            raise

    def bytes(self, count: int, /) -> None:
        try:
            self._inner.bytes(count)
        except Exception as error:
            mark_as_owners(error)
            raise


def settle(pace: Pace, paid: int, came: int) -> None:
    """Pay for what came and was not paid for, or give back what was paid for and did not come; in bytes."""
    if came > paid:
        pace.bytes(came - paid)
    elif came < paid:
        pace.give_back(paid - came)


class PacedReader:
    """
    A reader whose bytes are granted by *pace*. *expected* is how many there should be, in all; it may be wrong.

    *paid* of them are paid for already; what did not come is given back on exit.
    """

    def __init__(self, inner: OpenReader, pace: Pace, *, expected: int, paid: int = 0) -> None:
        self.inner = inner
        self._pace = pace
        self._expected = max(expected, 0)
        self._paid = paid

    @property
    def length(self) -> int | None:
        """The length that the reader inside announces, None where it announces none."""
        return getattr(self.inner, "length", None)

    def read(self, size: int, /) -> bytes:
        """Return the next *size* bytes, as the reader inside does."""
        self.pay_ahead(size)
        chunk = self.inner.read(size)
        self.came(len(chunk))
        return chunk

    def pay_ahead(self, size: int) -> None:
        """Pay for the next *size* bytes, as far as so many are expected."""
        lacking = min(size, self._expected) - self._paid
        if lacking > 0:
            self._pace.bytes(lacking)
            self._paid += lacking

    def came(self, length: int) -> None:
        """Note that *length* bytes came; pay for those that were not paid for."""
        self._expected = max(0, self._expected - length)
        unpaid = max(0, length - self._paid)
        self._paid = max(0, self._paid - length)
        if unpaid:
            self._pace.bytes(unpaid)

    def __enter__(self) -> Self:
        self.inner.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None:
        if self._paid:
            self._pace.give_back(self._paid)
            self._paid = 0
        return self.inner.__exit__(kind, error, trace)
