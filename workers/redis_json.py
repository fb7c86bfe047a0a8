"""JSON and counts from Redis, where any program may have written them."""

from __future__ import annotations

import json
import re
from typing import Any, Final

_is_count: Final = re.compile(r"[0-9]{1,16}").fullmatch


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON *text*. Raises ValueError for any other text, and for one that is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def count_of(text: str) -> int | None:
    """Return the count that a *text* is, None if it is none that can be right."""
    return int(text) if _is_count(text) else None
