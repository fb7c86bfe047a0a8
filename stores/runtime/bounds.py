"""
The most that a process reads from a store at a time, whatever the store holds.

A process sets the bounds once, from its settings (`set_bounds`). A longer manifest or listing is refused with an error
that names the bound, before memory or disk is spent on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST_LINE: Final = 1024 * 1024
"""Bytes of a line of a manifest. The longest path that Linux accepts in one call has 4,096."""


@dataclass(frozen=True)
class Bounds:
    """
    The bounds that can be set.

    *manifest_bytes*: the bytes of one manifest, which is in the temporary directory while it is used. *objects*: the
    distinct objects of one plan, about 90 bytes of memory each while a job is planned. *manifests*: the manifests of
    one listing, about 350 bytes of memory each.
    """

    manifest_bytes: int = 16 * 1024**3
    objects: int = 100_000_000
    manifests: int = 500_000


_bounds = Bounds()


def bounds() -> Bounds:
    """Return the bounds of this process."""
    return _bounds


def set_bounds(wanted: Bounds) -> None:
    """Set the bounds of this process and of processes forked from it. May be called again."""
    global _bounds
    _bounds = wanted
