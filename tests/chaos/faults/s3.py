"""The proxy before the bucket misbehaves, for a share of all requests."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Final

from tests.chaos.proxy import KINDS, REFUSED
from tests.chaos.world import World

from .registry import Act, fault

_SHARES: Final = (0.05, 0.3, 1.0)


def _troubled(kind: str) -> Act:
    def act(world: World, chance: random.Random) -> Iterator[str]:
        share = chance.choice(_SHARES)
        world.may_misread |= kind == "flipped"
        with world.trouble.making(kind, share):
            yield f"{share:.0%}"

    act.__module__ = __name__
    return act


for _kind, _what in KINDS.items():
    fault(f"S3: {_what}", (2.0, 12.0), slow=_kind == "stalled")(_troubled(_kind))


@fault("S3: down", (15.0, 40.0), slow=True)
def down(world: World, chance: random.Random) -> Iterator[str]:
    with world.trouble.making(REFUSED, 1.0):
        yield ""


@fault("S3: down for minutes", (90.0, 150.0), slow=True)
def down_for_minutes(world: World, chance: random.Random) -> Iterator[str]:
    with world.trouble.making(REFUSED, 1.0):
        yield ""
