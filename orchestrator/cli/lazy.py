"""The only place with late imports: a command's declaration and its body are imported when they are used."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Final

# redis-py imports it where it is installed, for metrics that nothing here turns on: a tenth of a command's start.
_NOT_USED: Final = "opentelemetry.sdk.metrics"


def load(path: str) -> Any:
    """Return the object at *path*, such as ``run.copy:sync``; import its module, which is relative to this package."""
    module, _, name = path.partition(":")
    with _quick_imports():
        imported = import_module(f"{__package__}.{module}")
    return getattr(imported, name)


@contextmanager
def _quick_imports() -> Iterator[None]:
    """Collect no garbage, of which imports make little, and leave out a library that is not used."""
    collected = gc.isenabled()
    left_out = _NOT_USED not in sys.modules
    if left_out:
        # Importing it raises ImportError.
        sys.modules[_NOT_USED] = None  # type: ignore[assignment]
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()
        if left_out:
            del sys.modules[_NOT_USED]
