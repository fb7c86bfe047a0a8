"""
BLAKE3 over bytes and streams.

The `blake3` package releases the interpreter lock for inputs of more than a
few KiB, so hashing in threads runs in parallel.
"""

from __future__ import annotations

from collections.abc import Callable

from blake3 import blake3

from .address import Address
from .runtime.interruption import checkpoint
from .streams import Buffer, Reader

CHUNK_BYTES = 256 * 1024


def digest(data: bytes) -> Address:
    """Return the address of *data*: its BLAKE3 digest, 64 lowercase hex digits."""
    # Called for every object, as `object_key` is.
    return blake3(data).hexdigest()  # type: ignore[return-value]


class HashingReader:
    """
    A reader that hashes what passes through it.

    After the last byte was read, `hexdigest` is the address of the whole
    stream; before that, of what has been read so far.
    """

    def __init__(self, reader: Reader, on_bytes: Callable[[int], None] | None = None) -> None:
        self._reader = reader
        self._hasher = blake3()
        self._on_bytes = on_bytes
        self.length = 0

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes, fewer only at the end; raises what the inner reader and `checkpoint` raise."""
        chunk = self._reader.read(size)
        if chunk:
            self.saw(chunk)
        return chunk

    def saw(self, chunk: Buffer) -> None:
        """Count and hash *chunk*, the next of the stream's bytes that came another way than by `read`."""
        checkpoint()
        self._hasher.update(chunk)
        self.length += len(chunk)
        if self._on_bytes is not None:
            self._on_bytes(len(chunk))

    def hexdigest(self) -> Address:
        """Return the address of the bytes read so far."""
        return Address(self._hasher.hexdigest())
