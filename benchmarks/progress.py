"""What is being done, on standard error: a run in full takes long."""

from __future__ import annotations

import sys


def say(words: str) -> None:
    """Show *words* on a line of their own, at once."""
    print(words, file=sys.stderr, flush=True)
