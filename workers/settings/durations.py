"""Durations such as ``90s``, in options and in `snapferry.toml`."""

from __future__ import annotations

import re
from typing import Final

LONGEST_PATIENCE_S: Final = 30 * 86400.0
"""The longest time that a job may wait for a store that is away."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_is_interval = re.compile(r"(\d{1,6})([smhd])").fullmatch


def interval_of(text: str) -> int | None:
    """Return the seconds of an interval such as ``90s``, ``30m``, ``2h``, ``1d``; None if *text* is no interval."""
    found = _is_interval(text)
    return int(found[1]) * _UNITS[found[2]] if found else None


def seconds_of(duration: str) -> float:
    """Return the seconds of a *duration* such as ``90s``, ``30m``, ``2h``, ``1d``. Raises ValueError."""
    seconds = interval_of(duration)
    if seconds is None or seconds > LONGEST_PATIENCE_S:
        raise ValueError(f'{duration!r} is not a duration of up to 30 days, such as "90s", "30m", "2h"')
    return float(seconds)
