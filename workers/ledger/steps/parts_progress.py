"""What is shown of the objects of a job that several workers copy in parts."""

from __future__ import annotations

import time
from itertools import islice
from typing import Final

from snapferry.stores.address import parse_address
from snapferry.stores.errors import InvalidAddress
from snapferry.stores.pools.in_parts import MOST_PARTS
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import job_key, parts_keys
from snapferry.workers.ledger.state import ObjectInParts
from snapferry.workers.messages import BatchMessage

from .parts import damage_told, is_upload

# Objects of a job, and parts of an object that workers copy at the same time: more are not shown.
_OBJECTS: Final = 20
_CLAIMS: Final = 1000


class PartsProgress(LedgerBase):
    """Reads only. Anyone who writes to this Redis may forge it."""

    @damage_told
    def objects_in_parts(self, job_id: str) -> list[ObjectInParts]:
        """Return some of the objects whose copies in parts have begun and not ended. Raises `RedisError`."""
        noted = islice(self._redis.hscan_iter(job_key(job_id, "parts"), count=_OBJECTS), _OBJECTS)
        found = [self._in_parts(job_id, str(address), str(note)) for address, note in noted]
        return sorted(filter(None, found), key=lambda one: one.address)

    def _in_parts(self, job_id: str, address: str, note: str) -> ObjectInParts | None:
        upload, _, text = note.partition(" ")
        try:
            parse_address(address)
            message = BatchMessage.model_validate_json(text)
        except (InvalidAddress, ValueError):
            return None
        if not is_upload(upload):
            return None
        to_do, holders, done = parts_keys(job_id, upload)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.zcard(to_do)
            pipe.llen(done)
            # The score of a claimed part is when its claim ends.
            pipe.zrangebyscore(to_do, time.time(), "+inf", start=0, num=_CLAIMS)
            left, recorded, claimed = pipe.execute()
        held = self._redis.hmget(holders, claimed) if claimed else []
        names = [str(holder).partition("#")[2].partition("@")[2][:255] for holder in held if holder]
        # A part that was lost and copied again has two records.
        parts = min(left + recorded, MOST_PARTS)
        workers = sorted({printable(name) for name in names if name})
        return ObjectInParts(address, sum(message.sizes), parts, max(0, parts - left), tuple(workers))
