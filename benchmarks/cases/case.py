"""What a case is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..measure import available_memory
from ..report import Goal, Result

QUICK: Final = 20
"""In small, the amount of data is divided by this."""

SERVED: Final = "the S3 server and other work"


@dataclass(frozen=True)
class Setting:
    """
    Where and how much: a case makes its data in *folder*, in memory, or in *disk*; both are empty, and may be left so.

    *rounds*: how often each side runs; None leaves it to the case.
    """

    folder: Path
    disk: Path
    rounds: int | None = None
    scale: int = 1
    """The amount of data is divided by this."""

    def times(self, usual: int) -> int:
        """Return how often each side runs: *usual* of them in full, once in small, or as was asked for."""
        return self.rounds or (usual if self.full else 1)

    @property
    def full(self) -> bool:
        """Say whether all of the data is used."""
        return self.scale == 1

    def goal(self, goal: Goal) -> Goal | None:
        """Return *goal* where all of the data is used: in small, the start of processes is most of it."""
        return goal if self.full else None


@dataclass(frozen=True)
class Case:
    """One thing to measure."""

    name: str
    what: str
    measure: Callable[[Setting], list[Result]]


class TooLittleRoom(Exception):
    """A case would not fit into this machine's memory, or onto its disk; nothing was begun."""


def need_memory(size_bytes: int, holder: str) -> None:
    """Raise `TooLittleRoom` unless so much memory is free for *holder*."""
    free = available_memory()
    if free < size_bytes:
        raise TooLittleRoom(
            f"this case needs {size_bytes / 1e9:.0f} GB of memory, most of it for {holder}, and {free / 1e9:.0f} GB"
            " are free; --quick needs less"
        )
