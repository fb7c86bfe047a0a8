"""Numbers as people read them in messages."""

from __future__ import annotations


def size(size_bytes: float) -> str:
    """Return *size_bytes* with a decimal unit, as in ``1.2 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        shown = f"{size_bytes:.0f}" if unit == "B" else f"{size_bytes:.1f}"
        if float(shown) < 1000:
            return f"{shown} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} PB"


def counted(count: int, one: str, more: str = "") -> str:
    """Return a count with its noun: "1 batch", "2 batches". *more* is the plural if it is not *one* with an s."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
