"""The time zone in which pages show times: chosen by a parameter of the address, and kept in a cookie."""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from enum import StrEnum
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

DEFAULT: Final = "UTC"

PARAMETER: Final = "tz"
"""The name of the parameter, and of the cookie."""

# Zones that can be chosen from a list, from west to east. An address may name any other.
COMMON: Final = (
    "Pacific/Honolulu", "America/Anchorage", "America/Los_Angeles", "America/Denver", "America/Phoenix",
    "America/Chicago", "America/Mexico_City", "America/New_York", "America/Toronto", "America/Bogota",
    "America/Halifax", "America/Santiago", "America/Sao_Paulo", "America/Argentina/Buenos_Aires", "UTC",
    "Europe/London", "Europe/Lisbon", "Africa/Lagos", "Europe/Berlin", "Europe/Paris", "Europe/Madrid", "Europe/Rome",
    "Europe/Stockholm", "Europe/Athens", "Africa/Cairo", "Africa/Johannesburg", "Europe/Helsinki", "Europe/Kyiv",
    "Europe/Istanbul", "Europe/Moscow", "Africa/Nairobi", "Asia/Dubai", "Asia/Karachi", "Asia/Kolkata", "Asia/Dhaka",
    "Asia/Bangkok", "Asia/Jakarta", "Asia/Shanghai", "Asia/Singapore", "Australia/Perth", "Asia/Tokyo", "Asia/Seoul",
    "Australia/Brisbane", "Australia/Sydney", "Pacific/Auckland",
)  # fmt: skip


@cache
def _known() -> frozenset[str]:
    return frozenset(available_timezones() | {DEFAULT})


def is_zone(name: str) -> bool:
    """Return whether *name* is a time zone that this machine knows."""
    return name in _known()


def choices(chosen: str) -> list[str]:
    """Return the zones to choose from."""
    found = [name for name in COMMON if is_zone(name)]
    return found if chosen in found else [chosen, *found]


@cache
def _zone(name: str) -> tzinfo:
    return UTC if name == DEFAULT or not is_zone(name) else ZoneInfo(name)


class Form(StrEnum):
    """How much of a time is shown, as a form of `strftime`. The zone is always shown."""

    STAMP = "%Y-%m-%d %H:%M:%S"
    MINUTE = "%Y-%m-%d %H:%M"
    CLOCK = "%H:%M:%S"


def written(seconds: float, zone: str, form: Form) -> str:
    """
    Return a time in seconds since the epoch in *zone*, in UTC if that is not known, with the zone's abbreviation.

    The one function that writes the times of pages.
    """
    local = datetime.fromtimestamp(seconds, _zone(zone))
    name = local.strftime("%Z")
    # A zone without an abbreviation has its offset for one.
    return f"{local.strftime(form)} {'UTC' if name[0] in '+-' else ''}{name}"
