"""
Interruption: how the owner of some work stops its reads, listings and waits while they run.

The owner of the work runs it inside `interruptible`, with a function that raises when the work must stop
(cancelled, paused, leaving). Whatever waits or loops below calls `checkpoint` at least every `SLICE_S` seconds:
a read that waits for a server, a page of a listing, a line of a manifest, a backoff between attempts.

The function is bound to the context (`contextvars`). A thread has a context of its own: start it with
`contextvars.copy_context().run`, or its checkpoints do nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

SLICE_S: Final = 5.0
"""The longest time in seconds between two checkpoints of one wait."""

_check: ContextVar[Callable[[], None] | None] = ContextVar("interruption_check", default=None)


@contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """
    Let *check* be called by each `checkpoint` inside the block, from any thread that was started in this context.

    *check* returns, or raises whatever its owner has for "stop". It is called often: it must be cheap and must not
    block. The innermost block counts.
    """
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


def checkpoint() -> None:
    """Return at once, or raise what the owner of this work raises for "stop". Costs 0.1 us where nobody owns it."""
    check = _check.get()
    if check is not None:
        check()
