"""Stores in memory, and snapshots in them."""

from __future__ import annotations

from typing import NamedTuple

from snapferry.stores.address import Address, SnapshotId, manifest_key, object_key
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render, snapshot_id
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.snapshot_store import SnapshotStore

A, B, C = (Address(letter * 64) for letter in "abc")


def file(path: str, checksum: str = A, size: int = 1, permissions: str = "644") -> Entry:
    return Entry("F", permissions, checksum, size, path)


def folder(path: str, checksum: str = A, permissions: str = "755") -> Entry:
    return Entry("D", permissions, checksum, 1, path)


class Snapshot(NamedTuple):
    """A manifest's text, and its id."""

    id: SnapshotId
    text: bytes

    def open(self) -> Manifest:
        """Return the manifest, to be used in a ``with`` block."""
        return Manifest.from_bytes(self.id, self.text)


def snapshot_of(*entries: Entry) -> Snapshot:
    text = render(entries) if entries else b"\n"
    return Snapshot(snapshot_id(text), text)


def store_of(*snapshots: Snapshot) -> SnapshotStore:
    """Return a store with the manifests of *snapshots*, and without the objects that they name."""
    store = SnapshotStore(MemoryBackend())
    for snapshot in snapshots:
        store.manifests.write(manifest_key(snapshot.id), snapshot.text)
    return store


def put(store: SnapshotStore, data: bytes) -> Address:
    address = digest(data)
    store.put_object(address, data)
    return address


def corrupt(store: SnapshotStore, at: SnapshotId) -> None:
    store.manifests.write(manifest_key(at), b"F 644 " + C.encode() + b" 5 ./wrong\n")


def file_wrong(store: SnapshotStore, address: Address, data: bytes) -> None:
    """File *data*, which need not hash to *address*, there."""
    store.objects.write(object_key(address), data)
