"""
Addresses, snapshot ids, and the keys that they are filed under.

An address is the BLAKE3 digest of an object's bytes, a snapshot id that of a
manifest's text; both are 64 lowercase hex digits. Keys are sharded 3/3/3/rest:

    object_key("49dc870d…")   -> ".objects/49d/c87/0d…"
    manifest_key("8b1f…")     -> ".manifests/8b1/f…"

Only this module knows the layout, and only a text that passed
`parse_address` becomes a key: that makes path traversal impossible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from .errors import InvalidAddress

OBJECTS: Final = ".objects/"
MANIFESTS: Final = ".manifests/"

ADDRESS_LENGTH: Final = 64
DIGEST_BYTES: Final = ADDRESS_LENGTH // 2

# The digest of no bytes at all. The empty object is real and is stored like any other.
EMPTY_ADDRESS: Final = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"

_is_address = re.compile(r"[0-9a-f]{64}").fullmatch
_sharded = re.compile(r"([0-9a-f]{3})/([0-9a-f]{3})/([0-9a-f]{3})/([0-9a-f]{55})").fullmatch


def parse_address(text: str) -> str:
    """
    Return *text* if it is an address or a snapshot id.

    Raises `InvalidAddress` for anything but 64 lowercase hex digits.
    """
    if not _is_address(text):
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise InvalidAddress("", shown, "is not 64 lowercase hex digits")
    return text


def digests_of(addresses: Iterable[str]) -> bytes:
    """Return the digests of *addresses*, `DIGEST_BYTES` each, run together. Each must have passed `parse_address`."""
    return bytes.fromhex("".join(addresses))


def addresses_in(digests: bytes | bytearray | memoryview) -> list[str]:
    """Return the addresses with these *digests*: what `digests_of` was given."""
    digits = digests.hex()
    return [digits[at : at + ADDRESS_LENGTH] for at in range(0, len(digits), ADDRESS_LENGTH)]


def object_key(address: str) -> str:
    """Return the key of the object at *address*, which must have passed `parse_address`."""
    return f".objects/{address[:3]}/{address[3:6]}/{address[6:9]}/{address[9:]}"


def manifest_key(snapshot_id: str) -> str:
    """Return the key of the manifest *snapshot_id*, which must have passed `parse_address`."""
    return f".manifests/{snapshot_id[:3]}/{snapshot_id[3:6]}/{snapshot_id[6:9]}/{snapshot_id[9:]}"


def address_of(key: str, prefix: str) -> str | None:
    """
    Return the address that *key* files under *prefix* (`OBJECTS` or `MANIFESTS`).

    None for every other shape: a store may hold strangers, such as the
    temporary files of a writer that died, and they are nobody's objects.
    """
    match = _sharded(key[len(prefix) :]) if key.startswith(prefix) else None
    return "".join(match.groups()) if match else None
