"""What the fuzzer begins with, and what it has found so far, breaks no promise. Needs no fuzzer."""

from __future__ import annotations

import pytest

from .seeds import SEEDS, inputs
from .targets import TARGETS


def test_every_target_has_seeds() -> None:
    assert SEEDS.keys() == TARGETS.keys()
    assert all(SEEDS.values())


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_known_breaks_nothing(name: str) -> None:
    for data in inputs(name):
        TARGETS[name](data)
        # What a cut-off or a flipped bit makes of it, too.
        for at in range(0, len(data), max(1, len(data) // 20)):
            TARGETS[name](data[:at])
            TARGETS[name](data[:at] + bytes([data[at] ^ 0x20]) + data[at + 1 :])
