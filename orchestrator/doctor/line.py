"""What the doctor says, line by line, and the words for several machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from snapferry.stores.diagnosis.findings import Finding, Level

_WORST: Final = {Level.OK: 0, Level.NOTE: 1, Level.WARNING: 2, Level.ERROR: 3}


@dataclass(frozen=True)
class Line:
    """A finding, what it is *about*, and the *node* of the fleet that found it; "" for this command."""

    about: str
    finding: Finding
    node: str = ""


def worst(lines: Iterable[Line]) -> Level:
    """Return the worst level of all lines."""
    return max((line.finding.level for line in lines), key=_WORST.__getitem__, default=Level.OK)


def by_value(seen: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the names of *seen* by what was seen there, sorted."""
    by_value: dict[str, list[str]] = {}
    for node, value in seen.items():
        by_value.setdefault(value, []).append(node)
    return dict(sorted(by_value.items()))


def some(names: Sequence[str]) -> str:
    """Return the first of *names*, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
