"""Manifests on a backend: filed under their ids, and verified."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

from snapferry.stores.address import (
    ADDRESS_LENGTH,
    MANIFESTS,
    Address,
    SnapshotId,
    address_of,
    manifest_key,
    manifest_key_start,
    parse_addresses,
    parse_snapshot_id,
)
from snapferry.stores.backend import Backend
from snapferry.stores.errors import (
    AccessDenied,
    IntegrityError,
    KeyMissing,
    ManifestMissing,
    ManifestTooLarge,
    StoreError,
)
from snapferry.stores.features import ListsAround, feature_of
from snapferry.stores.hashing import CHUNK_BYTES
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.runtime.bounds import bounds
from snapferry.stores.runtime.containment import contained
from snapferry.stores.runtime.interruption import checkpoint
from snapferry.stores.stream_store import ListedManifest
from snapferry.stores.streams import Upload
from snapferry.stores.text.format import counted

from . import existence
from .existence import MANIFEST_SPACE
from .quarantine import holds_manifest, replace_wrong

# The largest manifest that `ManifestPool.get` returns in one piece.
LARGEST_TEXT = 256 * 1024 * 1024

# Manifests that are listed between two checkpoints. Backends have checkpoints of their own between pages.
MANIFESTS_AT_ONCE = 1000

# Keys that `ManifestPool.find` looks at, most of them foreign: manifests end the search much earlier.
LONGEST_SEARCH = 100_000

logger = logging.getLogger(__name__)


class ManifestPool:
    """The manifests of a store, on *backend*. Its methods are those of `StreamStore` that are about manifests."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def read(self, text: str) -> Manifest:
        snapshot_id = parse_snapshot_id(text)
        try:
            try:
                return self._read_once(snapshot_id)
            except IntegrityError as error:
                # As of an object: the connection may have altered the bytes.
                logger.warning("wrong bytes, reading the manifest again: %s", error)
            return self._read_once(snapshot_id)
        except KeyMissing as error:
            raise ManifestMissing(
                self.backend.label, snapshot_id, "no such snapshot in this store"
            ) from error

    def _read_once(self, snapshot_id: SnapshotId) -> Manifest:
        label = self.backend.label
        with contained(label, snapshot_id), self.backend.open(manifest_key(snapshot_id)) as reader:
            return Manifest.read(label, snapshot_id, reader)

    def get(self, snapshot_id: str) -> bytes:
        with self.read(snapshot_id) as manifest:
            if manifest.length > LARGEST_TEXT:
                raise ManifestTooLarge(
                    self.backend.label,
                    snapshot_id,
                    f"the manifest has {counted(manifest.length, 'byte')}, more than the {LARGEST_TEXT:,} that are read"
                    " into memory; use read_manifest",
                )
            for _ in manifest.files():
                pass
            return manifest.open().read(manifest.length)

    def write(self, manifest: Manifest, *, over_wrong: bool = False) -> str:
        """
        File *manifest*. Only `publishing` calls this, after it found every object.

        With *over_wrong*, what is in its place is quarantined first; returns the key in quarantine, "" for none.
        """
        if over_wrong:
            is_right = holds_manifest(self.backend.label, manifest.id)
            key = manifest_key(manifest.id)
            return (
                replace_wrong(self.backend, key, manifest.id, lambda: self._staged(manifest), is_right) or ""
            )
        with self._staged(manifest) as upload:
            upload.commit()
        return ""

    def _staged(self, manifest: Manifest) -> Upload:
        reader = manifest.open()
        upload = self.backend.upload(manifest_key(manifest.id), manifest.length)
        try:
            while chunk := reader.read(CHUNK_BYTES):
                checkpoint()
                upload.write(chunk)
        except BaseException:
            upload.abort()
            raise
        return upload

    def flush(self) -> None:
        self.backend.flush()

    def list(self, skip: Callable[[StoreError], None] | None = None) -> dict[SnapshotId, ListedManifest]:
        found: dict[SnapshotId, ListedManifest] = {}
        around = feature_of(self.backend, ListsAround) if skip is not None else None
        with contained(self.backend.label):
            keys = (
                self.backend.keys(MANIFESTS)
                if skip is None or around is None
                else around.keys_around(MANIFESTS, skip)
            )
            for key, length, modified in keys:
                address = address_of(key, MANIFESTS)
                if address is None:
                    continue
                found[SnapshotId(address)] = ListedManifest(length, modified)
                if len(found) % MANIFESTS_AT_ONCE == 0:
                    checkpoint()
                if len(found) > bounds().manifests:
                    raise ManifestTooLarge(
                        self.backend.label,
                        "",
                        f"holds more than {bounds().manifests:,} snapshots; use --id or --ids-from, or set"
                        " SNAPFERRY_MAX_SNAPSHOTS to allow more, at 350 bytes of memory each",
                    )
        return dict(sorted(found.items()))

    def ids(self) -> Iterator[SnapshotId]:
        for key, _, _ in self.backend.keys(MANIFESTS):
            if (address := address_of(key, MANIFESTS)) is not None:
                yield SnapshotId(address)

    def find(self, digits: str, most: int) -> Sequence[SnapshotId]:
        begin = manifest_key_start(digits)
        found: list[SnapshotId] = []
        with contained(self.backend.label, digits):
            # A listing begins after its start, and 64 digits are a whole key.
            start = begin if len(digits) < ADDRESS_LENGTH else begin[:-1]
            for number, listed in enumerate(self.backend.keys(MANIFESTS, start_after=start)):
                if len(found) == most or not listed.key.startswith(begin):
                    break
                if number == LONGEST_SEARCH:
                    raise ManifestTooLarge(
                        self.backend.label,
                        digits,
                        f"more than {LONGEST_SEARCH:,} keys that are not manifests begin like this; use a full id",
                    )
                if (address := address_of(listed.key, MANIFESTS)) is not None:
                    found.append(SnapshotId(address))
        return found

    def newest(self) -> SnapshotId | None:
        newest: tuple[float, Address] | None = None
        with contained(self.backend.label):
            for number, (key, length, modified) in enumerate(self.backend.keys(MANIFESTS)):
                if number % MANIFESTS_AT_ONCE == 0:
                    checkpoint()
                address = address_of(key, MANIFESTS)
                if length and address is not None and (newest is None or (modified, address) > newest):
                    newest = modified, address
        return None if newest is None else SnapshotId(newest[1])

    def present(self, snapshot_ids: Iterable[str]) -> set[SnapshotId]:
        wanted = parse_addresses(snapshot_ids)
        with contained(self.backend.label):
            lacking = existence.survey(self.backend, MANIFEST_SPACE, wanted).needed
        return {SnapshotId(address) for address in set(wanted).difference(lacking)}

    def delete(self, text: str) -> None:
        snapshot_id = parse_snapshot_id(text)
        try:
            with contained(self.backend.label, snapshot_id):
                self.backend.delete(manifest_key(snapshot_id))
        except AccessDenied as error:
            raise AccessDenied(
                error.store, snapshot_id, f"the manifest may not be deleted, and stays: {error.detail}"
            ) from error
