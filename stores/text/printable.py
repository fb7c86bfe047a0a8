"""Text from elsewhere, made fit for a terminal, for a line of a log, and for an error of a bounded length."""

from __future__ import annotations


def printable(text: str) -> str:
    """Return *text* with everything escaped that is not plainly visible: control characters, lone surrogates."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shortened(text: str, most: int) -> str:
    """Return *text*, `printable`, and cut to *most* characters: what is cut is marked by ``…``. May be called again."""
    shown = printable(text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"
