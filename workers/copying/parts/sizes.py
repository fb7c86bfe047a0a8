"""Which objects are copied in parts, and how many parts a process copies at once."""

from __future__ import annotations

from typing import Final

from snapferry.stores import treehash

MIB: Final = 1024 * 1024

LARGE_BYTES: int = 1024 * MIB
"""An object of at least this size, by the manifest, is copied in parts."""

LEAST_PART_BYTES: int = 16 * MIB
"""A part has this many bytes, or the next power of two with which the object has at most 10,000 parts."""

PARTS_IN_FLIGHT: int = 4
IN_FLIGHT_BYTES: Final = 64 * MIB

ANY_SPEED: bool = False
"""For tests: copy in parts also where hashing parts is slow."""


def hashes_fast() -> bool:
    """Return whether this process hashes parts fast enough to copy in parts."""
    return treehash.is_fast() or ANY_SPEED


def is_large(size: int) -> bool:
    """Return whether an object of this size, by the manifest, is copied in parts."""
    return size >= LARGE_BYTES


def parts_in_flight(part_bytes: int, concurrency: int | None) -> int:
    """Return how many parts one process copies at once: together at most 64 MiB, or one larger part."""
    most = min(PARTS_IN_FLIGHT, concurrency or PARTS_IN_FLIGHT)
    return max(1, min(most, IN_FLIGHT_BYTES // part_bytes))
