"""
Interruption: how the owner of some work stops its reads, listings and waits while they run.

The owner of the work runs it inside `interruptible`, with a function that raises when the work must stop
(cancelled, paused, leaving). Whatever waits or loops below calls `checkpoint` at least every `SLICE_S` seconds:
a read that waits for a server, a page of a listing, a line of a manifest, a backoff between attempts.

The function is bound to the context (`contextvars`). A thread has a context of its own: start it with
`contextvars.copy_context().run`, or its checkpoints do nothing.

What the owner's code raises is marked (`mark_as_owners`). Code that turns every unexpected exception into a
failure of one object, or into a `StoreError`, calls `is_owners` first and lets such an exception pass unchanged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

SLICE_S: Final = 5.0
"""The longest time in seconds between two checkpoints of one wait."""

_MARK: Final = "_snapferry_raised_by_owner"

_check: ContextVar[Callable[[], None] | None] = ContextVar("interruption_check", default=None)


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """
    Let *check* be called by each `checkpoint` inside the block, from any thread that was started in this context.

    *check* returns, or raises the owner's exception for "stop". It is called often, so it must be cheap and must not
    block. Only the innermost block counts.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def checkpoint() -> None:
    """Return at once, or raise the owner's exception for "stop". Costs 0.1 us where there is no owner."""
    check = _check.get()
    if check is not None:
        try:
            check()
        except BaseException as error:
            mark_as_owners(error)
            raise


@contextmanager
def interruptible_too(check: Callable[[], None]) -> Iterator[None]:
    """As `interruptible`, but call the check of the enclosing block too, and first."""
    outer = _check.get()

    def both() -> None:
        if outer is not None:
            outer()
        check()

    with interruptible(both):
        yield


def mark_as_owners(error: BaseException) -> None:
    """Mark *error* as raised by code of the owner, not by the work itself."""
    setattr(error, _MARK, True)


def is_owners(error: BaseException) -> bool:
    """Return whether *error* was raised by code of the owner: it must reach the owner unchanged."""
    return bool(getattr(error, _MARK, False))


@contextmanager
def grace(seconds: float, out_of_time: Exception) -> Iterator[None]:
    """
    Let the block continue for *seconds* after the owner's "stop", so that it can clean up.

    After that time checkpoints inside raise *out_of_time*. Without "stop" the block has no time limit.
    """
    outer = _check.get()
    stop_at: float | None = None

    def check() -> None:
        nonlocal stop_at
        if stop_at is None and outer is not None:
            try:
                outer()
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001 - the next checkpoint outside raises it again
                stop_at = time.monotonic() + seconds
        if stop_at is not None and time.monotonic() >= stop_at:
            raise out_of_time

    token = _check.set(check if outer is not None else None)
    try:
        yield
    finally:
        _check.reset(token)
