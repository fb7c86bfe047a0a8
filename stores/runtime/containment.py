"""
The last line of `stores`: an exception that nobody thought of becomes the failure of what was asked for.

*one tree*: nothing but `StoreError` leaves a store, whatever backend stands below. What passes unchanged is what
the owner of the work raises (`snapferry.stores.runtime.interruption`), a lack of memory, and what is no `Exception`.
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
    Raise *error* as `contained` would, or return where it passes unchanged.

    For an ``except`` clause on a path so hot that a ``with`` block costs a measurable part of it.
    """
    if is_unexpected(error):
        raise unexpected(error, label, subject) from error


def is_unexpected(error: BaseException) -> bool:
    """Return whether *error* is one that a store must not raise and that nobody above it waits for."""
    return (
        isinstance(error, Exception)
        and not isinstance(error, StoreError | MemoryError)
        and not is_owners(error)
    )


def unexpected(error: BaseException, label: str, subject: str) -> StoreFault:
    """Log *error* with its traceback; return the failure that it is for *subject* of the store *label*."""
    logger.error("unexpected exception: %s: %s", label, subject, exc_info=error)
    return StoreFault(
        label, subject, f"unexpected {in_words(error)}; the log of this process has the traceback"
    )


def in_words(error: BaseException) -> str:
    """Return the class and the text of *error* on one line, cut to a length that fits a message."""
    said = " ".join(str(error).encode(errors="backslashreplace").decode().split())[:_LONGEST]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
