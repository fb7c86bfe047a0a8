"""
The chaining value of a range of an object, and the address that the chaining values of all ranges make.

BLAKE3 is a binary tree over chunks of 1 KiB. An object is cut into parts of one size, a power of two, of which the last
may be shorter. Then each part is a subtree of its own, so any process can hash it without the others:

    values = [subtree(part, at * part_bytes) for at, part in enumerate(parts)]
    address = root(values, part_bytes)

A chaining value is not the digest of its range, and cannot be used as one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from ..address import Address
from ..streams import Buffer
from ..text.format import counted
from .reference import chaining_value as reference_value
from .reference import merged as reference_merged

chaining_value: Callable[[memoryview, int], bytes] = reference_value
merged: Callable[[bytes], bytes] = reference_merged
_compiled = False
try:
    # By its name, because import-linter takes a module without a Python file for the whole package.
    _blake3 = import_module("._blake3", __package__)
except ImportError:
    pass
else:
    chaining_value, merged, _compiled = _blake3.chaining_value, _blake3.merged, True

CHUNK_BYTES = 1024
VALUE_BYTES = 32
MOST_BYTES = 2**64


def is_fast() -> bool:
    """Return whether the compiled extension is used. Without it, `subtree` hashes about 1 MB in a second."""
    return _compiled


def subtree(data: Buffer, offset_bytes: int) -> bytes:
    """
    Return the chaining value, 32 bytes, of *data*, which begin at *offset_bytes* of an object.

    *data* are one part of the object: *offset_bytes* is a multiple of the size of parts, and *data* are that long, or
    shorter at the end of the object. Raises `ValueError` for other ranges and for no bytes at all.
    Releases the interpreter lock if `is_fast()`.
    """
    view = memoryview(data)
    if not view.c_contiguous:
        raise ValueError("a range must be contiguous in memory")
    length = view.nbytes
    if not length:
        raise ValueError("a range must have at least 1 byte")
    # The smallest part that the range fits in. A range of a larger part begins at a multiple of this one, too.
    part_bytes = max(CHUNK_BYTES, 1 << (length - 1).bit_length())
    if offset_bytes % part_bytes or not 0 <= offset_bytes <= MOST_BYTES - length:
        raise ValueError(
            f"a range of {counted(length, 'byte')} must begin at a multiple of {part_bytes} below 2**64, not at"
            f" {offset_bytes}"
        )
    return chaining_value(view.cast("B"), offset_bytes // CHUNK_BYTES)


def root(values: Sequence[bytes], part_bytes: int) -> Address:
    """
    Return the address of the object whose parts have the chaining *values*, in their order.

    All parts but the last have *part_bytes* bytes, a power of two from 1024 on. Raises `ValueError` for fewer than two
    *values*: the root of an object of one part is hashed differently, so hash it with `blake3`.
    """
    if part_bytes < CHUNK_BYTES or part_bytes & (part_bytes - 1):
        raise ValueError(f"the size of parts must be a power of two from {CHUNK_BYTES} on, not {part_bytes}")
    if len(values) < 2:
        raise ValueError(
            f"an object has at least 2 parts, not {len(values)}; hash a smaller one in one piece"
        )
    if (len(values) - 1) * part_bytes >= MOST_BYTES:
        raise ValueError(
            f"an object has at most 2**64 bytes, and {len(values)} parts of {part_bytes} are more"
        )
    for number, value in enumerate(values):
        if len(value) != VALUE_BYTES:
            raise ValueError(f"chaining value {number} must have {VALUE_BYTES} bytes, not {len(value)}")
    return Address(merged(b"".join(values)).hex())
