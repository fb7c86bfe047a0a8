"""
What a process tells the others about a part that it has copied. The record is kept where strangers may write.

A record is signed (HMAC-SHA256) with the secret of its upload, which only the destination holds. A record without this
signature is ignored.
"""

from __future__ import annotations

import hmac
import json
from typing import Final, NamedTuple

LONGEST_RECORD: Final = 8 * 1024
_VALUE_BYTES: Final = 32


class DonePart(NamedTuple):
    """A *part* that was written: the store's *receipt* for it, and the chaining *value* of its bytes."""

    part: int
    receipt: str
    value: bytes


def seal(secret: bytes, upload: str, done: DonePart) -> str:
    """Return the record of a part of the *upload* with that name, signed with its *secret*."""
    fields = [done.part, done.receipt, done.value.hex()]
    return json.dumps([*fields, _signature(secret, upload, fields)])


def unseal(secret: bytes, upload: str, record: str) -> DonePart | None:
    """Return the part that `seal` made *record* of; None for any other text."""
    if len(record) > LONGEST_RECORD:
        return None
    try:
        part, receipt, value, signature = json.loads(record)
        right = _signature(secret, upload, [part, receipt, value])
        if type(part) is not int or not hmac.compare_digest(right.encode(), str(signature).encode()):
            return None
        found = DonePart(part, str(receipt), bytes.fromhex(value))
    except (ValueError, TypeError, RecursionError):
        return None
    return found if len(found.value) == _VALUE_BYTES else None


def _signature(secret: bytes, upload: str, fields: list[object]) -> str:
    return hmac.digest(secret, json.dumps([upload, *fields]).encode(), "sha256").hex()
