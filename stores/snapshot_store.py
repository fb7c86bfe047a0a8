"""
The `StreamStore` on any backend.

Verification and the order of writes are in `stores.pools`, once for all backends. In addition to the obligations of
`StreamStore`:

*read twice*: an object or a manifest is corrupt only if its bytes were wrong in two readings.
*one tree of errors*: an exception of a backend that is not a `StoreError` becomes one (`containment`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

from snapferry.stores.text.format import counted

from .address import MANIFESTS, OBJECTS, Address, SnapshotId, object_key, parse_address, parse_snapshot_id
from .backend import Backend, SendsMany
from .bulk.address_set import AddressSet
from .errors import ManifestIncomplete, StoreError
from .features import Confirming, Mounted, feature_of, innermost
from .manifest.parse import Manifest
from .names.names import Names
from .pools import files
from .pools.accounting import PoolAccounting
from .pools.checking import check
from .pools.manifests import ManifestPool
from .pools.objects import ObjectPool
from .pools.publishing import publish_each
from .pools.together import copy_each, fetch_each, fetch_many, sends_many, stage_each, stage_many
from .rate_limiter import RateLimiter
from .requests import RequestAccounting
from .runtime.containment import contained
from .stream_store import (
    FileTarget,
    FileTree,
    ListedManifest,
    ListedObject,
    Memory,
    Published,
    Replaced,
    ShortObjects,
    Staged,
    StreamStore,
    Survey,
)
from .streams import OpenReader, Upload
from .wrappers.throttled import throttled


class Pool(NamedTuple):
    """A backend of a store, and the beginnings of the keys that it holds."""

    backend: Backend
    spaces: tuple[str, ...]


class SnapshotStore(StreamStore):
    """
    A store whose objects are on the backend *objects* and whose manifests are on *manifests*, which may be the same.

    Safe to share between threads. Nothing is remembered between calls: every answer about existence comes from the
    backend itself, except in `objects_needed_of_many`.
    """

    def __init__(self, objects: Backend, manifests: Backend | None = None) -> None:
        self._objects = ObjectPool(objects)
        self._manifests = ManifestPool(objects if manifests is None else manifests)

    @property
    def objects(self) -> Backend:
        """The backend that holds the objects, for diagnosis and tests."""
        return self._objects.backend

    @property
    def manifests(self) -> Backend:
        """The backend that holds the manifests."""
        return self._manifests.backend

    @property
    def pools(self) -> list[Pool]:
        """The backends of this store: one, or two if objects and manifests are in different pools."""
        if self.manifests is self.objects:
            return [Pool(self.objects, (OBJECTS, MANIFESTS))]
        return [Pool(self.objects, (OBJECTS,)), Pool(self.manifests, (MANIFESTS,))]

    @property
    def label(self) -> str:
        return self._objects.backend.label

    @property
    def manifests_label(self) -> str:
        return self._manifests.backend.label

    @property
    def concurrency(self) -> int:
        return self.objects.capabilities.concurrency

    @property
    def may_wait(self) -> bool:
        return self.objects.may_wait

    def check(self, *, for_writing: bool = False) -> None:
        for backend, _ in self.pools:
            with contained(backend.label):
                backend.check(for_writing=for_writing)

    def prepare(self) -> None:
        for backend, _ in self.pools:
            with contained(backend.label):
                backend.prepare()

    def unmounted(self, *, objects_only: bool = False) -> str:
        for backend, spaces in self.pools:
            looked_for = {OBJECTS}.intersection(spaces) if objects_only else spaces
            mounted = feature_of(backend, Mounted)
            if mounted is not None and looked_for and not any(map(mounted.holds, looked_for)):
                return backend.label
        return ""

    def limit_rate(self, objects: RateLimiter, manifests: RateLimiter) -> None:
        split = self.manifests is not self.objects
        self._objects.backend = throttled(self.objects, objects)
        self._manifests.backend = throttled(self.manifests, manifests) if split else self.objects

    def flush(self) -> None:
        self._objects.flush()

    @property
    def accounting(self) -> RequestAccounting:
        return PoolAccounting(self.objects, self.manifests)

    @property
    def confirmed(self) -> dict[str, int]:
        found = feature_of(self.objects, Confirming)
        return {} if found is None else found.confirmed

    # Objects.

    def has_object(self, address: str) -> bool:
        return self._objects.has(parse_address(address))

    def survey(self, addresses: Iterable[str]) -> Survey:
        return self._objects.survey(addresses)

    def objects_needed_of_many(
        self, addresses: Iterable[Address], memory: Memory, *, again: bool = False
    ) -> list[Address]:
        return self._objects.needed_of_many(addresses, memory, again=again)

    def lengths(self, addresses: Iterable[Address]) -> dict[Address, int | None]:
        return self._objects.lengths(addresses)

    def absent(self, addresses: AddressSet) -> AddressSet:
        return self._objects.absent(addresses)

    def list_objects(self) -> Iterator[ListedObject]:
        return self._objects.list()

    def get_object(self, address: str) -> bytes:
        return self._objects.get(parse_address(address))

    def put_object(self, address: str, data: bytes) -> None:
        self._objects.put(parse_address(address), data)

    def fetch_object(self, address: Address, size_hint: int) -> bytes | None:
        return self._objects.fetch(address, size_hint)

    @property
    def sends_many(self) -> SendsMany | None:
        return sends_many(self.objects)

    def fetch_objects(self, addresses: Sequence[Address], size_hints: Sequence[int]) -> list[bytes | None]:
        return fetch_many(self.objects, addresses, size_hints)

    def fetch_each(
        self, objects: Iterable[tuple[Address, int]], most: int
    ) -> Generator[tuple[Address, bytes]]:
        return fetch_each(self, objects, most)

    def copy_each(
        self, source: ShortObjects, objects: Iterable[tuple[Address, int]], most: int
    ) -> Generator[tuple[Address, int]]:
        return copy_each(source, self, objects, most)

    def stage_each(
        self, source: ShortObjects, objects: Iterable[tuple[Address, int]], most: int
    ) -> Generator[Staged]:
        return stage_each(source, self.objects, objects, most)

    def open_object(self, address: Address, *, size_hint: int = 0) -> OpenReader:
        return self._objects.open(address, size_hint)

    def check_object(
        self, address: Address, *, size_hint: int = 0, on_bytes: Callable[[int], None] | None = None
    ) -> int:
        return check(self.objects, object_key(address), address, size_hint, on_bytes)

    def piece_bytes_of(self, size_hint: int) -> int:
        return self._objects.piece_bytes_of(size_hint)

    def copy_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> int:
        return self._objects.copy(source, address, size_hint, on_bytes)

    def stage_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> tuple[Upload, int]:
        return self._objects.stage(source, address, size_hint, on_bytes)

    def stage_objects(
        self, source: ShortObjects, addresses: Sequence[Address], size_hints: Sequence[int]
    ) -> dict[Address, tuple[Upload, int]]:
        return stage_many(source, self.objects, addresses, size_hints)

    def replace_object(
        self,
        source: StreamStore,
        address: Address,
        *,
        size_hint: int = 0,
        on_bytes: Callable[[int], None] | None = None,
    ) -> Replaced:
        return self._objects.replace(source, address, size_hint, on_bytes)

    def commit_staged(self, uploads: Sequence[Upload]) -> None:
        self._objects.commit(uploads)

    @property
    def commits_together(self) -> int:
        # Wrappers have the capabilities with which a backend began.
        return innermost(self.objects).capabilities.commits_together

    def abort_unfinished(self, objects: Mapping[Address, int], *, dead_only: bool = False) -> None:
        self._objects.abort_unfinished(objects, dead_only=dead_only)

    # Manifests.

    def read_manifest(self, snapshot_id: str) -> Manifest:
        return self._manifests.read(snapshot_id)

    def get_manifest(self, snapshot_id: str) -> bytes:
        return self._manifests.get(snapshot_id)

    def put_manifest(self, snapshot_id: str, manifest: bytes) -> None:
        with Manifest.from_bytes(parse_snapshot_id(snapshot_id), manifest) as verified:
            self.publish(verified)

    def publish(self, manifest: Manifest) -> None:
        opened = {manifest.id: lambda: nullcontext(manifest)}
        published = publish_each(self._objects, self._manifests, opened)[manifest.id]
        if published.error is not None:
            raise published.error
        missing = published.missing
        if missing:
            raise ManifestIncomplete(
                self.label,
                manifest.id,
                f"{counted(len(missing), 'of its objects', 'of its objects', verb='is')} not in this store, the first"
                f" is {missing[0]}; the manifest was not written",
                missing,
            )

    def publish_all(self, source: StreamStore, snapshot_ids: Iterable[str]) -> dict[SnapshotId, Published]:
        ids = [parse_snapshot_id(snapshot_id) for snapshot_id in snapshot_ids]
        opened = {each: partial(source.read_manifest, each) for each in ids}
        return publish_each(self._objects, self._manifests, opened)

    def list_manifests(
        self, *, skip: Callable[[StoreError], None] | None = None
    ) -> dict[SnapshotId, ListedManifest]:
        return self._manifests.list(skip)

    def manifest_ids(self) -> Iterator[SnapshotId]:
        return self._manifests.ids()

    def find_snapshots(self, digits: str, most: int) -> Sequence[SnapshotId]:
        return self._manifests.find(digits, most)

    def newest_snapshot(self) -> SnapshotId | None:
        return self._manifests.newest()

    @property
    def names(self) -> Names:
        return Names(self.manifests, self._manifests.present)

    def manifests_present(self, snapshot_ids: Iterable[str]) -> set[SnapshotId]:
        return self._manifests.present(snapshot_ids)

    def delete_manifest(self, snapshot_id: str) -> None:
        self._manifests.delete(snapshot_id)

    # Snapshots.

    def push(self, manifest: Manifest, source: FileTree) -> None:
        def upload(address: Address, size: int) -> Upload:
            return self.objects.upload(object_key(address), size)

        files.push_objects(manifest, source, self, upload)
        self.publish(manifest)

    def fetch_files(self, manifest: Manifest, dest: FileTarget) -> None:
        files.fetch_files(manifest, self, dest)
