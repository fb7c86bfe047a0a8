"""The register of faults: each is a plug-in with the name of its kind. A new one needs no other change."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Final

from tests.chaos.world import World

Act = Callable[[World, random.Random], Iterator[str]]


class NotPossible(Exception):
    """A fault has nothing to act on at this moment. It is tried again for a while."""


class NeverPossible(NotPossible):
    """A fault is not permitted by this machine, or not possible with the fleet of this run."""


@dataclass(frozen=True)
class Fault:
    """
    A kind of fault: *act* does it, lasts for *lasts_s* seconds (shortest, longest), and undoes it.

    *fails*: jobs may fail by it, with a reason. *forgets*: Redis may lose records of jobs by it. *slow*: work
    continues only after a lease has expired, or the fault lasts long; a short run leaves it out. *sentinels*: it is for
    rounds with sentinels alone (True), or without (False).
    """

    kind: str
    family: str
    act: Callable[[World, random.Random], AbstractContextManager[str]]
    lasts_s: tuple[float, float]
    fails: bool = False
    forgets: bool = False
    slow: bool = False
    sentinels: bool | None = None


FAULTS: Final[dict[str, Fault]] = {}


def fault(
    kind: str,
    lasts_s: tuple[float, float] = (0.0, 0.0),
    *,
    fails: bool = False,
    forgets: bool = False,
    slow: bool = False,
    sentinels: bool | None = None,
) -> Callable[[Act], Act]:
    """
    Register a fault: a generator that does it, yields what it was done to, and undoes it.

    It draws only from the generator of random numbers that it is given, so a seed gives the same faults.
    """

    def register(act: Act) -> Act:
        assert kind not in FAULTS, kind
        family = act.__module__.rpartition(".")[2]
        FAULTS[kind] = Fault(kind, family, contextmanager(act), lasts_s, fails, forgets, slow, sentinels)
        return act

    return register
