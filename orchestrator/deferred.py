"""
Modules that are executed at their first use, not when they are imported.

Libraries import modules that commands hardly ever use. A `Deferred` module replaces such a module before the library is
imported.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from os import register_at_fork
from threading import RLock
from types import ModuleType
from typing import Any, Final

_METADATA: Final = "importlib.metadata"
_DATES: Final = "dateutil.parser"

# redis-py imports its client for asyncio, and one function from below it. Celery imports the rules of time zones for
# periodic tasks. Commands import the reader of snapferry.toml whether there is one or not.
_UNUSED: Final = ("redis.asyncio", "dateutil.tz", "tomllib")

# pydantic, kombu and Celery look up these groups when they are imported or when an app is made. No command uses another
# format of messages or another result backend.
_GROUPS_LEFT_OUT: Final = frozenset(
    {"celery.result_backends", "kombu.matchers", "kombu.serializers", "pydantic"}
)


class Deferred(ModuleType):
    """
    A module that is executed when an attribute is read that it does not have yet. Importing a module below it does not
    execute it.

    `defer` makes it.
    """

    def __getattr__(self, name: str) -> Any:
        below = f"{self.__name__}.{name}"
        # A module below may read its neighbour while it is imported itself. Executing the package would be a circle.
        if (path := vars(self).get("__path__")) and PathFinder.find_spec(below, path) is not None:
            return import_module(below)
        execute(self)
        # The module may have a function `__getattr__` itself.
        return ModuleType.__getattribute__(self, name)


def execute(module: ModuleType) -> None:
    """Execute a deferred *module* unless that was done. What it raises, it raises again the next time."""
    if type(module) is not Deferred:
        return
    # Another thread waits until it is whole. This one may come here again while it executes it.
    with _lock:
        spec = module.__spec__
        if type(module) is not Deferred or spec is None or spec.loader is None or module in _executing:
            return
        _executing.append(module)
        try:
            spec.loader.exec_module(module)
            module.__class__ = ModuleType  # type: ignore[assignment]
        finally:
            _executing.remove(module)


_lock = RLock()
_executing: Final[list[ModuleType]] = []


def _after_fork() -> None:
    """Forget what another thread was executing: only the thread that forked lives on in this process."""
    global _lock
    if _lock.acquire(blocking=False):
        _lock.release()
    else:
        _lock = RLock()
        _executing.clear()


register_at_fork(after_in_child=_after_fork)


def defer_unused() -> None:
    """
    Let the modules that no command uses be deferred, unless they are imported already. May be called again.

    Call it before the libraries are imported that import them.
    """
    defer(_METADATA, {"entry_points": _entry_points, "version": _version})
    # Celery reads the times of tasks that expire by it.
    defer(_DATES, {"isoparse": partial(_call, _DATES, "isoparse")})
    for name in _UNUSED:
        defer(name)


def defer(name: str, known: Mapping[str, Callable[..., Any]] | None = None) -> None:
    """
    Let the module *name* be deferred, unless it is imported already or not installed.

    It has the functions *known* until it is executed.
    """
    if name in sys.modules or (spec := _found(name)) is None:
        return
    module = module_from_spec(spec)
    module.__class__ = Deferred
    vars(module).update(known or {})
    sys.modules[name] = module
    above, _, own = name.rpartition(".")
    if above in sys.modules:
        # As the import system does after it has executed a module.
        setattr(sys.modules[above], own, module)


def _found(name: str) -> ModuleSpec | None:
    """Return the spec of a module. None if it is not installed. Imports nothing."""
    path: Any = None
    spec: ModuleSpec | None = None
    at = ""
    for part in name.split("."):
        at = f"{at}.{part}" if at else part
        spec = PathFinder.find_spec(at, path)
        if spec is None:
            return None
        path = spec.submodule_search_locations
    return spec


def _entry_points(**chosen: Any) -> Any:
    """Do as `importlib.metadata.entry_points`, but find nothing in groups that no command needs."""
    return () if chosen.get("group") in _GROUPS_LEFT_OUT else _call(_METADATA, "entry_points", **chosen)


def _version(name: str, /) -> Any:
    """Do as `importlib.metadata.version`. A package that is imported and tells its version is not searched for."""
    # Not by getattr: some packages, such as click, call this function when their version is read.
    told = getattr(sys.modules.get(name), "__dict__", {}).get("__version__")
    return told if isinstance(told, str) else _call(_METADATA, "version", name)


def _call(module: str, function: str, /, *arguments: Any, **named: Any) -> Any:
    """Call a function that a deferred module has when it is executed."""
    execute(sys.modules[module])
    return getattr(sys.modules[module], function)(*arguments, **named)
