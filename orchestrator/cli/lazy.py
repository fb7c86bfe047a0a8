"""The only place with late imports: a command's declaration and its body are imported when they are used."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

# Libraries import these where they are installed: redis-py for metrics that nothing here turns on, billiard for one
# system call, which it makes without cffi as well. Both take a tenth of a command's start.
_NOT_NEEDED: Final = ("opentelemetry.sdk.metrics", "cffi")


def load(path: str) -> Any:
    """Return the object at *path*, such as ``run.copy:sync``; import its module, which is relative to this package."""
    module, _, name = path.partition(":")
    with _quick_imports():
        imported = import_module(f"{__package__}.{module}")
    return getattr(imported, name)


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Collect no garbage, of which imports make little, and leave out libraries that are not needed."""
    collected = gc.isenabled()
    left_out = [name for name in _NOT_NEEDED if name not in sys.modules]
    for name in left_out:
        # Importing it raises ImportError.
        sys.modules[name] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
        for name in left_out:
            del sys.modules[name]
