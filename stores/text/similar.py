"""The word that somebody meant who misspelt it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

# Longer words are not names that anybody typed, and comparing them takes long.
LONGEST: Final = 100


def similar(word: str, known: Iterable[str]) -> str:
    """Return the one of the *known* words that is most like *word*, "" if none is."""
    if len(word) > LONGEST:
        return ""
    found = get_close_matches(word, [one for one in known if len(one) <= LONGEST], n=1)
    return found[0] if found else ""


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown *word*: ``; did you mean 'x'?`` or ""."""
    found = similar(word, known)
    return f"; did you mean {found!r}?" if found else ""
