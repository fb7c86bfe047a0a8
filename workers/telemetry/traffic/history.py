"""
The record of traffic in Redis, of bounded size.

Each series has two rings: the minutes of the last day, and the hours of the last 31 days. Both have a fixed size and
expire when nothing is added any more. Intervals are those of the server's clock.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import redis
from redis.client import NEVER_DECODE

from snapferry.stores.text.printable import shortened
from snapferry.workers.lua import LuaScript, RedisKey, ScriptRunner

ADD: Final = LuaScript.load(__package__, "add")
FORGET: Final = LuaScript.load(__package__, "forget")

MINUTES: Final = 1440
HOURS: Final = 31 * 24

MOST_SERIES: Final = 256
"""Series that are kept. With their rings they take at most 6 MB of Redis's memory."""

# A series that makes room for another one has not been added to for this long.
IDLE_S: Final = 3600

# How long a report is remembered. A client gives up long before.
_REPORT_S: Final = 900

_LONGEST_NAME: Final = 500

_REGISTRY: Final = RedisKey("snapferry:traffic:series")

# Rings that are read with one command.
_READ_AT_ONCE: Final = 32


class Kind(StrEnum):
    """What a series counts: the bytes that the fleet moved, or one worker; or that were read or written at a store."""

    FLEET = "fleet"
    WORKER = "worker"
    READ = "read"
    WRITTEN = "written"


@dataclass(frozen=True)
class Series:
    """A series by its *kind* and the *name* of the worker or store, "" for the fleet."""

    kind: Kind
    name: str = ""

    @property
    def text(self) -> str:
        """The name of the series in Redis, of bounded length."""
        return f"{self.kind}:{shortened(self.name, _LONGEST_NAME)}"

    @property
    def rings(self) -> tuple[RedisKey, RedisKey]:
        """The keys of the rings of minutes and of hours."""
        name = hashlib.blake2b(self.text.encode(errors="replace"), digest_size=16).hexdigest()
        return RedisKey(f"snapferry:traffic:minutes:{name}"), RedisKey(f"snapferry:traffic:hours:{name}")


@dataclass(frozen=True)
class Past:
    """
    The bytes of each interval of *seconds*, oldest first; the last interval is not over.

    *end* is when it will be over, in seconds since the epoch.
    """

    seconds: int
    end: float
    size_bytes: tuple[int, ...]

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(self.size_bytes)


class TrafficHistory:
    """
    The traffic on one Redis server. Every method may be repeated with the same arguments.

    All raise `redis.exceptions.RedisError` when the client stops retrying. The report may then have been counted.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._runner = ScriptRunner(client)
        # "" is the time of the server.
        self._now: float | str = ""

    def add(self, process: str, number: int, moved: Mapping[Series, int]) -> None:
        """
        Add bytes to series, as report *number* of a *process*, whose reports are numbered upwards.

        If there are too many series, those that were idle the longest make room; a series without room is not counted.
        """
        moved = {one: size_bytes for one, size_bytes in moved.items() if size_bytes > 0}
        full = self._add(process, number, moved) if moved else []
        if full:
            self._make_room(len(full))
            # Reports under another name: the first one is counted.
            self._add(f"{process} again", number, {one: moved[one] for one in moved if one.text in full})

    def _add(self, process: str, number: int, moved: Mapping[Series, int]) -> list[str]:
        """Add bytes to series; return the texts of those for which there is no room."""
        keys = [RedisKey(f"snapferry:traffic:report:{process}"), _REGISTRY]
        keys += [ring for one in moved for ring in one.rings]
        values = [part for one, size_bytes in moved.items() for part in (one.text, size_bytes)]
        arguments = [self._now, number, _REPORT_S, MOST_SERIES, MINUTES, HOURS, *values]
        return list(map(str, self._runner.run(ADD, keys, arguments)))

    def _make_room(self, count: int) -> None:
        for text in self._redis.zrange(_REGISTRY, 0, count - 1):
            found = _series(str(text))
            # A name that no version of this wrote has no rings.
            rings = found.rings if found else Series(Kind.FLEET, str(text)).rings
            self._runner.run(FORGET, [_REGISTRY, *rings], [self._now, str(text), IDLE_S])

    def series(self) -> list[Series]:
        """Return the series to which something was added in the last 31 days, the latest first."""
        texts = self._redis.zrevrange(_REGISTRY, 0, MOST_SERIES - 1)
        return [found for text in texts if (found := _series(str(text)))]

    def past(self, series: Sequence[Series]) -> dict[Series, tuple[Past, Past]]:
        """Return the minutes of the last day and the hours of the last 31 days, for each of *series*."""
        now = int(self._now or self._redis.time()[0])
        found: dict[Series, tuple[Past, Past]] = {}
        for first in range(0, len(series), _READ_AT_ONCE):
            some = series[first : first + _READ_AT_ONCE]
            rings = iter(self._read(ring for one in some for ring in one.rings))
            for one in some:
                found[one] = _past(next(rings), MINUTES, 60, now), _past(next(rings), HOURS, 3600, now)
        return found

    def _read(self, keys: Iterable[RedisKey]) -> list[bytes]:
        # Results that must not be decoded as text. A key of another type counts as missing.
        execute: Any = self._redis.execute_command
        return [found or b"" for found in execute("MGET", *keys, **{NEVER_DECODE: []})]


def _series(text: str) -> Series | None:
    kind, colon, name = text.partition(":")
    known = colon and kind in list(Kind) and bool(name) == (kind != Kind.FLEET)
    return Series(Kind(kind), shortened(name, _LONGEST_NAME)) if known else None


def _past(ring: bytes, length: int, seconds: int, now: int) -> Past:
    """Return the intervals of a ring up to *now*; all zero for one that add.lua did not write."""
    ring = ring[: 8 * (1 + length)].ljust(8 * (1 + length), b"\0")
    latest, *values = struct.unpack(f">{1 + length}q", ring)
    current = now // seconds
    size_bytes = tuple(
        max(0, values[interval % length]) if latest - length < interval <= latest else 0
        for interval in range(current - length + 1, current + 1)
    )
    return Past(seconds, float((current + 1) * seconds), size_bytes)
