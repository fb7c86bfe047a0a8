"""A store whose missing and wrong manifests are read from other stores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from snapferry.stores.address import SnapshotId, manifest_key
from snapferry.stores.backend import Backend
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.errors import (
    AccessDenied,
    IntegrityError,
    InvalidStoreURL,
    ManifestMissing,
    StoreError,
    StoreUnavailable,
)
from snapferry.stores.fallback import WithFallback
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.stores.stream_store import StreamStore
from tests.faults.backends import Unavailable
from tests.sample import fill

FILES = {"./a": b"a"}


def holding(name: str) -> tuple[MemoryBackend, SnapshotId]:
    backend = MemoryBackend(name)
    return backend, fill(SnapshotStore(backend), FILES)


def opening(*backends: Backend) -> list[Callable[[], StreamStore]]:
    return [lambda one=one: SnapshotStore(one) for one in backends]  # type: ignore[misc]


@pytest.mark.parametrize("wrong", [None, b"", b"wrong"])
def test_a_wrong_manifest_comes_from_the_first_store_that_has_it(wrong: bytes | None) -> None:
    here, snapshot = holding("here")
    there, _ = holding("there")
    key = manifest_key(snapshot)
    here.delete(key)
    if wrong is not None:
        here.write(key, wrong)
    corrupt = MemoryBackend("corrupt")
    corrupt.write(key, b"wrong too")
    store = WithFallback(
        SnapshotStore(here),
        opening(corrupt, MemoryBackend("empty"), Unavailable(MemoryBackend("away")), there),
    )

    with store.read_manifest(snapshot) as manifest:
        assert (manifest.id, len(manifest.objects())) == (snapshot, 1)


def test_a_manifest_that_is_intact_is_read_here() -> None:
    def never() -> StreamStore:
        raise AssertionError

    here, snapshot = holding("here")
    with WithFallback(SnapshotStore(here), [never]).read_manifest(snapshot) as manifest:
        assert manifest.id == snapshot


def test_where_no_store_has_it_the_error_is_that_of_this_store_and_names_the_others() -> None:
    here, snapshot = holding("here")
    here.write(manifest_key(snapshot), b"wrong")

    def refuse() -> StreamStore:
        raise InvalidStoreURL("nowhere://", "", "no such scheme")

    def deny() -> StreamStore:
        raise AccessDenied("closed://", "", "it needs a permission")

    others = [refuse, deny, *opening(MemoryBackend("empty"))]
    with pytest.raises(IntegrityError) as caught:
        WithFallback(SnapshotStore(here), others).read_manifest(snapshot)
    assert (caught.value.store, caught.value.subject) == ("memory://here", snapshot)
    told = (
        "nowhere:// (InvalidStoreURL), closed:// (AccessDenied: it needs a permission),"
        " memory://empty (ManifestMissing)"
    )
    assert told in caught.value.detail

    here.delete(manifest_key(snapshot))
    with pytest.raises(ManifestMissing):
        WithFallback(SnapshotStore(here), others).read_manifest(snapshot)


def test_a_store_that_gives_no_answer_is_not_passed_over() -> None:
    here, snapshot = holding("here")
    there, _ = holding("there")

    with pytest.raises(StoreUnavailable):
        WithFallback(SnapshotStore(Unavailable(here)), opening(there)).read_manifest(snapshot)


def test_what_is_published_is_compared_with_what_this_store_holds() -> None:
    here, snapshot = holding("here")
    there, _ = holding("there")
    here.write(manifest_key(snapshot), b"wrong")
    store = WithFallback(SnapshotStore(here), opening(there))

    published = store.publish_all(store, [snapshot])[snapshot]

    assert published.error is None
    assert published.quarantined
    assert SnapshotStore(here).get_manifest(snapshot)
    assert issubclass(type(published.error), StoreError | type(None))
