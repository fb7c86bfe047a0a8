"""
The oracle: what must hold after each round, clause by clause.

    published  manifests last, every byte verified
    accounts   jobs end truly; ledger, receipts and stores agree
    leftovers  processes, temporary files, uploads, leases, messages
    progress   never above 100 %, never backwards
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.chaos.world import World

from . import accounts, leftovers, progress, published
from .clauses import CLAUSES, Clause

# Asked only after the last jobs of a round.
IN_THE_END = "whole in the end"

__all__ = [
    "CLAUSES",
    "IN_THE_END",
    "Clause",
    "accounts",
    "ask",
    "found_by",
    "leftovers",
    "progress",
    "published",
]


def found_by(clause: Clause, world: World, *, within_s: float | None = None) -> list[str]:
    """Return what violates a clause, once it had its time to become true."""
    if within_s is None:
        within_s = clause.within_s and clause.within_s + world.slack_s
    deadline = time.monotonic() + within_s
    while True:
        found = list(clause.check(world))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def ask(world: World, *, in_the_end: bool = False) -> Iterator[tuple[str, str]]:
    """Yield (clause, what was found) for each violation: of all clauses but the last one, or of the last one."""
    for name, clause in CLAUSES.items():
        if (name == IN_THE_END) == in_the_end:
            yield from ((name, found) for found in found_by(clause, world))
