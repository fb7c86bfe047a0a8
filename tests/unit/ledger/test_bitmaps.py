"""Bitmaps of objects and batches, as Redis writes them."""

from __future__ import annotations

import random

import redis
from hypothesis import given
from hypothesis import strategies as st

from snapferry.workers.ledger import (
    Ledger,
    bit,
    set_bits,
)
from tests.property.strategies import thorough
from tests.unit.ledger.support import JOB, objects_in


@thorough
@given(st.sets(st.integers(0, 300)))
def test_a_bitmap_is_a_set_of_numbers(numbers: set[int]) -> None:
    bits = bytearray(40)
    for number in numbers:
        bits[number // 8] |= 0x80 >> number % 8
    short = bytes(bits).rstrip(b"\0")

    for found in (bytes(bits), short):
        assert list(set_bits(found)) == sorted(numbers)
        assert {number for number in range(400) if bit(found, number)} == numbers


def test_a_bitmap_is_read_as_redis_writes_it(ledger: Ledger, client: redis.Redis) -> None:
    """Bytes that are no text, as bits of the highest kind make them, included."""
    random_ = random.Random(7)
    for _ in range(20):
        numbers = {random_.randrange(200) for _ in range(random_.randrange(60))}
        client.delete(f"{JOB}:copied")
        for number in numbers:
            client.setbit(f"{JOB}:copied", number, 1)

        assert set(objects_in(ledger, "copied")) == numbers
