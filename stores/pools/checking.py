"""
Whether the bytes of an object are those of its address.

*read twice*: an object is corrupt only if its bytes were wrong in two readings of all of them, because the connection
may have altered them. The same holds for one that the disk of the store cannot read.
*bounded*: memory does not grow with the object.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from snapferry.stores.address import Address, Key
from snapferry.stores.backend import Backend
from snapferry.stores.errors import IntegrityError, KeyMissing, StoreFault, StoreUnavailable, Unreadable
from snapferry.stores.hashing import CHUNK_BYTES, HashingReader, digest
from snapferry.stores.runtime.containment import contained
from snapferry.stores.runtime.oversize import LARGEST_BYTES
from snapferry.stores.streams import OpenReader, lent
from snapferry.stores.text.format import counted

from .streaming import CORRUPT, object_missing, verify

logger = logging.getLogger(__name__)

OnBytes = Callable[[int], None] | None


def check(backend: Backend, key: Key, address: Address, size_hint: int, on_bytes: OnBytes) -> int:
    """
    Read what *backend* has under *key* and return its length in bytes, if it hashes to *address*.

    Raises `ObjectMissing` and `IntegrityError`, and what the backend raises.
    """
    try:
        with contained(backend.label, address):
            data = _fetch(backend, key, size_hint)
            # Longer bytes may have been cut off, and so be no reading: neither a good one nor a bad one.
            if data is not None and len(data) <= max(size_hint, 0) and digest(data) == address:
                if on_bytes is not None and data:
                    on_bytes(len(data))
                return len(data)
            try:
                return _check_once(backend, key, address, size_hint, on_bytes)
            except IntegrityError as error:
                logger.warning("wrong bytes, reading again: %s", error)
            return _check_once(backend, key, address, size_hint, on_bytes)
    except KeyMissing as error:
        raise object_missing(backend.label, address) from error


def _fetch(backend: Backend, key: Key, size_hint: int) -> bytes | None:
    try:
        return backend.fetch(key, size_hint)
    except Unreadable:
        # Two readings of all of its bytes decide.
        return None


def _check_once(backend: Backend, key: Key, address: Address, size_hint: int, on_bytes: OnBytes) -> int:
    with backend.open(key, size_hint=size_hint) as opened:
        announced: int | None = getattr(opened, "length", None)
        if announced is not None and announced > max(LARGEST_BYTES, size_hint):
            raise StoreFault(
                backend.label,
                address,
                f"has {counted(announced, 'byte')} where the manifest says {size_hint:,}, and was not read:"
                f" no store takes an object of more than {LARGEST_BYTES:,}",
            )
        reader = HashingReader(opened, on_bytes)
        pieces = lent(opened)
        if pieces is not None:
            for piece in pieces:
                reader.saw(piece)
        else:
            _read(opened, reader, max(CHUNK_BYTES, backend.capabilities.piece_bytes_of(size_hint)))
    if announced is not None and reader.length != announced:
        raise StoreUnavailable(
            backend.label, address, f"has {counted(reader.length, 'byte')} where {announced:,} were announced"
        )
    about = f"{CORRUPT} and has {counted(reader.length, 'byte')}"
    if size_hint and size_hint != reader.length:
        about += f" where the manifest says {size_hint:,}"
    verify(backend.label, address, address, reader.hexdigest(), about)
    return reader.length


def _read(opened: OpenReader, reader: HashingReader, piece_bytes: int) -> None:
    announced: int | None = getattr(opened, "length", None)
    while reader.read(piece_bytes):
        if announced is not None and reader.length > announced:
            # An answer without an end.
            return
