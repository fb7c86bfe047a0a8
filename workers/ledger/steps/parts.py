"""The parts of an object that several workers copy: which are to do, who copies which, and records of those done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from enum import IntEnum
from functools import wraps
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from redis.exceptions import DataError

from snapferry.stores.address import Address
from snapferry.stores.pools.in_parts import MOST_PARTS
from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import job_key, parts_keys
from snapferry.workers.lua import RedisKey

_P = ParamSpec("_P")
_T = TypeVar("_T")

CLAIM_S: Final = 30
"""Seconds of a claim. Its holder renews it well before."""

is_upload = re.compile(r"[0-9a-f]{1,64}").fullmatch

# The most entries that are read at once: other programs may write any number.
_AT_ONCE: Final = 1000


class Finished(IntEnum):
    """What became of a part that was written: recorded, left to another holder, or of no use any more."""

    RECORDED = 1
    TAKEN = 0
    ENDED = -1


class PartsOf(NamedTuple):
    """An object of a job that is copied in parts, by the name of its upload."""

    job_id: str
    upload: str

    @property
    def keys(self) -> list[RedisKey]:
        """The parts to do, their holders, and the records of those done."""
        return parts_keys(self.job_id, self.upload)


def damage_told(method: Callable[_P, _T]) -> Callable[_P, _T]:
    """Make *method* raise `RedisError` also if a key holds bytes that are not text."""

    @wraps(method)
    def telling(*arguments: _P.args, **named: _P.kwargs) -> _T:
        try:
            return method(*arguments, **named)
        except UnicodeDecodeError as error:
            raise DataError(f"the record of parts is damaged: {error}") from error

    return telling


class PartsLedger(LedgerBase):
    """
    The parts of objects. Anyone who writes to this Redis may forge them, so nothing here proves that a part is right.

    Every method may be repeated with the same arguments, except `claim_part`. All raise `RedisError`.
    """

    def begin_parts(self, of: PartsOf, address: Address, message: str) -> None:
        """
        Note that an object is copied in parts, by an upload that takes the place of every earlier one.

        *message* is for a worker that removes what may be left.
        """
        self._forget_earlier(of.job_id, address, but=of.upload)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(job_key(of.job_id, "parts"), address, f"{of.upload} {message}")
            pipe.expire(job_key(of.job_id, "parts"), self._expires_s)
            pipe.execute()

    @damage_told
    def begun_parts(self, job_id: str) -> list[str]:
        """Return the messages of the objects whose copies in parts have begun and not ended, some if there are many."""
        found = self._redis.hscan_iter(job_key(job_id, "parts"), count=_AT_ONCE)
        return [str(noted).partition(" ")[2] for _, (_, noted) in zip(range(_AT_ONCE), found, strict=False)]

    def end_parts(self, job_id: str, address: Address, upload: str = "") -> None:
        """
        Note that nothing is left of the copy of an object in parts, and remove the keys of its upload.

        Those of *upload*, too: a worker that lost its lease may offer parts after another one has ended the copy.
        """
        self._forget_earlier(job_id, address)
        if upload:
            self._redis.delete(*parts_keys(job_id, upload))
        self._redis.hdel(job_key(job_id, "parts"), address)

    def _forget_earlier(self, job_id: str, address: Address, *, but: str = "") -> None:
        try:
            noted = str(self._redis.hget(job_key(job_id, "parts"), address) or "")
        except UnicodeDecodeError:
            return
        upload = noted.partition(" ")[0]
        if upload != but and is_upload(upload):
            self._redis.delete(*parts_keys(job_id, upload))

    def offer_parts(self, of: PartsOf, parts: Iterable[int]) -> None:
        """Let workers claim *parts*, but for those that are claimed."""
        ordered = sorted(parts)
        for first in range(0, len(ordered), _AT_ONCE):
            names = map(_name, ordered[first : first + _AT_ONCE])
            self._run(scripts.OFFER_PARTS, [job_key(of.job_id), *of.keys], [self._expires_s, *names])

    @damage_told
    def claim_part(self, of: PartsOf, holder: str, parts: int) -> int | None:
        """Claim one of so many *parts* for *holder*; None if there is none now, and while the job is paused."""
        keys = [job_key(of.job_id), *of.keys[:2]]
        return _part(str(self._run(scripts.CLAIM_PART, keys, [holder, CLAIM_S, parts])))

    def renew_parts(self, of: PartsOf, holder: str, parts: Sequence[int]) -> None:
        """Renew the claims of *holder* on *parts*."""
        if parts:
            self._run(scripts.RENEW_PARTS, of.keys, [holder, CLAIM_S, self._expires_s, *map(_name, parts)])

    @damage_told
    def has_part(self, of: PartsOf, holder: str, part: int) -> bool:
        """Return whether *holder* has the claim on *part*."""
        return bool(self._redis.hget(of.keys[1], _name(part)) == holder)

    def finish_part(self, of: PartsOf, holder: str, part: int, record: str) -> Finished:
        """Record *part*, which *holder* has written, unless it lost its claim."""
        found = self._run(scripts.FINISH_PART, of.keys, [_name(part), holder, record, self._expires_s])
        return Finished(int(found))

    def give_up_part(self, of: PartsOf, holder: str, part: int) -> None:
        """End the claim of *holder* on *part*, which was not written."""
        self._run(scripts.GIVE_UP_PART, of.keys[:2], [_name(part), holder])

    @damage_told
    def finished_parts(self, of: PartsOf, first: int) -> tuple[int, list[str]]:
        """Return how many records of parts there are, and those from the number *first* on, some at a time."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.llen(of.keys[2])
            pipe.lrange(of.keys[2], first, first + _AT_ONCE - 1)
            length, found = pipe.execute()
        return int(length), [str(record) for record in found]

    @damage_told
    def parts_to_do(self, of: PartsOf) -> set[int]:
        """Return the parts that are to do or claimed; at most as many as an object can have."""
        found: Any = self._redis.zrange(of.keys[0], 0, MOST_PARTS - 1)
        return {part for name in found if (part := _part(str(name))) is not None}

    def parts_open(self, of: PartsOf) -> bool:
        """Return whether some parts are not done yet."""
        return bool(self._redis.exists(of.keys[0]))

    @damage_told
    def part_holders(self, of: PartsOf) -> dict[int, str]:
        """Return who copies which part now, some of them where there are too many."""
        found: dict[int, str] = {}
        for name, holder in self._redis.hscan_iter(of.keys[1], count=_AT_ONCE):
            if (part := _part(str(name))) is not None:
                found[part] = str(holder)[:512]
            if len(found) >= _AT_ONCE:
                break
        return found


def _name(part: int) -> str:
    """Return the name of a part: in the order of their names, parts are in the order of their numbers."""
    return f"{part:05}"


def _part(name: str) -> int | None:
    return int(name) if name.isascii() and name.isdecimal() and len(name) == 5 else None
