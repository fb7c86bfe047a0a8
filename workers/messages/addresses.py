"""
Addresses in messages and records: their 32 bytes each, concatenated, in base64.

As hexadecimal text a batch would be half as long again.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable

from snapferry.stores.address import (
    DIGEST_BYTES,
    Address,
    SnapshotId,
    addresses_in,
    digests_of,
    parse_address,
)


def encode_addresses(addresses: Iterable[str]) -> str:
    """Return *addresses* or snapshot ids encoded."""
    return encode_digests(digests_of(addresses))


def encode_digests(digests: bytes) -> str:
    """Return the addresses with these *digests*, concatenated, encoded."""
    return base64.b64encode(digests).decode()


def encode_snapshot_ids(snapshot_ids: Iterable[str]) -> str:
    """
    Return the ids that a person or a program gave, encoded.

    Raises `InvalidAddress`, and ValueError for an id that is given twice.
    """
    seen: dict[str, None] = {}
    for text in snapshot_ids:
        snapshot_id = parse_address(text)
        if snapshot_id in seen:
            raise ValueError(f"{snapshot_id} is given twice")
        seen[snapshot_id] = None
    return encode_addresses(seen)


def decode_addresses(encoded: str) -> list[Address]:
    """Return the addresses that were encoded. Raises ValueError for text that `encode_addresses` does not return."""
    return addresses_in(decode_digests(encoded))


def decode_snapshot_ids(encoded: str) -> list[SnapshotId]:
    """Return the snapshot ids that were encoded. Raises ValueError as `decode_addresses`."""
    return [SnapshotId(address) for address in decode_addresses(encoded)]


def decode_digests(encoded: str) -> bytes:
    """Return the digests of the addresses that were encoded, concatenated. Raises ValueError as `decode_addresses`."""
    try:
        digests = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"addresses are not encoded: {error}") from None
    if len(digests) % DIGEST_BYTES:
        raise ValueError(f"encoded addresses are not {DIGEST_BYTES} bytes each")
    return digests
