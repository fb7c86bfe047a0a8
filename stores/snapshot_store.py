"""
The StreamStore on any backend: addresses, verification, manifest last.

Invariants, whatever backend stands below:

*verified*: no bytes become visible at an address that they do not hash to, and
none that a store returned are used before they hash.
*manifest last*: `put_manifest` is the one place that writes a manifest, and it
asks for every object of the snapshot first, from scratch.
*torn is absent*: an object of length 0 that is not the empty object counts as
absent. A file system that lost power can leave such files behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from .address import EMPTY_ADDRESS, MANIFESTS, OBJECTS, address_of, manifest_key, object_key, parse_address
from .base import Backend, StreamStore, Upload
from .errors import (
    IntegrityError,
    KeyMissing,
    ManifestIncomplete,
    ManifestMissing,
    ObjectMissing,
    StoreError,
    StoreNotFound,
)
from .hashing import CHUNK_BYTES, HashingReader, digest
from .manifest import Manifest

# A listing answers 1,000 existence questions a request. Where strangers fill its pages, it is given up
# after this share of the requests that asking one by one would cost.
LISTING_KEYS_PER_PAGE = 1000
LISTING_MAX_SHARE = 0.02


class Staged(NamedTuple):
    """An object whose bytes are at a store and verified, but in no one's sight; *length* in bytes."""

    upload: Upload
    length: int


class SnapshotStore(StreamStore):
    """
    A store: *objects* and *manifests* name the backends, one and the same unless the pools are split.

    Safe to share between threads. Nothing is remembered between calls: every
    answer about presence comes from the store itself.
    """

    def __init__(self, objects: Backend, manifests: Backend | None = None) -> None:
        self._objects = objects
        self._manifests = manifests if manifests is not None else objects

    @property
    def label(self) -> str:
        """Where the objects are, without credentials."""
        return self._objects.label

    @property
    def concurrency(self) -> int:
        """How many objects one process should keep in flight."""
        return self._objects.capabilities.concurrency

    def check(self, *, for_writing: bool = False) -> None:
        """Make sure that the store is there and answers. Raises as `Backend.check` does; changes nothing."""
        self._objects.check(for_writing=for_writing)
        if self._manifests is not self._objects:
            self._manifests.check(for_writing=for_writing)

    def prepare(self) -> None:
        """Make the store ready for its first write. Raises as `Backend.prepare` does; may be called again."""
        self._objects.prepare()
        if self._manifests is not self._objects:
            self._manifests.prepare()

    def has_object(self, address: str) -> bool:
        """Say whether the object is there. An unanswered question raises, it is never False."""
        return _is_whole(address, self._objects.size(object_key(parse_address(address))))

    def objects_needed(self, addresses: Iterable[str]) -> list[str]:
        """
        Return those of *addresses* that are absent, in input order.

        Every address is checked for its form before the first question is
        asked. Costs one request per 1,000 addresses where the store pages its
        listings and holds little else between them, one per address otherwise.
        """
        wanted = [parse_address(address) for address in addresses]
        present, unasked = (
            self._listed(wanted) if self._objects.capabilities.pages_listings else (set(), wanted)
        )
        sizes = self._objects.sizes([object_key(address) for address in unasked])
        absent = {
            address for address, size in zip(unasked, sizes, strict=True) if not _is_whole(address, size)
        }
        if len(unasked) == len(wanted):
            return [address for address in wanted if address in absent]
        asked_singly = set(unasked)
        return [a for a in wanted if (a in absent if a in asked_singly else a not in present)]

    def _listed(self, wanted: list[str]) -> tuple[set[str], list[str]]:
        """Return which of *wanted* a ranged listing shows, and those that it did not get to."""
        ordered = sorted(set(wanted))
        pages = 1 + int(len(ordered) * LISTING_MAX_SHARE)
        if len(ordered) <= pages:
            return set(), wanted
        last_key = object_key(ordered[-1])
        listing = self._objects.keys(OBJECTS, start_after=object_key(ordered[0])[:-1])
        budget = pages * LISTING_KEYS_PER_PAGE
        unanswered = set(ordered)
        present: set[str] = set()
        for key, size in listing:
            if key > last_key:
                return present, []
            address = address_of(key, OBJECTS)
            if address in unanswered and _is_whole(address, size):
                present.add(address)
            budget -= 1
            if budget == 0:
                beyond = [a for a in ordered if object_key(a) > key]
                return present, beyond
        return present, []

    def get_object(self, address: str) -> bytes:
        """
        Return the object's bytes, which hash to *address*. For objects that fit in memory.

        Raises `ObjectMissing`, `IntegrityError`.
        """
        key = object_key(parse_address(address))
        try:
            with self._objects.open(key) as reader:
                parts = []
                while chunk := reader.read(CHUNK_BYTES):
                    parts.append(chunk)
        except KeyMissing as error:
            raise self._object_missing(address) from error
        data = b"".join(parts)
        self._verify(address, digest(data))
        return data

    def put_object(self, address: str, data: bytes) -> None:
        """
        File *data* under *address*. May be called again.

        Raises `IntegrityError` if it does not hash to *address*; then nothing was written.
        """
        key = object_key(parse_address(address))
        found = digest(data)
        if found != address:
            raise IntegrityError(
                self.label, address, f"was offered bytes that hash to {found}; nothing was written"
            )
        self._objects.write(key, data)

    def copy_object(
        self,
        source: SnapshotStore,
        address: str,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> int:
        """
        Bring one object from *source* to this store; return its length in bytes.

        Memory does not grow with the object. What is read is hashed once, and
        becomes visible here only if it hashes to *address*. *size_hint* is the
        advisory size, *on_bytes* is called with the length of each piece read.

        Raises `ObjectMissing` and `IntegrityError` for the source, and whatever
        either store raises; nothing became visible then. May be called again.
        """
        staged = self.stage_object(source, address, size_hint=size_hint, on_bytes=on_bytes)
        with staged.upload:
            staged.upload.commit()
        return staged.length

    def stage_object(
        self,
        source: SnapshotStore,
        address: str,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Staged:
        """
        As `copy_object`, up to the moment before the object becomes visible here.

        The upload must be committed, alone or by `commit_staged`, or aborted.
        """
        key = object_key(parse_address(address))
        try:
            with source._objects.open(key) as opened:
                reader = HashingReader(opened, on_bytes)
                upload = self._objects.upload(key, size_hint)
                try:
                    # One byte more than expected: a shorter answer is the end, and saves asking for it.
                    want = min(max(size_hint, 0) + 1, CHUNK_BYTES)
                    while True:
                        chunk = reader.read(want)
                        if chunk:
                            upload.write(chunk)
                        if len(chunk) < want:
                            break
                        want = CHUNK_BYTES
                    source._verify(address, reader.hexdigest())
                except BaseException:
                    upload.abort()
                    raise
        except KeyMissing as error:
            if error.store != source.label:
                raise
            raise source._object_missing(address) from error
        return Staged(upload, reader.length)

    def commit_staged(self, staged: Sequence[Staged]) -> None:
        """
        Make objects staged here visible, all of them.

        After an error some of them may be visible, each whole; the others are
        gone. They can be staged again.
        """
        try:
            self._objects.commit_all([one.upload for one in staged])
        finally:
            for one in staged:
                one.upload.abort()

    @property
    def commits_together(self) -> int:
        """How many staged objects are worth committing at once."""
        return self._objects.capabilities.commits_together

    def flush(self) -> None:
        """Return when every object written so far survives a power cut."""
        self._objects.flush()

    def read_manifest(self, snapshot_id: str) -> Manifest:
        """
        Return the verified manifest, to be used in a ``with`` block; its size does not matter.

        Raises `ManifestMissing`, `IntegrityError`.
        """
        key = manifest_key(parse_address(snapshot_id))
        try:
            with self._manifests.open(key) as reader:
                return Manifest.read(self._manifests.label, snapshot_id, reader)
        except KeyMissing as error:
            raise ManifestMissing(
                self._manifests.label, snapshot_id, "no such snapshot in this store"
            ) from error

    def get_manifest(self, snapshot_id: str) -> bytes:
        """
        Return the manifest's text, which hashes to *snapshot_id*, for manifests that fit in memory.

        Raises `ManifestMissing`, `IntegrityError`, `ManifestSyntaxError`.
        """
        with self.read_manifest(snapshot_id) as manifest:
            manifest.objects()
            return manifest.open().read(manifest.length)

    def put_manifest(self, snapshot_id: str, manifest: bytes) -> None:
        """
        Publish a snapshot: check that every object of it is here, then file its manifest.

        As `publish`, for a manifest in memory. May be called again.
        """
        with Manifest.from_bytes(parse_address(snapshot_id), manifest) as verified:
            self.publish(verified)

    def publish(self, manifest: Manifest) -> None:
        """
        File *manifest*, after every object that it names was seen here; read it back.

        Presence is asked from scratch. A manifest that is here already and
        intact is left alone. Raises `ManifestIncomplete` with the addresses
        that are absent, `ManifestSyntaxError`; no manifest was written then.
        An `IntegrityError` after the write means that the store altered it.
        May be called again.
        """
        missing = self.objects_needed(manifest.objects())
        if missing:
            raise ManifestIncomplete(
                self.label,
                manifest.id,
                f"{len(missing)} of its objects are not in this store, the first is {missing[0]};"
                " the manifest was not written",
                tuple(missing),
            )
        if self._holds_intact(manifest.id):
            return
        self._objects.flush()
        reader = manifest.open()
        with self._manifests.upload(manifest_key(manifest.id), manifest.length) as upload:
            while chunk := reader.read(CHUNK_BYTES):
                upload.write(chunk)
            upload.commit()
        self._manifests.flush()
        self.read_manifest(manifest.id).__exit__(None, None, None)

    def _holds_intact(self, snapshot_id: str) -> bool:
        try:
            with self.read_manifest(snapshot_id):
                return True
        except (ManifestMissing, IntegrityError, StoreNotFound):
            return False

    def list_manifest_ids(self) -> list[str]:
        """Return the ids of all snapshots published here, sorted. Raises `StoreNotFound`."""
        found = (address_of(key, MANIFESTS) for key, _ in self._manifests.keys(MANIFESTS))
        return sorted(snapshot for snapshot in found if snapshot is not None)

    def delete_manifest(self, snapshot_id: str) -> None:
        """Withdraw a snapshot; its objects stay. Nothing happens where it is not published."""
        self._manifests.delete(manifest_key(parse_address(snapshot_id)))

    def _verify(self, address: str, found: str) -> None:
        if found != address:
            raise IntegrityError(
                self.label, address, f"the object filed here is corrupt: its bytes hash to {found}"
            )

    def _object_missing(self, address: str) -> StoreError:
        return ObjectMissing(self.label, address, "the object is not in this store")


def _is_whole(address: str, size: int | None) -> bool:
    return size is not None and (size > 0 or address == EMPTY_ADDRESS)
