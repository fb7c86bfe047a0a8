"""
What a check found: one line for people, and a name for programs.

A finding tells what is wrong and what to do. The command decides which findings are fatal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

# Clocks that differ by more begin to mislead; S3 refuses signatures from five minutes on (its own limit is 15).
CLOCK_WARNING_S: Final = 2.0
CLOCK_ERROR_S: Final = 300.0


class Level(StrEnum):
    """The severity. A *note* is good to know, or could not be found out; an *error* must be fixed."""

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """
    One thing that was checked.

    *check* is its name, which never changes. *said* is a line for people, *advice* what to do. *value* is what other
    machines should find too, where that can be compared.
    """

    level: Level
    check: str
    said: str
    advice: str = ""
    value: str = ""


def clock_finding(whose: str, there: tuple[float, float], here: tuple[float, float]) -> Finding:
    """
    Compare another clock with this machine's, both in seconds since the epoch.

    *there* is the earliest and the latest time that the other clock may have shown. *here* is when this machine asked
    and when it had the answer. Overlapping intervals mean no difference.
    """
    behind, ahead = here[0] - there[1], there[0] - here[1]
    apart = max(behind, ahead, 0.0)
    if apart <= CLOCK_WARNING_S:
        return Finding(Level.OK, "clock", f"the clock of {whose} agrees with this machine's")
    way = "behind" if behind > ahead else "ahead of"
    said = f"the clock of {whose} is {apart:.0f} s {way} this machine's"
    if apart > CLOCK_ERROR_S:
        said += ": S3 refuses signatures that are so far off"
        return Finding(Level.ERROR, "clock", said, "set both clocks by NTP; one of the two is wrong")
    return Finding(Level.WARNING, "clock", said, "set both clocks by NTP")
