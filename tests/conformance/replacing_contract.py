"""Wrong bytes in a store are replaced by verified ones, and kept in quarantine."""

from __future__ import annotations

from contextlib import suppress

import pytest

from snapferry.stores.address import (
    EMPTY_ADDRESS,
    MANIFESTS,
    OBJECTS,
    QUARANTINE,
    SnapshotId,
    manifest_key,
    object_key,
)
from snapferry.stores.backend import Backend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import IntegrityError, KeyChanged, ObjectMissing
from snapferry.stores.features import Quarantining, Seen, feature_of
from snapferry.stores.hashing import digest
from snapferry.stores.pools.quarantine import holds_object
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import Replaced
from tests.integration.raw_store import manifest_of

MIB = 1024 * 1024
SMALL = b"some bytes"
# Longer than what is read at once, and than a part.
LENGTHS = (len(SMALL), 300_000, 8 * MIB + 1)


def right(length: int) -> bytes:
    """Return bytes that do not repeat within a piece."""
    return (SMALL + bytes(range(256)) * (length // 256 + 1))[:length]


def source_of(*bodies: bytes) -> SnapshotStore:
    store = SnapshotStore(MemoryBackend("source"))
    for body in bodies:
        store.put_object(digest(body), body)
    return store


def read_whole(backend: Backend, key: str) -> bytes:
    with backend.open(key) as reader:
        parts = []
        while part := reader.read(MIB):
            parts.append(part)
    return b"".join(parts)


class ReplacingContract:
    """The verb `replace_object`, and manifests that are published in the place of wrong ones."""

    @pytest.mark.parametrize("length", LENGTHS)
    @pytest.mark.parametrize("hinted", [True, False])
    def test_wrong_bytes_are_replaced_and_kept(
        self, store: SnapshotStore, objects: Backend, length: int, hinted: bool
    ) -> None:
        data = right(length)
        address, wrong = digest(data), data[:-1] + b"!"
        objects.write(object_key(address), wrong)
        read: list[int] = []

        replaced = store.replace_object(
            source_of(data), address, size_hint=length if hinted else 0, on_bytes=read.append
        )

        assert store.check_object(address) == replaced.length == sum(read) == length
        assert replaced.quarantined.startswith(f"{QUARANTINE}{object_key(address)}.")
        assert read_whole(objects, replaced.quarantined) == wrong
        assert [key for key, *_ in objects.keys(OBJECTS)] == [object_key(address)]

    def test_several_wrong_versions_of_an_object_are_all_kept(
        self, store: SnapshotStore, objects: Backend
    ) -> None:
        address, kept = digest(SMALL), {}
        for wrong in (b"first", b"second, another length", b"third"):
            objects.write(object_key(address), wrong)
            kept[store.replace_object(source_of(SMALL), address).quarantined] = wrong

        assert {key: read_whole(objects, key) for key in kept} == kept
        assert len(kept) == 3
        assert store.get_object(address) == SMALL

    def test_an_object_that_is_not_there_or_empty_is_copied_and_nothing_is_kept(
        self, store: SnapshotStore, objects: Backend
    ) -> None:
        address = digest(SMALL)
        assert store.replace_object(source_of(SMALL), address) == Replaced(len(SMALL), "")
        objects.write(object_key(address), b"")
        assert store.replace_object(source_of(SMALL), address) == Replaced(len(SMALL), "")
        assert store.get_object(address) == SMALL

        objects.write(object_key(EMPTY_ADDRESS), b"not empty")
        replaced = store.replace_object(source_of(b""), EMPTY_ADDRESS)
        assert store.check_object(EMPTY_ADDRESS) == 0
        assert read_whole(objects, replaced.quarantined) == b"not empty"

    @pytest.mark.parametrize("length", [0, *LENGTHS])
    def test_an_object_that_is_right_is_neither_replaced_nor_quarantined(
        self, store: SnapshotStore, objects: Backend, length: int
    ) -> None:
        data = right(length) if length else b""
        address = digest(data)
        store.put_object(address, data)

        replaced = store.replace_object(source_of(data), address, size_hint=length)

        assert replaced == Replaced(length, "", was_right=True)
        assert store.check_object(address) == length
        assert list(objects.keys(f"{QUARANTINE}{object_key(address)}".rpartition("/")[0] + "/")) == []

    def test_an_upload_replaces_only_the_version_that_was_seen_or_what_is_there(
        self, store: SnapshotStore, objects: Backend
    ) -> None:
        """A store that can compare refuses another version. Any other store replaces it."""
        address = digest(SMALL)
        own = feature_of(objects, Quarantining)  # type: ignore[type-abstract]
        seen = Seen() if own is None else own.quarantine(object_key(address), holds_object(address))
        assert not seen.right
        objects.write(object_key(address), b"another")
        with objects.upload(object_key(address), len(SMALL)) as upload:
            upload.write(SMALL)
            if seen.version is not None:
                upload.only_over(seen.version)
            with suppress(KeyChanged):
                upload.commit()
        assert read_whole(objects, object_key(address)) in (SMALL, b"another")

        seen = Seen() if own is None else own.quarantine(object_key(address), holds_object(address))
        with objects.upload(object_key(address), len(SMALL)) as upload:
            upload.write(SMALL)
            if seen.version is not None:
                upload.only_over(seen.version)
            upload.commit()
        assert store.get_object(address) == SMALL

    def test_nothing_is_replaced_or_quarantined_without_verified_bytes(
        self, store: SnapshotStore, objects: Backend
    ) -> None:
        address, source = digest(SMALL), source_of()
        objects.write(object_key(address), b"wrong")

        with pytest.raises(ObjectMissing):
            store.replace_object(source, address)
        source.objects.write(object_key(address), b"wrong too")
        for hint in (0, len(SMALL), 20 * MIB):
            with pytest.raises(IntegrityError) as caught:
                store.replace_object(source, address, size_hint=hint)
            assert caught.value.store == source.label

        assert read_whole(objects, object_key(address)) == b"wrong"
        assert list(objects.keys(f"{QUARANTINE}{object_key(address)}".rpartition("/")[0] + "/")) == []

    def test_a_wrong_manifest_is_replaced_and_kept(self, store: SnapshotStore, manifests: Backend) -> None:
        source = source_of(SMALL)
        manifest = manifest_of({"./a": SMALL})
        snapshot = SnapshotId(digest(manifest))
        source.put_manifest(snapshot, manifest)
        store.put_object(digest(SMALL), SMALL)
        manifests.write(manifest_key(snapshot), b"wrong")

        published = store.publish_all(source, [snapshot])[snapshot]

        assert (published.missing, published.error) == ((), None)
        assert published.quarantined.startswith(f"{QUARANTINE}{manifest_key(snapshot)}.")
        assert read_whole(manifests, published.quarantined) == b"wrong"
        assert store.get_manifest(snapshot) == manifest
        assert store.list_manifest_ids() == [snapshot]
        assert [key for key, *_ in manifests.keys(MANIFESTS)] == [manifest_key(snapshot)]

    def test_a_wrong_manifest_is_left_alone_while_an_object_is_missing(
        self, store: SnapshotStore, manifests: Backend
    ) -> None:
        source = source_of(SMALL)
        manifest = manifest_of({"./a": SMALL})
        snapshot = SnapshotId(digest(manifest))
        source.put_manifest(snapshot, manifest)
        manifests.write(manifest_key(snapshot), b"wrong")

        assert store.publish_all(source, [snapshot])[snapshot].missing == (digest(SMALL),)
        assert read_whole(manifests, manifest_key(snapshot)) == b"wrong"
