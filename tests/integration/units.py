"""Units of systemd, read and started without systemd: what it does with the lines that are used here, and no more."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .processes import REPOSITORY

FOLDER = REPOSITORY / "deploy/systemd"

SECONDS = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}


@dataclass
class Unit:
    """A unit with its drop-ins. *instance* is what stands behind its @, *places* are specifiers such as %S."""

    file: Path
    instance: str = ""
    places: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read the unit, then the drop-ins for the beginnings of its name, the shortest last."""
        self._lines: dict[tuple[str, str], list[str]] = defaultdict(list)
        self.name = self.file.name.replace("@.", f"@{self.instance}.")
        self._read(self.file)
        beginnings = [self.file.name[: found.end()] for found in re.finditer("-", self.file.name)]
        for beginning in reversed(beginnings):
            for more in sorted((self.file.parent / f"{beginning}.service.d").glob("*.conf")):
                self._read(more)

    def _read(self, file: Path) -> None:
        section = ""
        for line in file.read_text().splitlines():
            if not line.strip() or line.startswith("#"):
                continue
            if line.startswith("["):
                section = line.strip("[]")
                continue
            key, separator, value = line.partition("=")
            assert section, f"{file}: before any section: {line}"
            assert separator, f"{file}: no setting: {line}"
            assert not value.endswith("\\"), f"{file}: lines that go on are not read here"
            lines = self._lines[section, key]
            # An empty value takes back what was said before.
            lines[:] = [*lines, value] if value else []

    def settings(self) -> list[tuple[str, str]]:
        """Return the settings that the unit has: section and key."""
        return list(self._lines)

    def sections(self) -> set[str]:
        return {section for section, _ in self._lines}

    def said(self, key: str, section: str = "Service") -> list[str]:
        """Return all values of *key*, an empty list being what it was set to, too. Raises KeyError."""
        return [self._specified(value) for value in {**self._lines}[section, key]]

    def one(self, key: str, section: str = "Service") -> str:
        """Return the value of *key*: the last."""
        return self.said(key, section)[-1]

    def has(self, key: str, section: str = "Service") -> bool:
        return bool(self._lines.get((section, key)))

    def seconds(self, key: str) -> float:
        """Return the value of *key*, a time."""
        found = re.fullmatch(r"(\d+) *([a-z]*)", self.one(key))
        assert found, self.one(key)
        return float(found[1]) * SECONDS[found[2]]

    def _specified(self, value: str) -> str:
        stem = self.name.removesuffix(".service")
        known = {"%": "%", "i": self.instance, "N": stem, **self.places}
        return re.sub("%(.)", lambda found: known[found[1]], value)

    def environment(self, etc: Path) -> dict[str, str]:
        """Return what ExecStart is given; *etc* stands for /etc/snapferry. A file that must be there is."""
        found: dict[str, str] = {}
        for line in self.said("Environment") if self.has("Environment") else []:
            found |= dict([line.split("=", 1)])
        for path in self.said("EnvironmentFile"):
            file = etc / path.removeprefix("-").removeprefix("/etc/snapferry/")
            if path.startswith("-") and not file.exists():
                continue
            for line in file.read_text().splitlines():
                if line and not line.startswith("#"):
                    found |= dict([line.split("=", 1)])
        return found

    def command(self, environment: Mapping[str, str]) -> list[str]:
        """Return the words of ExecStart: a word that is a variable becomes as many as its value has."""
        (line,) = self.said("ExecStart")
        words: list[str] = []
        for word in shlex.split(line):
            words += environment[word[1:]].split() if re.fullmatch(r"\$\w+", word) else [word]
        return words


def units() -> list[Unit]:
    """Return all units of the folder; of a template, instance 1."""
    return [Unit(file, "1" if "@" in file.name else "") for file in sorted(FOLDER.glob("*.service"))]
