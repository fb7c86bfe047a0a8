"""
The type of each key that a fleet shares, in Redis' words.

A key that a version writes under a new type must get a new name: nodes of other versions would set it aside. The keys
of single jobs are not here. Damage to them costs only that job, whose readers report it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from snapferry.workers.lua import RedisKey

HASH: Final = "hash"
LIST: Final = "list"
SET: Final = "set"
STRING: Final = "string"
ZSET: Final = "zset"

# No lock or mark is held for longer than this many seconds.
LONGEST_LOCK_S: Final = 2 * 86400


@dataclass(frozen=True)
class KeyType:
    """
    The *type* of a key, and *other* if it may also have another one. *expires*: it is a lock, which always expires.

    Two types: the name of a store is a part of the key, and a store may be named like the end of another key.
    """

    type: str
    other: str = ""
    expires: bool = False


_LOCK: Final = KeyType(STRING, expires=True)

SHARED: Final[Mapping[RedisKey, KeyType]] = {
    RedisKey(name): found
    for names, found in (
        (
            (
                "snapferry:jobs", "snapferry:ended", "snapferry:untold", "snapferry:orchestrators",
                "snapferry:success:mirror", "snapferry:success:store", "snapferry:traffic:series",
                "snapferry:beat::schedule", "snapferry.unacked_index",
            ),
            KeyType(ZSET),
        ),
        (
            (
                "snapferry:open", "snapferry:expected", "snapferry:limits:stores", "snapferry:beat::statics",
                "_kombu.binding.snapferry.pidbox", "_kombu.binding.snapferry.events", "_kombu.binding.snapferry.plan",
                "_kombu.binding.snapferry.copy", "_kombu.binding_permanent.snapferry.plan",
                "_kombu.binding_permanent.snapferry.copy",
            ),
            KeyType(SET),
        ),
        (
            (
                "snapferry:workers", "snapferry:parked", "snapferry:unparked", "snapferry:suspects",
                "snapferry:notify:problems", "snapferry:notify:outbox", "snapferry:notify:deliveries",
                "snapferry.unacked",
            ),
            KeyType(HASH),
        ),
        (("snapferry:quarantine",), KeyType(LIST)),
        (("snapferry:instance", "snapferry:notify:told_at", "snapferry:beat::running"), KeyType(STRING)),
        (
            (
                "snapferry:watcher", "snapferry:notify:lock", "snapferry:beat::lock", "snapferry:mark:reconciler",
                "snapferry:mark:expired", "snapferry:mark:drain", "snapferry:mark:writable",
                "snapferry.unacked_mutex",
            ),
            _LOCK,
        ),
    )
    for name in names
}  # fmt: skip
"""The keys with fixed names."""

NAMED: Final[tuple[tuple[re.Pattern[str], KeyType], ...]] = tuple(
    (re.compile(pattern, re.DOTALL), found)
    for pattern, found in (
        (r"snapferry:(mirror|scrub):[a-z0-9_-]+:taken|snapferry:mark:.+|snapferry:reach:[^:]+:(away|turn)", _LOCK),
        (r"snapferry:(mirror|scrub):[a-z0-9_-]+|snapferry:scrub:[a-z0-9_-]+:state", KeyType(HASH)),
        (r"snapferry:scrub:[a-z0-9_-]+:findings", KeyType(HASH)),
        (r"snapferry:scrub:[a-z0-9_-]+:verified", KeyType(ZSET)),
        (r"snapferry:(pace:(rate|requests)|flights):.+", KeyType(HASH, ZSET)),
        (r"snapferry:beat:(scrub:)?[a-z0-9_-]+|snapferry:reach:[^:]+(:known)?", KeyType(HASH)),
        (r"snapferry:limits:store:.+", KeyType(HASH)),
        (r"snapferry:traffic:(minutes|hours|report):.+", KeyType(STRING)),
        (r"snapferry\.(plan|copy)(\.[A-Za-z0-9_.-]+)?(\x06\x16\d+)?", KeyType(LIST)),
    )
)  # fmt: skip
"""The keys with the names of mirrors, scrubs, stores, workers and queues in them: patterns of whole names."""

PATTERN: Final = "snapferry[:.][^j]*"
"""The keys that `NAMED` may be about, as a pattern of Redis: all but those of jobs."""


def type_of(key: str) -> KeyType | None:
    """Return the type that *key* must have, None if it is not known."""
    if (found := SHARED.get(RedisKey(key))) is not None:
        return found
    return next((one for pattern, one in NAMED if pattern.fullmatch(key)), None)
