"""
Import the libraries of a command in less time.

A command without a broker lives for less than a second, and most of it was spent importing. So nothing is imported that
a library looks for in vain, or that it would import for uses that no command has.
"""

from __future__ import annotations

import dataclasses
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, Final

from .deferred import defer_unused

# Libraries import these where they are installed: redis-py for metrics, and kombu for a format of messages, which
# nothing here turns on; billiard for one system call, which it makes without cffi as well; Celery to colour answers of
# commands that nobody gives.
NOT_NEEDED: Final = ("cffi", "opentelemetry.metrics", "pygments", "yaml")

# Methods of dataclasses that few of them ever use.
SELDOM_USED: Final = frozenset({"__delattr__", "__eq__", "__hash__", "__repr__", "__setattr__"})


@contextmanager
def quick_imports() -> Iterator[None]:
    """
    Let imports in this block collect no garbage, of which they make little, and leave out what is not needed.

    What they have imported lives as long as the process: the collector does not visit it afterwards. The block may be
    entered again.
    """
    collected = gc.isenabled()
    left_out = [name for name in NOT_NEEDED if name not in sys.modules]
    for name in left_out:
        # Importing it raises ImportError.
        sys.modules[name] = None  # type: ignore[assignment]
    defer_unused()
    gc.disable()
    try:
        with _dataclasses_of_few_methods():
            yield
    finally:
        for name in left_out:
            del sys.modules[name]
        gc.freeze()
        if collected:
            gc.enable()


@contextmanager
def _dataclasses_of_few_methods() -> Iterator[None]:
    """
    Let dataclasses that are made in this block compile the methods `SELDOM_USED` when they are first called.

    Up to Python 3.12 each method is compiled by itself: a sync compiles some 700 of them, for 130 classes. Later
    versions compile those of a class together, and have no such function to replace.
    """
    compile_method: Callable[..., Any] | None = getattr(dataclasses, "_create_fn", None)
    if compile_method is None:
        yield
        return

    def create(name: str, *source: Any, **context: Any) -> Any:
        if name not in SELDOM_USED:
            return compile_method(name, *source, **context)
        compiled = cache(partial(compile_method, name, *source, **context))

        def method(*arguments: Any) -> Any:
            return compiled()(*arguments)

        method.__name__ = name
        return method

    vars(dataclasses)["_create_fn"] = create
    try:
        yield
    finally:
        vars(dataclasses)["_create_fn"] = compile_method
