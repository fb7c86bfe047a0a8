"""Numbers as people read them in messages."""

from __future__ import annotations

from typing import Final

# The plurals of verbs that follow a count.
_PLURALS: Final = {"is": "are", "was": "were", "has": "have"}


def size(size_bytes: float) -> str:
    """Return *size_bytes* with a decimal unit, as in ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        shown = f"{size_bytes:.0f}" if unit == "B" else f"{size_bytes:.1f}"
        if float(shown) < 1000:
            return f"{shown} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} PB"


def counted(count: int, one: str, more: str = "", *, of: int | None = None, verb: str = "") -> str:
    """
    Return a count with its noun: "1 batch", "2 batches". *more* is the plural if it is not *one* with an s.

    With *of*, the count of a total: "1 of 294 objects". *verb* ("is", "was" or "has") follows in its number:
    "1 of 294 objects is", "2 of 294 objects are".
    """
    total = count if of is None else of
    text = f"{count:,} {'' if of is None else f'of {of:,} '}{one if total == 1 else more or one + 's'}"
    if not verb:
        return text
    return f"{text} {verb if 1 in (count, total) else _PLURALS[verb]}"
