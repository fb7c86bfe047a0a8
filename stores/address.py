"""
Addresses, snapshot ids, and their keys.

An address is the BLAKE3 digest of an object's bytes, a snapshot id that of a
manifest's text; both are 64 lowercase hex digits. Keys are sharded 3/3/3/rest:

    object_key("49dc870d…")   -> ".objects/49d/c87/0d…"
    manifest_key("8b1f…")     -> ".manifests/8b1/f…"
    quarantine_key(key, "1")  -> ".quarantine/.objects/49d/c87/0d….1"

Only this module knows the layout, and only an `Address` or a `SnapshotId` becomes
a `Key`: that makes path traversal impossible. A text is parsed once, where it enters:
by `parse_address`, `parse_snapshot_id`, or `addresses_in`. (Names have keys of their own, see `stores.names.name`.)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final, NewType, cast

from .errors import InvalidAddress

Address = NewType("Address", str)
"""The address of an object: 64 lowercase hex digits."""

SnapshotId = NewType("SnapshotId", Address)
"""The address of a manifest."""

Key = NewType("Key", str)
"""The path of an object or a manifest inside a store."""

OBJECTS: Final = ".objects/"
MANIFESTS: Final = ".manifests/"
QUARANTINE: Final = ".quarantine/"

ADDRESS_LENGTH: Final = 64
DIGEST_BYTES: Final = ADDRESS_LENGTH // 2

_HEX_DIGITS: Final = b"0123456789abcdef"

# The digest of no bytes at all. The empty object is real and is stored like any other.
EMPTY_ADDRESS: Final = Address("af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262")

_is_address = re.compile(r"[0-9a-f]{64}").fullmatch
_is_start = re.compile(r"[0-9a-f]{1,64}").fullmatch
_is_sharded = re.compile(r"[0-9a-f]{3}/[0-9a-f]{3}/[0-9a-f]{3}/[0-9a-f]{55}").fullmatch


def parse_address(text: str) -> Address:
    """Return *text* as an address. Raises `InvalidAddress` for anything but 64 lowercase hex digits."""
    if not _is_address(text):
        shown = text if len(text) <= 80 else text[:77] + "..."
        raise InvalidAddress("", shown, "is not 64 lowercase hex digits")
    return Address(text)


def parse_addresses(texts: Iterable[str]) -> list[Address]:
    """Return *texts* as addresses: as `parse_address` for each, in a fraction of the time."""
    found = list(texts)
    return cast("list[Address]", found) if are_addresses(found) else list(map(parse_address, found))


def are_addresses(texts: Sequence[str]) -> bool:
    """Return whether `parse_address` raises for none of *texts*."""
    return are_hex(texts) and {ADDRESS_LENGTH}.issuperset(map(len, texts))


def are_hex(texts: Iterable[str]) -> bool:
    """Return whether *texts* have lowercase hex digits alone."""
    digits = "".join(texts)
    return digits.isascii() and not digits.encode().translate(None, _HEX_DIGITS)


def parse_snapshot_id(text: str) -> SnapshotId:
    """Return *text* as a snapshot id. Raises `InvalidAddress` for anything but 64 lowercase hex digits."""
    return SnapshotId(parse_address(text))


def digests_of(addresses: Iterable[str]) -> bytes:
    """Return the digests of *addresses*, `DIGEST_BYTES` each, concatenated."""
    return bytes.fromhex("".join(addresses))


def addresses_in(digests: bytes | bytearray | memoryview) -> list[Address]:
    """Return the addresses with these *digests*: the inverse of `digests_of`."""
    digits = digests.hex()
    found = [digits[at : at + ADDRESS_LENGTH] for at in range(0, len(digits), ADDRESS_LENGTH)]
    return cast("list[Address]", found)


def object_key(address: Address) -> Key:
    """Return the key of the object at *address*."""
    # Called for every object: calling `Key` would take a tenth of the time again.
    return f".objects/{address[:3]}/{address[3:6]}/{address[6:9]}/{address[9:]}"  # type: ignore[return-value]


def manifest_key(snapshot_id: SnapshotId) -> Key:
    """Return the key of the manifest *snapshot_id*."""
    return Key(f".manifests/{snapshot_id[:3]}/{snapshot_id[3:6]}/{snapshot_id[6:9]}/{snapshot_id[9:]}")


def manifest_key_start(digits: str) -> str:
    """
    Return the beginning that the keys of the manifests whose ids begin with *digits* have in common.

    Raises `InvalidAddress` unless *digits* are 1 to 64 lowercase hex digits.
    """
    if not _is_start(digits):
        raise InvalidAddress("", digits[:80], "is not the beginning of 64 lowercase hex digits")
    parts = (digits[:3], digits[3:6], digits[6:9], digits[9:])
    return MANIFESTS + "/".join(filter(None, parts))


def quarantine_key(key: str, mark: str) -> Key:
    """Return the key under which wrong bytes of *key* are kept. *mark* tells several of them apart."""
    return Key(f"{QUARANTINE}{key}.{mark}")


def address_of(key: str, prefix: str) -> Address | None:
    """
    Return the address of the object with *key* if it begins with *prefix* (`OBJECTS` or `MANIFESTS`).

    None for every other shape: a store may hold foreign files, such as the temporary files of a writer that died.
    """
    if not key.startswith(prefix) or not _is_sharded(key, len(prefix)):
        return None
    return key[len(prefix) :].replace("/", "")  # type: ignore[return-value]  # as in `object_key`
