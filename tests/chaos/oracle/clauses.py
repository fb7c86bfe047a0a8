"""A clause of the oracle, and the register of all clauses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.chaos.world import World

Check = Callable[[World], Iterator[str]]


@dataclass(frozen=True)
class Clause:
    """What must hold after each round: *check* yields what does not. It may take *within_s* seconds to become true."""

    name: str
    check: Check
    within_s: float


CLAUSES: Final[dict[str, Clause]] = {}


def clause(name: str, within_s: float = 0.0) -> Callable[[Check], Check]:
    """Register a clause under its *name*."""

    def register(check: Check) -> Check:
        assert name not in CLAUSES, name
        CLAUSES[name] = Clause(name, check, within_s)
        return check

    return register
