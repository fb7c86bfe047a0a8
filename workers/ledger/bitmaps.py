"""Bitmaps as Redis stores them: bit 0 is the highest bit of the first byte, and bits beyond the end are 0."""

from __future__ import annotations

from collections.abc import Iterator


def bit(bitmap: bytes, number: int) -> bool:
    """Return whether bit *number* of a bitmap is set."""
    index, within = divmod(number, 8)
    return index < len(bitmap) and bool(bitmap[index] & (0x80 >> within))


def bits(bitmap: bytes, numbers: range) -> int:
    """Return the bits *numbers* of a bitmap as one integer. The first bit is the highest."""
    first, end = numbers.start // 8, -(-numbers.stop // 8)
    whole = int.from_bytes(bitmap[first:end].ljust(end - first, b"\0"))
    return (whole >> (8 * end - numbers.stop)) & ((1 << len(numbers)) - 1)


def set_bits(bitmap: bytes) -> Iterator[int]:
    """Yield the numbers of the bits that are set, in rising order."""
    for index, byte in enumerate(bitmap):
        if byte:
            for within in range(8):
                if byte & (0x80 >> within):
                    yield 8 * index + within
