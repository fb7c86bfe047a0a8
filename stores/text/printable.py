"""Make foreign text safe for a terminal and a line of a log, and cut it to a bounded length."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return *text* with control characters, lone surrogates and all else that is not printable escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def subject(text: str) -> str:
    """Return *text* as the beginning of a message about it: `printable`, and quotes for no text at all."""
    return printable(text) or "''"


def shortened(text: str, most: int) -> str:
    """Return *text*, `printable` and at most *most* characters long; ``…`` marks a cut. May be called again."""
    shown = printable(text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"
