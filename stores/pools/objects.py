"""
Objects on a backend: filed under their addresses, and verified.

*torn is absent*: an object of length 0 that is not the empty object counts as absent. A file system that lost power can
leave such files behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from snapferry.stores.address import OBJECTS, Address, address_of, object_key, parse_addresses
from snapferry.stores.backend import Backend
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.errors import IntegrityError, KeyMissing, StoreFault, Unreadable
from snapferry.stores.features import FiniteSpace, KeepsUnfinished, feature_of
from snapferry.stores.hashing import CHUNK_BYTES, digest
from snapferry.stores.runtime.containment import contain, contained
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.runtime.oversize import LARGEST_BYTES, far_beyond
from snapferry.stores.stream_store import ListedObject, Memory, Replaced, StreamStore, Survey
from snapferry.stores.streams import OpenReader, Upload
from snapferry.stores.text.format import counted

from . import existence
from .absence.pieces import absent
from .existence import OBJECT_SPACE
from .quarantine import holds_object, replace_wrong
from .streaming import Transfer, object_missing, stage, verify

OnBytes = Callable[[int], None] | None


class ObjectPool:
    """The objects of a store, on *backend*. Its methods are those of `StreamStore` that are about objects."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def has(self, address: Address) -> bool:
        with contained(self.backend.label, address):
            return OBJECT_SPACE.is_whole(address, self.backend.size(object_key(address)))

    def survey(self, addresses: Iterable[str]) -> Survey:
        wanted = parse_addresses(addresses)
        with contained(self.backend.label):
            return existence.survey(self.backend, OBJECT_SPACE, wanted)

    def needed_of_many(self, addresses: Iterable[Address], memory: Memory, *, again: bool) -> list[Address]:
        wanted = list(addresses)
        if not self.backend.capabilities.pages_listings:
            return self.survey(wanted).needed
        with contained(self.backend.label):
            return memory.needed(self.backend, wanted, again=again)

    def lengths(self, addresses: Iterable[Address]) -> dict[Address, int | None]:
        with contained(self.backend.label):
            return existence.lengths(self.backend, OBJECT_SPACE, list(addresses))

    def absent(self, addresses: AddressSet) -> AddressSet:
        with contained(self.backend.label):
            return absent(self.backend, OBJECT_SPACE, addresses)

    def list(self) -> Iterator[ListedObject]:
        with contained(self.backend.label):
            for key, length, modified in self.backend.keys(OBJECTS):
                if (address := address_of(key, OBJECTS)) is not None:
                    yield ListedObject(address, length, modified)

    def get(self, address: Address) -> bytes:
        label = self.backend.label
        try:
            with contained(label, address), self.backend.open(object_key(address)) as reader:
                parts = []
                while chunk := reader.read(CHUNK_BYTES):
                    checkpoint()
                    parts.append(chunk)
        except KeyMissing as error:
            raise object_missing(label, address) from error
        data = b"".join(parts)
        verify(label, address, address, digest(data))
        return data

    def put(self, address: Address, data: bytes) -> None:
        label = self.backend.label
        if digest(data) != address:
            raise IntegrityError(
                label, address, f"{counted(len(data), 'byte')} with another hash; nothing was written"
            )
        with contained(label, address):
            self.backend.write(object_key(address), data)

    def fetch(self, address: Address, size_hint: int) -> bytes | None:
        try:
            data = self.backend.fetch(object_key(address), size_hint)
        except KeyMissing as error:
            raise object_missing(self.backend.label, address) from error
        except Unreadable:
            # Only two readings decide, and `open` is another one.
            return None
        except Exception as error:
            contain(error, self.backend.label, address)
            raise
        return data if data is not None and digest(data) == address else None

    def open(self, address: Address, size_hint: int) -> OpenReader:
        return self.backend.open(object_key(address), size_hint=size_hint)

    def copy(self, source: StreamStore, address: Address, size_hint: int, on_bytes: OnBytes) -> int:
        data = source.fetch_object(address, size_hint)
        if data is not None:
            # Most objects: one write needs no upload.
            if on_bytes is not None and data:
                on_bytes(len(data))
            try:
                self.backend.write(object_key(address), data)
            except Exception as error:
                contain(error, self.backend.label, address)
                raise
            return len(data)
        upload, length = self._stage_stream(source, address, size_hint, on_bytes)
        with contained(self.backend.label, address), upload:
            upload.commit()
        return length

    def stage(
        self, source: StreamStore, address: Address, size_hint: int, on_bytes: OnBytes
    ) -> tuple[Upload, int]:
        data = source.fetch_object(address, size_hint)
        if data is None:
            return self._stage_stream(source, address, size_hint, on_bytes)
        if on_bytes is not None and data:
            on_bytes(len(data))
        try:
            return self.backend.upload(object_key(address), len(data)).filled(data), len(data)
        except Exception as error:
            contain(error, self.backend.label, address)
            raise

    def replace(self, source: StreamStore, address: Address, size_hint: int, on_bytes: OnBytes) -> Replaced:
        length = 0

        def staged() -> Upload:
            nonlocal length
            upload, length = self.stage(source, address, size_hint, on_bytes)
            return upload

        kept = replace_wrong(self.backend, object_key(address), address, staged, holds_object(address))
        return Replaced(length, kept or "", was_right=kept is None)

    def _stage_stream(
        self, source: StreamStore, address: Address, size_hint: int, on_bytes: OnBytes
    ) -> tuple[Upload, int]:
        transfer = Transfer(
            label=source.label,
            subject=address,
            address=address,
            open=lambda: source.open_object(address, size_hint=size_hint),
            upload=lambda: self.backend.upload(object_key(address), size_hint),
            size_hint=size_hint,
            piece_bytes=max(source.piece_bytes_of(size_hint), self.piece_bytes_of(size_hint)),
            on_bytes=on_bytes,
            check_room=lambda announced: self._check_room(source, address, announced, size_hint),
        )
        return stage(transfer)

    def piece_bytes_of(self, size_hint: int) -> int:
        return self.backend.capabilities.piece_bytes_of(size_hint)

    def _check_room(self, source: StreamStore, address: Address, announced: int, size_hint: int) -> None:
        """Refuse an object that is far longer than its advisory size and that does not fit here."""
        if announced <= far_beyond(size_hint):
            return
        space = feature_of(self.backend, FiniteSpace)
        free = None if space is None else space.free_bytes()
        room = LARGEST_BYTES if free is None else min(free, LARGEST_BYTES)
        if announced > room:
            raise StoreFault(
                source.label,
                address,
                f"has {counted(announced, 'byte')} where the manifest says {size_hint:,}, and the destination has room"
                f" for {room:,}; nothing was written",
            )

    def commit(self, uploads: Sequence[Upload]) -> None:
        try:
            with contained(self.backend.label):
                self.backend.commit_all(uploads)
        except BaseException:
            for upload in uploads:
                upload.abort()
            raise

    def abort_unfinished(self, objects: Mapping[Address, int], *, dead_only: bool = False) -> None:
        unfinished = feature_of(self.backend, KeepsUnfinished)
        if unfinished is None:
            return
        for address, size in objects.items():
            with contained(self.backend.label, address):
                unfinished.abort_unfinished(object_key(address), size, dead_only=dead_only)

    def flush(self) -> None:
        with contained(self.backend.label):
            self.backend.flush()
