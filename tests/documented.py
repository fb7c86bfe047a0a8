"""Commands from docs/deploy.md."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/deploy.md"


def documented(word: str) -> list[str]:
    """Return the commands of the only code block that contains *word*."""
    blocks = re.findall(r"(?:^(?:    .*)?\n)+", PAGE.read_text(), re.MULTILINE)
    (found,) = [block for block in blocks if word in block]
    return [line.removeprefix("    ") for line in found.splitlines() if line]
