"""
The StreamStore on any backend: addresses, verification, manifest last.

Invariants, whatever backend stands below:

*verified*: no bytes become visible at an address that they do not hash to, and
none that a store returned are used before they hash.
*manifest last*: `publishing` is the one place that writes manifests, and it asks
for every object of a snapshot first, from scratch.
*read twice*: an object or a manifest is corrupt only if its bytes were wrong in two readings.
*one tree*: what a backend raises that is no `StoreError` becomes one (`containment`).
*torn is absent*: an object of length 0 that is not the empty object counts as
absent. A file system that lost power can leave such files behind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

from .address import EMPTY_ADDRESS, MANIFESTS, OBJECTS, address_of, manifest_key, object_key, parse_address
from .base import Backend, StreamStore, Upload
from .bulk.address_set import AddressSet
from .errors import (
    AccessDenied,
    IntegrityError,
    KeyMissing,
    ManifestIncomplete,
    ManifestMissing,
    ManifestTooLarge,
    ObjectMissing,
    StoreError,
    StoreFault,
    StoreUnavailable,
)
from .existence import (
    MANIFEST_SPACE,
    OBJECT_SPACE,
    Survey,
    absent,
    requests_to_ask,
    requests_to_ask_among,
    survey,
)
from .hashing import CHUNK_BYTES, HashingReader, digest
from .manifest.parse import Manifest
from .publishing import Published, publish_each
from .rate_limiter import Pace
from .requests import Requests
from .runtime.bounds import bounds
from .runtime.containment import contain, contained
from .runtime.interruption import checkpoint
from .runtime.oversize import LARGEST_BYTES, far_beyond
from .wrappers.throttled import throttled

# The largest manifest that `SnapshotStore.get_manifest` returns in one piece.
LARGEST_TEXT = 256 * 1024 * 1024


# So many manifests are listed between two checkpoints. Backends have checkpoints of their own between pages.
MANIFESTS_AT_ONCE = 1000

logger = logging.getLogger(__name__)


class ListedManifest(NamedTuple):
    """A manifest in a listing; *length* in bytes, *modified* in seconds since the epoch, by the store's clock."""

    length: int
    modified: float


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
    def objects(self) -> Backend:
        """Where the objects are: for those who look at the place itself. What is filed there, this class decides."""
        return self._objects

    @property
    def manifests(self) -> Backend:
        """Where the manifests are, as `objects`."""
        return self._manifests

    @property
    def pools(self) -> list[tuple[Backend, tuple[str, ...]]]:
        """The backends of this store, each with the beginnings of the keys that it holds."""
        if self._manifests is self._objects:
            return [(self._objects, (OBJECTS, MANIFESTS))]
        return [(self._objects, (OBJECTS,)), (self._manifests, (MANIFESTS,))]

    @property
    def concurrency(self) -> int:
        """How many objects one process should keep in flight."""
        return self._objects.capabilities.concurrency

    def keep_pace(self, objects: Pace, manifests: Pace) -> None:
        """
        Ask the store from now on at these paces: where objects are, and where manifests are if that is another pool.

        What is on its way at a directory goes on as it is; what begins after this call keeps to it. May be called
        again.
        """
        split = self._manifests is not self._objects
        self._objects = throttled(self._objects, objects)
        self._manifests = throttled(self._manifests, manifests) if split else self._objects

    def check(self, *, for_writing: bool = False) -> None:
        """Make sure that the store is there and answers. Raises as `Backend.check` does; changes nothing."""
        for backend, _ in self.pools:
            with contained(backend.label):
                backend.check(for_writing=for_writing)

    def prepare(self) -> None:
        """Make the store ready for its first write. Raises as `Backend.prepare` does; may be called again."""
        for backend, _ in self.pools:
            with contained(backend.label):
                backend.prepare()

    def has_object(self, address: str) -> bool:
        """Say whether the object is there. An unanswered question raises, it is never False."""
        key = object_key(parse_address(address))
        with contained(self.label, address):
            return OBJECT_SPACE.is_whole(address, self._objects.size(key))

    def objects_needed(self, addresses: Iterable[str]) -> list[str]:
        """
        Return those of *addresses* that are absent, in input order.

        As `survey`, for those who need not know more.
        """
        return self.survey(addresses).needed

    def survey(self, addresses: Iterable[str]) -> Survey:
        """
        Say which of *addresses* are absent, in input order, and how crowded the store is between them.

        Every address is checked for its form before the first question is
        asked. Costs one request per 1,000 addresses where the store pages its
        listings and holds little else between them, one per address otherwise.
        """
        wanted = [parse_address(address) for address in addresses]
        with contained(self.label):
            return survey(self._objects, OBJECT_SPACE, wanted)

    def absent(self, addresses: AddressSet) -> AddressSet:
        """
        Return those of *addresses* that are absent: as `objects_needed`, for as many as there may be.

        Asked in pieces, some of them at once where the store pages its listings.
        """
        with contained(self.label):
            return absent(self._objects, OBJECT_SPACE, addresses)

    def manifests_present(self, snapshot_ids: Iterable[str]) -> set[str]:
        """
        Return those of *snapshot_ids* that a manifest is filed under here; one without a byte is none.

        Asked in as few requests as `survey`. Says nothing of their bytes, nor
        of their objects. Every id is checked for its form first.
        """
        wanted = [parse_address(snapshot_id) for snapshot_id in snapshot_ids]
        with contained(self._manifests.label):
            return set(wanted).difference(survey(self._manifests, MANIFEST_SPACE, wanted).needed)

    def requests_to_ask(self, wanted: int, keys_between: int) -> Requests:
        """
        Return what `survey` sends for *wanted* distinct addresses with *keys_between* keys from first to last.

        See `existence.requests_to_ask` for how exact that is. One `HeadBucket`
        comes on top where a store's very first answer is that a key is absent.
        """
        if not self._objects.capabilities.pages_listings:
            return Requests()
        return requests_to_ask(wanted, keys_between)

    def requests_to_ask_among(self, wanted: Sequence[str], there: Sequence[str]) -> Requests:
        """Return what `survey` sends for *wanted* when this store holds just what is *there*; both sorted."""
        if not self._objects.capabilities.pages_listings:
            return Requests()
        return requests_to_ask_among(wanted, there)

    def requests_to_copy(self, source: SnapshotStore, size: int) -> tuple[Requests, Requests]:
        """Return what *source* and this store are sent to copy one object of *size* bytes, its advisory size."""
        return source._objects.requests_to_read(size), self._objects.requests_to_write(size)

    def requests_to_read_manifest(self) -> Requests:
        """Return what this store is sent for one reading of a manifest."""
        return self._manifests.requests_to_read(0)

    def requests_to_publish(self, length: int, *, already: bool) -> Requests:
        """
        Return what this store is sent to publish a manifest of *length* bytes, after the question of presence.

        *already*: it is published and intact, so it is only read.
        """
        reading = self._manifests.requests_to_read(length)
        return reading if already else reading + self._manifests.requests_to_write(length) + reading

    @property
    def requests_sent(self) -> Requests:
        """What this store's backends have sent so far. See `Backend.requests_sent`."""
        sent = self._objects.requests_sent
        return sent if self._manifests is self._objects else sent + self._manifests.requests_sent

    @property
    def confirmed(self) -> dict[str, int]:
        """How many objects were written here so far, by what confirmed them. See `Backend.confirmed`."""
        return self._objects.confirmed

    @property
    def requests_by_kind(self) -> dict[str, Requests]:
        """The same by the kind of store, which is its URL's scheme: two where split pools are of two kinds."""
        found: dict[str, Requests] = {}
        for backend in {id(one): one for one in (self._objects, self._manifests)}.values():
            kind = backend.label.partition("://")[0]
            found[kind] = found.get(kind, Requests()) + backend.requests_sent
        return found

    def get_object(self, address: str) -> bytes:
        """
        Return the object's bytes, which hash to *address*. For objects that fit in memory.

        Raises `ObjectMissing`, `IntegrityError`.
        """
        key = object_key(parse_address(address))
        try:
            with contained(self.label, address), self._objects.open(key) as reader:
                parts = []
                while chunk := reader.read(CHUNK_BYTES):
                    checkpoint()
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
        if digest(data) != address:
            raise IntegrityError(
                self.label, address, f"was offered {len(data):,} other bytes; nothing was written"
            )
        with contained(self.label, address):
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
        key = object_key(parse_address(address))
        data = self._fetch(source, address, key, size_hint, on_bytes)
        if data is not None:
            # As of most objects: no upload has to be begun for one write.
            try:
                self._objects.write(key, data)
            except Exception as error:
                contain(error, self.label, address)
                raise
            return len(data)
        upload, length = self._stage_verified(source, address, key, size_hint, on_bytes)
        with contained(self.label, address), upload:
            upload.commit()
        return length

    def stage_object(
        self,
        source: SnapshotStore,
        address: str,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> tuple[Upload, int]:
        """
        As `copy_object`, up to the moment before the object becomes visible here.

        Returns its upload and its length in bytes. The upload must be
        committed, alone or by `commit_staged`, or aborted.
        """
        key = object_key(parse_address(address))
        data = self._fetch(source, address, key, size_hint, on_bytes)
        if data is None:
            return self._stage_verified(source, address, key, size_hint, on_bytes)
        try:
            return self._objects.stage(key, data), len(data)
        except Exception as error:
            contain(error, self.label, address)
            raise

    @staticmethod
    def _fetch(
        source: SnapshotStore,
        address: str,
        key: str,
        size_hint: int,
        on_bytes: Callable[[int], None] | None,
    ) -> bytes | None:
        """
        Return the object if it is had whole in one go and is what it should be.

        None where it is large, longer than its advisory size, or corrupt: reading to the end tells.
        """
        try:
            data = source._objects.fetch(key, size_hint)
        except KeyMissing as error:
            raise source._object_missing(address) from error
        except Exception as error:
            contain(error, source.label, address)
            raise
        if data is None or digest(data) != address:
            return None
        if on_bytes is not None and data:
            on_bytes(len(data))
        return data

    def _stage_verified(
        self,
        source: SnapshotStore,
        address: str,
        key: str,
        size_hint: int,
        on_bytes: Callable[[int], None] | None,
    ) -> tuple[Upload, int]:
        """As `_stage_stream`. Wrong bytes are read a second time: a wire that lied may say the truth then."""
        try:
            with contained(source.label, address):
                return self._stage_stream(source, address, key, size_hint, on_bytes)
        except IntegrityError as error:
            if error.store != source.label:
                raise
            logger.warning("wrong bytes, reading the object again: %s", error)
        with contained(source.label, address):
            return self._stage_stream(source, address, key, size_hint, on_bytes)

    def _stage_stream(
        self,
        source: SnapshotStore,
        address: str,
        key: str,
        size_hint: int,
        on_bytes: Callable[[int], None] | None,
    ) -> tuple[Upload, int]:
        try:
            with source._objects.open(key, size_hint=size_hint) as opened:
                announced: int | None = getattr(opened, "length", None)
                self._see_room(source, address, announced, size_hint)
                reader = HashingReader(opened, on_bytes)
                upload = self._objects.upload(key, size_hint)
                try:
                    if not upload.take(opened, reader.saw):
                        piece = max(
                            CHUNK_BYTES, *(one._objects.piece_bytes(size_hint) for one in (source, self))
                        )
                        # One byte more than expected: a shorter answer is the end, and saves asking for it.
                        want = min(max(size_hint, 0) + 1, piece)
                        while True:
                            chunk = reader.read(want)
                            if chunk:
                                upload.write(chunk)
                            if len(chunk) < want:
                                break
                            if announced is not None and reader.length > announced:
                                raise StoreUnavailable(
                                    source.label,
                                    address,
                                    f"has more than the {announced} bytes that it announced",
                                )
                            want = piece
                    source._verify(address, reader.hexdigest())
                except BaseException:
                    upload.abort()
                    raise
        except KeyMissing as error:
            if error.store != source.label:
                raise
            raise source._object_missing(address) from error
        return upload, reader.length

    def _see_room(self, source: SnapshotStore, address: str, announced: int | None, size_hint: int) -> None:
        """Refuse an object that is far longer than its advisory size says and that does not fit here."""
        if announced is None or announced <= far_beyond(size_hint):
            return
        free = self._objects.free_bytes()
        room = LARGEST_BYTES if free is None else min(free, LARGEST_BYTES)
        if announced > room:
            raise StoreFault(
                source.label,
                address,
                f"has {announced:,} bytes where the manifest says {size_hint:,}, and the destination has room for"
                f" {room:,}; nothing was written",
            )

    def abort_unfinished(self, objects: Mapping[str, int]) -> None:
        """
        Remove what dead uploads of *objects* (address -> advisory size in bytes) left here, out of sight.

        As `Backend.abort_unfinished`, for each of them.
        """
        for address, size in objects.items():
            with contained(self.label, address):
                self._objects.abort_unfinished(object_key(parse_address(address)), size)

    def commit_staged(self, uploads: Sequence[Upload]) -> None:
        """
        Make objects staged here visible, all of them.

        After an error some of them may be visible, each whole; the others are
        gone. They can be staged again.
        """
        try:
            with contained(self.label):
                self._objects.commit_all(uploads)
        except BaseException:
            for upload in uploads:
                upload.abort()
            raise

    @property
    def commits_together(self) -> int:
        """How many staged objects are worth committing at once."""
        return self._objects.capabilities.commits_together

    def flush(self) -> None:
        """Return when every object written so far survives a power cut."""
        with contained(self.label):
            self._objects.flush()

    def read_manifest(self, snapshot_id: str) -> Manifest:
        """
        Return the verified manifest, to be used in a ``with`` block; its size does not matter.

        Raises `ManifestMissing`, `IntegrityError`.
        """
        parse_address(snapshot_id)
        try:
            try:
                return self._read_manifest(snapshot_id)
            except IntegrityError as error:
                # As of an object: a wire that lied may say the truth then.
                logger.warning("wrong bytes, reading the manifest again: %s", error)
            return self._read_manifest(snapshot_id)
        except KeyMissing as error:
            raise ManifestMissing(
                self._manifests.label, snapshot_id, "no such snapshot in this store"
            ) from error

    def _read_manifest(self, snapshot_id: str) -> Manifest:
        label = self._manifests.label
        with contained(label, snapshot_id), self._manifests.open(manifest_key(snapshot_id)) as reader:
            return Manifest.read(label, snapshot_id, reader)

    def get_manifest(self, snapshot_id: str) -> bytes:
        """
        Return the manifest's text, which hashes to *snapshot_id*, for manifests of up to `LARGEST_TEXT` bytes.

        Raises `ManifestMissing`, `IntegrityError`, `ManifestSyntaxError`, `ManifestTooLarge`.
        """
        with self.read_manifest(snapshot_id) as manifest:
            if manifest.length > LARGEST_TEXT:
                raise ManifestTooLarge(
                    self._manifests.label,
                    snapshot_id,
                    f"the manifest has {manifest.length:,} bytes, more than the {LARGEST_TEXT:,} that are read into"
                    " memory; use read_manifest",
                )
            for _ in manifest.files():
                pass
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
        published = publish_each(self, {manifest.id: lambda: nullcontext(manifest)})[manifest.id]
        if published.error is not None:
            raise published.error
        missing = published.missing
        if missing:
            raise ManifestIncomplete(
                self.label,
                manifest.id,
                f"{len(missing)} of its objects are not in this store, the first is {missing[0]};"
                " the manifest was not written",
                missing,
            )

    def publish_all(self, source: SnapshotStore, snapshot_ids: Iterable[str]) -> dict[str, Published]:
        """
        File each manifest of *source* whose objects are all here, as `publish` does; say what became of each.

        The presence of all their objects is asked at once, from scratch, so an
        object that several of them name is asked for once. The objects are
        flushed before the first manifest is written, the manifests after the
        last one, and then each is read back. The answer is in the order of
        *snapshot_ids*. Memory grows with the number of distinct objects of all
        of them; the manifests themselves are opened one at a time, each twice.

        A fault of one manifest, at its source or here, is in its answer and
        stops no other. Raises `InvalidAddress` before anything is asked, and a
        `StoreError` where the question of presence or a flush fails: then every
        manifest that is visible has all its objects, and which are is unknown.
        May be called again.
        """
        ids = [parse_address(snapshot_id) for snapshot_id in snapshot_ids]
        return publish_each(self, {each: partial(source.read_manifest, each) for each in ids})

    def list_manifests(self) -> dict[str, ListedManifest]:
        """
        Return the manifests filed here, by snapshot id, sorted.

        Raises `StoreNotFound`, and `ManifestTooLarge` where there are more than `bounds().manifests`.
        """
        found: dict[str, ListedManifest] = {}
        with contained(self._manifests.label):
            for key, length, modified in self._manifests.keys(MANIFESTS):
                snapshot_id = address_of(key, MANIFESTS)
                if snapshot_id is None:
                    continue
                found[snapshot_id] = ListedManifest(length, modified)
                if len(found) % MANIFESTS_AT_ONCE == 0:
                    checkpoint()
                if len(found) > bounds().manifests:
                    raise ManifestTooLarge(
                        self._manifests.label,
                        "",
                        f"holds more than {bounds().manifests:,} snapshots; name those that are meant, or set"
                        " SNAPFERRY_MAX_SNAPSHOTS to allow more, at 350 bytes of memory each",
                    )
        return dict(sorted(found.items()))

    def list_manifest_ids(self) -> list[str]:
        """Return the ids of all snapshots published here, sorted. Raises as `list_manifests`."""
        return list(self.list_manifests())

    def manifest_ids(self) -> Iterator[str]:
        """Yield the same, sorted, however many there are. Raises `StoreNotFound`."""
        for key, _, _ in self._manifests.keys(MANIFESTS):
            if (snapshot_id := address_of(key, MANIFESTS)) is not None:
                yield snapshot_id

    def delete_manifest(self, snapshot_id: str) -> None:
        """
        Withdraw a snapshot; its objects stay. Nothing happens where it is not published.

        Raises `AccessDenied` where the store does not let it go; it is still
        published then. May be called again.
        """
        key = manifest_key(parse_address(snapshot_id))
        try:
            with contained(self._manifests.label, snapshot_id):
                self._manifests.delete(key)
        except AccessDenied as error:
            raise AccessDenied(
                error.store, snapshot_id, f"the manifest may not be deleted, and stays: {error.detail}"
            ) from error

    def _verify(self, address: str, found: str) -> None:
        if found != address:
            # Never what they hash to: they may be bytes that whoever reads this text has no right to.
            wrong = "it is empty" if found == EMPTY_ADDRESS else "its bytes do not hash to its address"
            raise IntegrityError(self.label, address, f"the object filed here is corrupt: {wrong}")

    def _object_missing(self, address: str) -> StoreError:
        return ObjectMissing(self.label, address, "the object is not in this store")
