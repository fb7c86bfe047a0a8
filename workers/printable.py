"""Text from elsewhere, made fit for a terminal and for a line of a log."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return *text* with everything escaped that is not plainly visible: control characters, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
