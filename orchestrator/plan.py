"""
The plan: which objects travel together.

A pure function of the manifest and the batch settings, so any orchestrator can
compute any batch again. Addresses are sorted, so a batch is one contiguous
range of the destination's keys and one ranged listing can answer for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Batch:
    """Objects that one task copies: address -> advisory size in bytes, sorted by address."""

    number: int
    objects: Mapping[str, int]

    @property
    def size_bytes(self) -> int:
        """The sum of the advisory sizes."""
        return sum(self.objects.values())


def pack(objects: Mapping[str, int], *, max_objects: int, max_bytes: int) -> Iterator[Batch]:
    """
    Pack *objects* (address -> advisory size in bytes) into batches, numbered from 0.

    Each has at most *max_objects* objects and *max_bytes* bytes; an object
    larger than *max_bytes* travels alone. Every object is in exactly one batch.
    """
    number = 0
    current: dict[str, int] = {}
    filled = 0
    for address in sorted(objects):
        size = objects[address]
        if size > max_bytes:
            yield Batch(number, {address: size})
            number += 1
            continue
        if len(current) == max_objects or filled + size > max_bytes:
            yield Batch(number, current)
            number += 1
            current, filled = {}, 0
        current[address] = size
        filled += size
    if current:
        yield Batch(number, current)
