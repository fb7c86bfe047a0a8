"""The only place with late imports: a command's declaration and its body are imported when they are used."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import import_module
from typing import Any


def load(path: str, *, quickly: bool = False) -> Any:
    """
    Return the object at *path*, such as ``run.copy:sync``; import its module, which is relative to this package.

    *quickly* imports libraries by `snapferry.orchestrator.quick_imports`.
    """
    module, _, name = path.partition(":")
    with _quick_imports() if quickly else nullcontext():
        imported = import_module(f"{__package__}.{module}")
    return getattr(imported, name)


def installed_version() -> str:
    """Return the version of snapferry that is installed."""
    version: str = import_module("importlib.metadata").version("snapferry")
    return version


def _quick_imports() -> Any:
    return import_module("snapferry.orchestrator.quick_imports").quick_imports()
