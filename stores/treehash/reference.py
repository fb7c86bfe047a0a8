"""
BLAKE3's tree in pure Python, written from the paper: https://github.com/BLAKE3-team/BLAKE3-specs, section 2.

Simple and slow. It is used where the compiled extension is missing, and tests compare the extension with it. Its last
three functions are those of the extension. Arguments are checked by `tree`.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

CHUNK_BYTES = 1024
BLOCK_BYTES = 64
VALUE_BYTES = 32

CHUNK_START = 1
CHUNK_END = 2
PARENT = 4
ROOT = 8

MASK = 0xFFFFFFFF
IV = (
    0x6A09E667,
    0xBB67AE85,
    0x3C6EF372,
    0xA54FF53A,
    0x510E527F,
    0x9B05688C,
    0x1F83D9AB,
    0x5BE0CD19,
)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
ROUNDS = 7
# The columns of the state, then its diagonals.
QUARTERS = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)

_value = struct.Struct("<8I")
_block = struct.Struct("<16I")

Words = Sequence[int]


def _schedules() -> list[tuple[int, ...]]:
    """Return which words of a block each round takes, in their order: the permutation, applied again each round."""
    schedules = [tuple(range(16))]
    while len(schedules) < ROUNDS:
        schedules.append(tuple(schedules[-1][at] for at in PERMUTATION))
    return schedules


SCHEDULES = _schedules()


def compress(value: Words, block: Words, counter: int, length: int, flags: int) -> list[int]:
    """Return the first 8 words of the compression function: the next chaining value."""
    state = [*value, *IV[:4], counter & MASK, counter >> 32, length, flags]
    for schedule in SCHEDULES:
        words = iter(schedule)
        for at, bt, ct, dt in QUARTERS:
            a, b, c, d = state[at], state[bt], state[ct], state[dt]
            a = (a + b + block[next(words)]) & MASK
            d ^= a
            d = (d >> 16 | d << 16) & MASK
            c = (c + d) & MASK
            b ^= c
            b = (b >> 12 | b << 20) & MASK
            a = (a + b + block[next(words)]) & MASK
            d ^= a
            d = (d >> 8 | d << 24) & MASK
            c = (c + d) & MASK
            b ^= c
            b = (b >> 7 | b << 25) & MASK
            state[at], state[bt], state[ct], state[dt] = a, b, c, d
    return [state[at] ^ state[at + 8] for at in range(8)]


def chunk_value(chunk: memoryview, counter: int, root: int = 0) -> list[int]:
    """
    Return the chaining value of the chunk with the number *counter*: 1 to 1024 bytes.

    *root* is `ROOT` for the only chunk of an object, which may be empty: then the value is the digest.
    """
    value: Words = IV
    for at in range(0, len(chunk) or 1, BLOCK_BYTES):
        block = chunk[at : at + BLOCK_BYTES]
        flags = (CHUNK_START if at == 0 else 0) | (CHUNK_END | root if at + BLOCK_BYTES >= len(chunk) else 0)
        words = _block.unpack(bytes(block).ljust(BLOCK_BYTES, b"\0"))
        value = compress(value, words, counter, len(block), flags)
    return list(value)


def _level_up(values: list[list[int]]) -> list[list[int]]:
    """
    Return the parents of neighbours. A last one without a neighbour moves up as it is.

    So each left subtree has the largest power of two of leaves that leaves at least one for the right subtree.
    """
    pairs = zip(values[::2], values[1::2], strict=False)
    parents = [compress(IV, left + right, 0, BLOCK_BYTES, PARENT) for left, right in pairs]
    return parents + values[len(parents) * 2 :]


def chaining_value(data: memoryview, first_chunk: int, /) -> bytes:
    """Return the chaining value of *data*, bytes of a subtree whose first chunk has the number *first_chunk*."""
    starts = range(0, len(data), CHUNK_BYTES)
    values = [
        chunk_value(data[at : at + CHUNK_BYTES], first_chunk + number) for number, at in enumerate(starts)
    ]
    while len(values) > 1:
        values = _level_up(values)
    return _value.pack(*values[0])


def merged(values: bytes, /) -> bytes:
    """Return the root digest over two or more subtrees, whose chaining *values* are concatenated."""
    level = [list(words) for words in _value.iter_unpack(values)]
    while len(level) > 2:
        level = _level_up(level)
    left, right = level
    return _value.pack(*compress(IV, left + right, 0, BLOCK_BYTES, PARENT | ROOT))


def digests(pieces: Sequence[bytes | None], /) -> list[str | None]:
    """Return the digest of each of *pieces* in hex digits, and None for None."""
    return [None if piece is None else _digest(memoryview(piece)).hex() for piece in pieces]


def _digest(data: memoryview) -> bytes:
    if len(data) <= CHUNK_BYTES:
        return _value.pack(*chunk_value(data, 0, ROOT))
    # The left subtree is the largest power of two of chunks that leaves something to the right one.
    half = CHUNK_BYTES << ((len(data) - 1) // CHUNK_BYTES).bit_length() - 1
    return merged(chaining_value(data[:half], 0) + chaining_value(data[half:], half // CHUNK_BYTES))
