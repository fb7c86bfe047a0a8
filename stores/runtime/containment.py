"""
Unexpected exceptions of a backend become the failure of the one request that raised them.

*one tree of errors*: a store raises `StoreError` and nothing else. Three things pass unchanged: what the owner of the
work raises (`interruption`), MemoryError, and exceptions that are not an `Exception`.
*bugs stay visible*: an unexpected exception is logged with its traceback.
"""

from __future__ import annotations

import logging
from types import TracebackType

from snapferry.stores.errors import StoreError, StoreFault

from .interruption import is_owners

logger = logging.getLogger(__name__)

_LONGEST = 300


class contained:  # noqa: N801 - used like a function, in a `with` statement
    """Turn unexpected exceptions inside the block into `StoreFault` for *subject* of the store *label*."""

    __slots__ = ("_label", "_subject")

    def __init__(self, label: str, subject: str = "") -> None:
        self._label = label
        self._subject = subject

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        if error is not None and is_unexpected(error):
            raise unexpected(error, self._label, self._subject) from error


def contain(error: Exception, label: str, subject: str) -> None:
    """
    Raise *error* as `contained` would, or return if it passes unchanged.

    For an ``except`` clause on a hot path, where a ``with`` block would cost a measurable part of the time.
    """
    if is_unexpected(error):
        raise unexpected(error, label, subject) from error


def is_unexpected(error: BaseException) -> bool:
    """Return whether *error* is an exception that a store must not raise."""
    return (
        isinstance(error, Exception)
        and not isinstance(error, StoreError | MemoryError)
        and not is_owners(error)
    )


def unexpected(error: BaseException, label: str, subject: str) -> StoreFault:
    """Log *error* with its traceback; return it as a `StoreFault` for *subject* of the store *label*."""
    logger.error("unexpected exception: %s: %s", label, subject, exc_info=error)
    return StoreFault(
        label, subject, f"unexpected {in_words(error)}; the log of this process has the traceback"
    )


def in_words(error: BaseException) -> str:
    """Return the class and the text of *error* on one line, cut to a length that fits a message."""
    said = " ".join(str(error).encode(errors="backslashreplace").decode().split())[:_LONGEST]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
