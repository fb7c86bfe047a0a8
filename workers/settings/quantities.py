"""Sizes such as ``20GB`` and shares such as ``1/30``, in options and in `snapferry.toml`."""

from __future__ import annotations

import re
from typing import Final

# Larger numbers are not exact everywhere, for Redis and JSON count in floating point (8 PiB).
LARGEST_NUMBER: Final = 2**53 - 1
LONGEST_NUMBER: Final = 40

# Limits of requests per second and of objects in flight: above these they never take effect.
MOST_REQUESTS: Final = 1_000_000
MOST_IN_FLIGHT: Final = 65_536

_PREFIXES: Final = "KMGTP"
_parse_size = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kKMGTP])(i?))?B?", re.ASCII).fullmatch
_parse_share = re.compile(r"1\s*/\s*(\d+)", re.ASCII).fullmatch


def size_of(text: str) -> int | None:
    """Return the bytes of a size such as ``500k``, ``20GB``, ``1.5TiB``; None if *text* is no size."""
    parsed = _parse_size(text) if len(text := text.strip()) <= LONGEST_NUMBER else None
    if parsed is None:
        return None
    number, prefix, binary = parsed.groups()
    power = _PREFIXES.index(prefix.upper()) + 1 if prefix else 0
    factor = (1024 if binary else 1000) ** power
    return int(number) * factor if number.isdigit() else int(float(number) * factor)


def shares_of(text: str) -> int | None:
    """Return the number of shares of which a share such as ``1/30`` is one; None if *text* is no share."""
    parsed = _parse_share(text) if len(text := text.strip()) <= LONGEST_NUMBER else None
    return int(parsed[1]) or None if parsed else None
