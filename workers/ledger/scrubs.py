"""
The state of scrubs: where the next run begins, and when each share of a store was last read.

A scrub divides the address space into shares. Each run reads the share at which the scrub is, or the rest of it. The
position moves only when a run has ended and has read what it had to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import redis

from snapferry.workers.lua import RedisKey, ScriptRunner
from snapferry.workers.messages import ScrubPart

from . import scripts
from .keys import SCRUB
from .schedules import ScheduleLedger, number_of

MOST_TRIES: Final = 3
"""Runs that may fail to read some objects of a share before the scrub goes on with the next share."""

_is_address: Final = re.compile(r"[0-9a-f]{64}").fullmatch

_FIELDS: Final = (
    "store", "shares", "began_at", "why", "cycle", "cycle_at", "share", "at", "tries", "succeeded_at", "known",
    "manifests", "findings_total",
)  # fmt: skip


class NewCycle(StrEnum):
    """Why a scrub begins a new cycle."""

    NO_RECORD = "none"
    OTHER_STORE = "store"
    OTHER_SHARE = "shares"


class RunEnd(StrEnum):
    """What a run has read: all of its share, the share up to an address, or not all that it had to read."""

    READ = "read"
    PART = "part"
    UNREAD = "unread"


@dataclass(frozen=True)
class ScrubState:
    """
    How far a scrub is. Times are in seconds since the epoch, 0.0: never.

    *share* is the index of the share that the next run reads, and *at* the address where it begins. *cycle* counts
    from 1; it *began_at* `cycle_at`, and the first one at *began_at*, because of *why*. *tries* is how many runs have
    failed to read objects of this share. *verified* is how many shares have been read since *began_at*, and *oldest_at*
    when the share was read whose reading is the longest ago; *began_at* while a share has never been read.
    *succeeded_at* is the end of the last run that read what it had to. *findings* is the number of wrong objects and
    unreadable manifests by the last reading of each share; *findings_total* adds up those of all runs.
    """

    store: str
    shares: int
    share: int
    at: str
    cycle: int
    cycle_at: float
    began_at: float
    why: str
    tries: int
    verified: int
    oldest_at: float
    succeeded_at: float
    findings: int
    findings_total: int


@dataclass(frozen=True)
class ScrubRun:
    """
    What a run of a scrub came to.

    It read from *first* on. *next_at* is where the next run begins, if the position moves. *found* is the number of
    wrong objects, *manifests* that of unreadable manifests. *began_at* in seconds since the epoch. *tried*: objects
    were read, so an object that could not be read is no sign of an outage.
    """

    job_id: str
    store: str
    part: ScrubPart
    first: str
    end: RunEnd
    next_at: str
    found: int
    manifests: int
    began_at: float
    tried: bool


class ScrubLedger(ScheduleLedger):
    """The records and states of scrubs, by name. A state takes up to about 150 bytes for each share."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client, SCRUB)
        self._runner = ScriptRunner(client)

    def begin_cycle(self, store: str, part: ScrubPart, *, damaged: bool = False) -> NewCycle | None:
        """
        Begin a new cycle at *part*, the first share of *store*, if the state is of another store or share, or missing.

        A *damaged* state counts as missing. Return why, None if the state stands. May be repeated.
        """
        arguments: list[str | float] = [store, part.shares, part.first, int(damaged)]
        why = self._runner.run(scripts.BEGIN_SCRUB, self._keys(part.name), arguments)
        return NewCycle(str(why)) if why else None

    def settle(self, run: ScrubRun) -> bool:
        """Record a run that has ended; return False if it was recorded before, or if the scrub is elsewhere by now."""
        part = run.part
        arguments: list[str | float] = [
            run.job_id,
            run.store,
            part.shares,
            part.share,
            run.first,
            run.end,
            run.next_at,
        ]
        arguments += [run.found, run.manifests, run.began_at, int(run.tried), MOST_TRIES]
        return bool(self._runner.run(scripts.SETTLE_SCRUB, self._keys(part.name), arguments))

    def state(self, name: str) -> ScrubState | None:
        """Return the state of a scrub, None if there is none, or none that can be right."""
        state, verified, _ = self._keys(name)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(state, _FIELDS)
            pipe.zcard(verified)
            pipe.zrange(verified, 0, 0, withscores=True)
            values, count, oldest = pipe.execute()
        found = {field: str(value or "") for field, value in zip(_FIELDS, values, strict=True)}
        shares, share = int(number_of(found["shares"])), int(number_of(found["share"]))
        if not _is_address(found["at"]) or share >= shares:
            return None
        began_at = number_of(found["began_at"])
        return ScrubState(
            store=found["store"],
            shares=shares,
            share=share,
            at=found["at"],
            cycle=int(number_of(found["cycle"])),
            cycle_at=number_of(found["cycle_at"]),
            began_at=began_at,
            why=found["why"] if found["why"] in set(NewCycle) else "",
            tries=int(number_of(found["tries"])),
            verified=min(int(count), shares),
            oldest_at=float(oldest[0][1]) if count >= shares else began_at,
            succeeded_at=number_of(found["succeeded_at"]),
            findings=int(number_of(found["known"]) + number_of(found["manifests"])),
            findings_total=int(number_of(found["findings_total"])),
        )

    def _keys(self, name: str) -> list[RedisKey]:
        return [RedisKey(f"{self._key(name)}:{part}") for part in ("state", "verified", "findings")]
