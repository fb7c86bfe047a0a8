"""Repairs: which objects of a destination were wrong, and what took their place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from snapferry.stores.address import Address, parse_address
from snapferry.stores.errors import InvalidAddress
from snapferry.stores.text.printable import printable
from snapferry.workers.ledger import scripts
from snapferry.workers.ledger.base import LedgerBase
from snapferry.workers.ledger.keys import job_key
from snapferry.workers.ledger.state import Repair
from snapferry.workers.redis_json import parse_json

# The most repairs of a job that are recorded. How many objects were repaired is known exactly in any case.
REPAIRS_KEPT: Final = 10_000


class RepairLedger(LedgerBase):
    """
    The repairs of a job, by address. Every method may be repeated.

    An object is recorded when it was found wrong, so the record of an object that a killed worker repaired lacks its
    source at most.
    """

    def note_repairs(self, job_id: str, repairs: Sequence[Repair]) -> None:
        """Record *repairs*, up to `REPAIRS_KEPT` in all. Does nothing where the job is unknown."""
        arguments: list[str | float] = [self._expires_s, REPAIRS_KEPT]
        for repair in repairs:
            arguments += [repair.address, json.dumps([repair.wrong, repair.source, repair.quarantined])]
        if repairs:
            self._run(scripts.NOTE_REPAIRS, [job_key(job_id), job_key(job_id, "repairs")], arguments)

    def forget_repair(self, job_id: str, address: Address) -> None:
        """Remove the record of an object that was not repaired."""
        self._redis.hdel(job_key(job_id, "repairs"), address)

    def repairs(self, job_id: str) -> list[Repair]:
        """Return the repairs of a job that are recorded, by address. Unreadable records are left out."""
        found: dict[Any, Any] = self._redis.hgetall(job_key(job_id, "repairs"))
        return sorted(filter(None, (_repair(str(address), str(text)) for address, text in found.items())))


def _repair(address: str, text: str) -> Repair | None:
    try:
        wrong, source, quarantined = (printable(str(part)) for part in parse_json(text))
        return Repair(parse_address(address), wrong, source, quarantined)
    except (ValueError, TypeError, InvalidAddress):
        return None
