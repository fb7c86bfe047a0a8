"""Bitmaps as Redis keeps them: bit 0 is the highest of the first byte, and what lies beyond the end is not set."""

from __future__ import annotations

from collections.abc import Iterator


def bit(bits: bytes, number: int) -> bool:
    """Say whether bit *number* of a bitmap is set."""
    place, within = divmod(number, 8)
    return place < len(bits) and bool(bits[place] & (0x80 >> within))


def bits(found: bytes, numbers: range) -> int:
    """Return the bits of a bitmap from the first of *numbers* to the last, as one number, the first the highest."""
    first, end = numbers.start // 8, -(-numbers.stop // 8)
    whole = int.from_bytes(found[first:end].ljust(end - first, b"\0"))
    return (whole >> (8 * end - numbers.stop)) & ((1 << len(numbers)) - 1)


def set_bits(found: bytes) -> Iterator[int]:
    """Yield the numbers of the bits that are set, rising."""
    for place, byte in enumerate(found):
        if byte:
            for within in range(8):
                if byte & (0x80 >> within):
                    yield 8 * place + within
