"""The services of docker-compose.yml as a container sees them: their commands and environments, without Docker."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parents[1] / "docker-compose.yml"

# What compose replaces in a text: $$, ${NAME}, and with a default, or a complaint where there is no value.
VARIABLE = re.compile(r"\$\$|\$\{(?P<name>\w+)(?::(?P<how>[-?])(?P<text>[^}]*))?\}")


class Missing(Exception):
    """A variable that must be set is not; the message is the one of the file."""


def document() -> dict[str, Any]:
    """Return the file, with its anchors resolved and its variables as they stand."""
    found: dict[str, Any] = yaml.safe_load(FILE.read_text())
    return found


def interpolated(text: str, given: Mapping[str, str]) -> str:
    """Return *text* with its variables replaced by what is *given*. Raises `Missing`."""

    def value(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        if found := given.get(match["name"]):
            return found
        if match["how"] == "?":
            raise Missing(match["text"])
        return match["text"] or ""

    return VARIABLE.sub(value, text)


def entry_point() -> list[str]:
    """Return what a container of our image runs, before the arguments that it is given."""
    lines = FILE.with_name("Dockerfile").read_text().splitlines()
    (found,) = [line.removeprefix("ENTRYPOINT ") for line in lines if line.startswith("ENTRYPOINT ")]
    words: list[str] = json.loads(found)
    return words


class Service:
    """One service; *given* is the environment in which `docker compose` would be called."""

    def __init__(self, name: str, given: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.settings: dict[str, Any] = document()["services"][name]
        self._given = given or {}

    def command(self, inside: Mapping[str, str]) -> list[str]:
        """Return what it runs, as a command of this machine: what is *inside* of a container becomes what is here."""
        own = entry_point() if self.settings["image"] == "snapferry" else []
        return self._native([*self.settings.get("entrypoint", own), *self.settings["command"]], inside)

    def check(self, inside: Mapping[str, str]) -> list[str]:
        """Return its health check, in the same way."""
        how, *command = self.settings["healthcheck"]["test"]
        assert how in ("CMD", "CMD-SHELL")
        return self._native(["sh", "-c", *command] if how == "CMD-SHELL" else command, inside)

    def environment(self, inside: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return its environment, without the variables that it would pass on and that are not *given*."""
        stated = self.settings.get("environment", {})
        values = {
            name: self._given.get(name) if value is None else str(value) for name, value in stated.items()
        }
        found = {
            name: interpolated(value, self._given) for name, value in values.items() if value is not None
        }
        return dict(zip(found, replaced(list(found.values()), inside or {}), strict=True))

    def _native(self, command: Sequence[str], inside: Mapping[str, str]) -> list[str]:
        program, *arguments = replaced([interpolated(part, self._given) for part in command], inside)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        found = shutil.which(program, path=path)
        assert found, f"{program} is not installed"
        return [found, *arguments]


def replaced(texts: list[str], inside: Mapping[str, str]) -> list[str]:
    """Return *texts* with each key of *inside* replaced by its value. All keys must be there."""
    for what in inside:
        assert any(what in text for text in texts), f"{what} is not in {texts}"
    if not inside:
        return texts
    # In one go: what is put in is left alone. The longest first, of which another may be the beginning.
    known = re.compile("|".join(map(re.escape, sorted(inside, key=len, reverse=True))))
    return [known.sub(lambda match: inside[match[0]], text) for text in texts]
