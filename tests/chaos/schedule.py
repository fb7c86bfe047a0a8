"""
What a run does, decided by its seed before anything runs: in each round some jobs, and faults at their times.

The seed of a fault decides whatever else it does. What it acts on depends on what is there: the same seed kills the
same worker at the same second of its round, but another batch may run then.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from .faults import FAULTS, Fault

# Seconds of a round within which faults begin, and the fewest and most faults of a round.
WINDOW_S: Final = 14.0
SHORT_WINDOW_S: Final = 3.0
FAULTS_EACH: Final = (6, 12)

# Seconds that the first jobs have before the first fault.
FIRST_S: Final = 0.8

# Faults that last longer than this. A round has at most one of them, and more of the others while it lasts.
LONG_S: Final = 40.0
EVERY_S: Final = 4.0

# Of so many rounds one after the other, so many at the end are rounds in which sentinels watch Redis. Each of those has
# a failover.
CYCLE: Final = 8
WITH_SENTINELS: Final = 3
FAILOVER: Final = "Redis failed over by sentinels"

# A short run ends each fault after so long, and leaves out those that take long to recover from.
SHORTENED_S: Final = 1.5

ACTIONS: Final = ("copy", "push", "verify", "heal", "pull", "mirror")
JOBS_EACH: Final = 24
RATES: Final = (None, 150_000, 400_000)


@dataclass(frozen=True)
class PlannedFault:
    """A fault of *kind* begins *at_s* seconds after its round and lasts for *lasts_s*; *seed* decides the rest."""

    kind: str
    at_s: float
    lasts_s: float
    seed: int


@dataclass(frozen=True)
class PlannedJob:
    """A job of *action*, with a limit of bytes per second; *seed* decides its stores and snapshots."""

    action: str
    rate: int | None
    seed: int


@dataclass(frozen=True)
class Round:
    """
    A round: its *faults* by time, and its *jobs* in the order in which they are submitted, *at_once* together.

    *sentinels* watch its Redis.
    """

    number: int
    at_once: int
    jobs: tuple[PlannedJob, ...]
    faults: tuple[PlannedFault, ...]
    sentinels: bool = False


class _Deck:
    """Deals faults by chance, so that no kind comes again before all others came."""

    def __init__(self, chance: random.Random, faults: list[Fault]) -> None:
        self.faults = faults
        self._chance = chance
        self._left: list[Fault] = []

    def fits(self, *, sentinels: bool) -> bool:
        """Return whether the deck has a fault for a round with or without *sentinels*."""
        return any(fits(found, sentinels) for found in self.faults)

    def deal(self, *, without_long: bool, sentinels: bool) -> Fault:
        """Take a fault for a round with or without *sentinels*, none that lasts long if there is another."""
        fitting = [found for found in self.faults if fits(found, sentinels)]
        if without_long and (short := [found for found in fitting if found.lasts_s[1] <= LONG_S]):
            fitting = short
        while True:
            for index, found in enumerate(self._left):
                if found in fitting:
                    return self._left.pop(index)
            self._left += self._chance.sample(self.faults, len(self.faults))


def fits(fault: Fault, sentinels: bool) -> bool:
    """Return whether a fault can be done in a round with or without *sentinels*."""
    return fault.sentinels in (None, sentinels)


def rounds(seed: int, *, short: bool = False, kinds: Sequence[str] | None = None) -> Iterator[Round]:
    """Yield the rounds of a run without end. *kinds* are the faults to choose from, by default all."""
    chance = random.Random(seed)
    chosen = [FAULTS[kind] for kind in sorted(kinds or FAULTS) if not (short and FAULTS[kind].slow)]
    patient = _Deck(chance, [found for found in chosen if not found.fails])
    others = _Deck(chance, [found for found in chosen if found.fails])
    number = 0
    while True:
        sentinels = not short and number % CYCLE >= CYCLE - WITH_SENTINELS
        if not any(fits(found, sentinels) for found in chosen):
            sentinels = not sentinels
        # In every second round no job may fail, so that one which fails without a cause shows.
        decks = [
            deck for deck in (patient, others if number % 2 else patient) if deck.fits(sentinels=sentinels)
        ]
        faults: list[PlannedFault] = []
        long, window, count = False, SHORT_WINDOW_S if short else WINDOW_S, chance.randint(*FAULTS_EACH)
        while len(faults) < count:
            found = (
                FAULTS[FAILOVER]
                if sentinels and not faults and FAULTS[FAILOVER] in chosen
                else chance.choice(decks or [others]).deal(without_long=long, sentinels=sentinels)
            )
            lasts_s = min(chance.uniform(*found.lasts_s), SHORTENED_S if short else float("inf"))
            if found.lasts_s[1] > LONG_S:
                long = True
                window = max(window, lasts_s)
                count = max(count, round(window / EVERY_S))
            faults.append(PlannedFault(found.kind, 0.0, round(lasts_s, 2), chance.getrandbits(32)))
        timed = [_at(fault, chance, window) for fault in faults]
        yield Round(
            number,
            chance.randint(2, 4),
            tuple(_jobs(chance)),
            tuple(sorted(timed, key=lambda fault: (fault.at_s, fault.kind))),
            sentinels,
        )
        number += 1


def _at(fault: PlannedFault, chance: random.Random, window_s: float) -> PlannedFault:
    """Return the fault at its time: long ones begin early, so that a round is not longer than it must be."""
    latest = window_s - fault.lasts_s if fault.lasts_s > EVERY_S else window_s
    return PlannedFault(
        fault.kind, round(chance.uniform(FIRST_S, max(FIRST_S, latest)), 2), fault.lasts_s, fault.seed
    )


def _jobs(chance: random.Random) -> Iterator[PlannedJob]:
    """Yield the jobs of a round: one of each action first, in any order, then any."""
    actions = [*chance.sample(ACTIONS, len(ACTIONS)), *chance.choices(ACTIONS, k=JOBS_EACH - len(ACTIONS))]
    for action in actions:
        yield PlannedJob(action, chance.choice(RATES), chance.getrandbits(32))
