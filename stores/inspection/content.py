"""
One object for reading, verified before the first byte is used.

It is kept in memory while it is small, else in a temporary file without a name, which leaves nothing behind.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Final, cast

from snapferry.stores.address import Address
from snapferry.stores.errors import KeyMissing, StoreFault
from snapferry.stores.hashing import CHUNK_BYTES, HashingReader
from snapferry.stores.pools.streaming import Transfer, object_missing, stage, verify
from snapferry.stores.runtime.containment import contained
from snapferry.stores.stream_store import StreamStore
from snapferry.stores.streams import Upload
from snapferry.stores.text.format import counted

# A larger object is kept in a temporary file.
MEMORY_BYTES: Final = 32 * 1024 * 1024


class _Spool(Upload):
    """An upload into memory or a temporary file, which can be read after it was verified."""

    def __init__(self, label: str, address: Address) -> None:
        self._label, self._address = label, address
        self.file = cast("IO[bytes]", tempfile.SpooledTemporaryFile(MEMORY_BYTES))

    def write(self, chunk: bytes) -> None:
        try:
            self.file.write(chunk)
        except OSError as error:
            raise StoreFault(self._label, self._address, _no_room(error.strerror or str(error))) from error

    def commit(self) -> None:
        self.file.seek(0)

    def abort(self) -> None:
        self.file.close()


def _no_room(why: str) -> str:
    return (
        f"the object cannot be kept in the temporary directory {tempfile.gettempdir()} until it is verified: {why};"
        " free space there, set TMPDIR to a larger disk, or use --stream"
    )


@contextmanager
def verified(store: StreamStore, address: Address, size_hint: int) -> Iterator[Iterator[bytes]]:
    """
    Read an object of *store* whole; then let the block use its bytes, in pieces.

    Memory does not grow with the object. Wrong bytes are read a second time. Raises `ObjectMissing`, `IntegrityError`,
    what the store raises, and `StoreFault` if the temporary directory has no room; the block is not entered then.
    """

    def check_room(announced: int) -> None:
        free = shutil.disk_usage(tempfile.gettempdir()).free
        if announced > max(MEMORY_BYTES, free):
            raise StoreFault(
                store.label, address, _no_room(f"it has {counted(announced, 'byte')}, and {free:,} are free")
            )

    spool: list[_Spool] = []

    def upload() -> Upload:
        spool.append(_Spool(store.label, address))
        return spool[-1]

    staged, _ = stage(
        Transfer(
            label=store.label,
            subject=address,
            address=address,
            open=lambda: store.open_object(address, size_hint=size_hint),
            upload=upload,
            size_hint=size_hint,
            piece_bytes=store.piece_bytes_of(size_hint),
            check_room=check_room,
        )
    )
    with staged:
        staged.commit()
        yield iter(lambda: spool[-1].file.read(CHUNK_BYTES), b"")


def streamed(store: StreamStore, address: Address, size_hint: int, write: Callable[[bytes], object]) -> None:
    """
    Pass the bytes of an object to *write* while they are read, and verify them at the end.

    Raises `IntegrityError` after wrong bytes were passed on, and otherwise as `verified` does; some bytes may have been
    passed on then. What *write* raises passes unchanged.
    """
    piece = max(CHUNK_BYTES, store.piece_bytes_of(size_hint))
    try:
        with contained(store.label, address):
            opened = store.open_object(address, size_hint=size_hint)
        with opened:
            reader = HashingReader(opened)
            while chunk := _read(store, address, reader, piece):
                write(chunk)
    except KeyMissing as error:
        raise object_missing(store.label, address) from error
    verify(
        store.label, address, address, reader.hexdigest(), "the object is corrupt, and was already passed on"
    )


def _read(store: StreamStore, address: Address, reader: HashingReader, size: int) -> bytes:
    with contained(store.label, address):
        return reader.read(size)
