"""
Maxima of what a process reads from a store at a time, whatever the store holds.

A process sets them once, from its settings (`set_bounds`); without that the defaults below hold. What is longer is
refused with an error that names the maximum, before memory or disk is spent on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST_LINE: Final = 1024 * 1024
"""Bytes of a line of a manifest. The longest path that Linux takes in one call has 4,096."""


@dataclass(frozen=True)
class Bounds:
    """
    The maxima that can be set.

    *manifest_bytes* of one manifest, which lie in the temporary directory while it is used. *objects* of one plan:
    distinct objects, which take about 90 bytes of memory each while a job is planned. *manifests* of one listing,
    about 350 bytes of memory each.
    """

    manifest_bytes: int = 16 * 1024**3
    objects: int = 100_000_000
    manifests: int = 500_000


_bounds = Bounds()


def bounds() -> Bounds:
    """Return the maxima of this process."""
    return _bounds


def set_bounds(wanted: Bounds) -> None:
    """Let *wanted* be the maxima of this process, and of those that are forked from it. May be called again."""
    global _bounds
    _bounds = wanted
