"""The result of a check, and text about several nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from snapferry.stores.diagnosis.findings import Finding, Level

_SEVERITY: Final = {Level.OK: 0, Level.NOTE: 1, Level.WARNING: 2, Level.ERROR: 3}


@dataclass(frozen=True)
class CheckResult:
    """A finding, what it is *about*, and the *node* of the fleet that found it; "" for this command."""

    about: str
    finding: Finding
    node: str = ""


def worst(results: Iterable[CheckResult]) -> Level:
    """Return the worst level of all results, `Level.OK` if there are none."""
    return max((result.finding.level for result in results), key=_SEVERITY.__getitem__, default=Level.OK)


def by_value(seen: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the nodes of *seen* by their value there, sorted by value."""
    by_value: dict[str, list[str]] = {}
    for node, value in seen.items():
        by_value.setdefault(value, []).append(node)
    return dict(sorted(by_value.items()))


def some(names: Sequence[str]) -> str:
    """Return the first five of *names*, and how many more there are."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
