"""How an upload to S3 is cut into parts."""

from __future__ import annotations

from itertools import accumulate, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapferry.stores.backends.s3.sizes import (
    MAX_OBJECT_BYTES,
    MAX_PARTS,
    MIB,
    MIN_PART_BYTES,
    part_sizes,
)

GIB = 1024 * MIB
LARGEST_PART = 5 * GIB
HINTS = [
    0,
    1,
    8 * MIB,
    8 * MIB + 1,
    8 * GIB,
    39 * GIB,
    40 * GIB,
    41 * GIB,
    400 * GIB,
    MAX_OBJECT_BYTES,
    10**15,
]


@pytest.mark.parametrize("hint", HINTS)
def test_five_tebibytes_stay_possible_whatever_was_announced(hint: int) -> None:
    sizes = list(islice(part_sizes(hint), MAX_PARTS))

    assert sum(sizes) >= MAX_OBJECT_BYTES
    assert min(sizes) >= MIN_PART_BYTES


@given(st.integers(0, MAX_OBJECT_BYTES))
def test_parts_are_equal_as_long_as_the_hint_holds(hint: int) -> None:
    first, *sizes = islice(part_sizes(hint), MAX_PARTS)

    assert first % MIB == 0
    needed = max(1, -(-hint // first))
    assert needed <= MAX_PARTS // 2
    assert set(sizes[: needed - 1]) <= {first}


@given(st.integers(0, MAX_OBJECT_BYTES))
def test_no_part_is_larger_than_s3_or_memory_can_bear(hint: int) -> None:
    """The parts that are really used: those up to the largest object that S3 takes."""
    sizes = list(islice(part_sizes(hint), MAX_PARTS))
    before = [0, *accumulate(sizes)]
    used = [size for size, start in zip(sizes, before, strict=False) if start < MAX_OBJECT_BYTES]

    assert max(used) <= 2.2 * GIB < LARGEST_PART
    assert sizes == sorted(sizes)
