"""The only place with late imports: a command's declaration and its body are imported when they are used."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def load(path: str) -> Any:
    """Return the object at *path*, such as ``run.copy:sync``; import its module, which is relative to this package."""
    module, _, name = path.partition(":")
    return getattr(import_module(f"{__package__}.{module}"), name)
