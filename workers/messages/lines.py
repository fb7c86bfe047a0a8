"""The lines of a batch of files in its message: compressed, in base64."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from typing import Final

from .base import MOST_OBJECTS

MOST_LINE_BYTES: Final = 16 * 1024 * 1024
"""The most bytes of the lines of a batch, with their ends."""

# Compressed bytes are hardly ever longer than the lines, and base64 makes four characters of three bytes.
MOST_ENCODED_LINES: Final = 2 * MOST_LINE_BYTES


def encode_lines(lines: Sequence[bytes]) -> str:
    """Return *lines* encoded, "" for none. No line contains its end."""
    if not lines:
        return ""
    return base64.b64encode(zlib.compress(b"\n".join(lines), 1)).decode()


def decode_lines(encoded: str) -> list[bytes]:
    """
    Return the lines that were encoded.

    Raises ValueError for text that `encode_lines` does not return, for more than `MOST_LINE_BYTES`, and for more lines
    than a batch has objects.
    """
    unpacked = zlib.decompressobj()
    try:
        text = unpacked.decompress(base64.b64decode(encoded, validate=True), MOST_LINE_BYTES)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"lines are not encoded: {error}") from None
    if not unpacked.eof or unpacked.unused_data:
        raise ValueError("lines are cut off, or too long")
    # Before memory is needed for each: a short message may have millions of empty ones.
    if text.count(b"\n") >= MOST_OBJECTS:
        raise ValueError("lines are too many")
    return text.split(b"\n")
