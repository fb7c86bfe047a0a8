"""
Lua scripts, each of which Redis runs as one atomic step.

A script is a file ``lua/<name>.lua`` in the package that uses it. Its header names the keys, the arguments, the result,
and why the step must be atomic. A script that calls functions of a library names it in its header, as in
``-- Uses: lib_now``. The text of ``lua/lib_now.lua`` then comes before the text of the script.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NewType

import redis

RedisKey = NewType("RedisKey", str)
"""The name of a key in Redis."""

_uses: Final = re.compile(r"^-- Uses: (.+)$", re.MULTILINE).search


# Scripts are equal only to themselves, so that they are cheap to look up.
@dataclass(frozen=True, eq=False)
class LuaScript:
    """The *text* of a script and of the libraries that it uses, and where its file is."""

    package: str
    name: str
    text: str = field(repr=False)

    @classmethod
    def load(cls, package: str, name: str) -> LuaScript:
        """Return the script ``lua/<name>.lua`` of *package*. Raises OSError if a file is missing."""
        text = _read(package, name)
        # A library that two others use comes once, before both.
        libraries = dict.fromkeys(_libraries(package, text))
        return cls(package, name, "".join((*libraries, text)))


def _libraries(package: str, text: str) -> Iterator[str]:
    """Yield the texts of the libraries that *text* uses, each after those that it uses itself."""
    if found := _uses(text):
        for name in found[1].split(", "):
            library = _read(package, name)
            yield from _libraries(package, library)
            yield library


def _read(package: str, name: str) -> str:
    """Return the text of ``lua/<name>.lua``, also of a package in a zip file."""
    # `importlib.resources` takes longer to import than all scripts to read.
    module: Any = sys.modules[package]
    text: bytes = module.__spec__.loader.get_data(f"{module.__path__[0]}/lua/{name}.lua")
    return text.decode()


class ScriptRunner:
    """Runs scripts on the Redis server of *client*, which keeps them by their hashes."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._registered: dict[LuaScript, Any] = {}

    def run(self, script: LuaScript, keys: Sequence[RedisKey], arguments: Sequence[str | float]) -> Any:
        """Run *script* and return its result. Raises `redis.exceptions.RedisError`; the script may then have run."""
        registered = self._registered.get(script)
        if registered is None:
            registered = self._registered[script] = self._client.register_script(script.text)
        return registered(keys=keys, args=arguments)
