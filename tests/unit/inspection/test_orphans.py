"""Objects that no manifest names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from snapferry.stores.address import MANIFESTS, Address, manifest_key
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.bulk import address_set
from snapferry.stores.bulk.union import Counted
from snapferry.stores.errors import IntegrityError, ManifestTooLarge
from snapferry.stores.hashing import digest
from snapferry.stores.inspection import orphans as module
from snapferry.stores.inspection.orphans import find_orphans
from snapferry.stores.runtime.bounds import bounds, set_bounds
from snapferry.stores.snapshot_store import SnapshotStore

from .support import corrupt, file, put, snapshot_of, store_of


@pytest.fixture(params=["few", "many"], autouse=True)
def _sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many":
        monkeypatch.setattr(address_set, "MANY", 1)
        monkeypatch.setattr(module, "_AT_ONCE", 2)
        monkeypatch.setattr(module, "_MEMORY_BYTES", 10)
    return


def orphans_of(pool: SnapshotStore, *stores: SnapshotStore) -> list[Address]:
    with find_orphans(pool, stores or [pool]) as found:
        return [each.address for each in found]


def test_objects_that_no_manifest_names_are_found() -> None:
    kept, lost = [b"%d" % number for number in range(7)], [b"lost %d" % number for number in range(5)]
    store = store_of(snapshot_of(*(file(f"./{data!r}", digest(data)) for data in kept)))
    for data in kept + lost:
        put(store, data)

    with find_orphans(store, [store]) as found:
        assert [each.address for each in found] == sorted(map(digest, lost)) == [e.address for e in found]
        assert found.stored == Counted(12, sum(map(len, kept + lost)))
        assert found.found == Counted(5, sum(map(len, lost)))
        assert found.snapshots == 1
        assert found.youngest == max(each.modified for each in found)


def test_an_object_of_length_0_is_an_object() -> None:
    store = store_of(snapshot_of(file("./a", digest(b""))))
    put(store, b"")

    assert orphans_of(store) == []
    assert orphans_of(store, store_of()) == [digest(b"")]


def test_a_pool_belongs_to_several_stores() -> None:
    pool = store_of()
    for data in (b"one", b"other", b"lost"):
        put(pool, data)
    one, other = (store_of(snapshot_of(file("./a", digest(data)))) for data in (b"one", b"other"))

    assert orphans_of(pool, one, other) == [digest(b"lost")]
    with find_orphans(pool, [one, one, other, other]) as found:
        assert found.snapshots == 2


def test_temporary_files_are_no_objects() -> None:
    store = store_of()
    store.objects.write(".objects/000/000/000/.tmp.1", b"x")
    store.objects.write(".objects/quarantine/1", b"x")

    with find_orphans(store, [store]) as found:
        assert (found.stored, found.found) == (Counted(), Counted())


def test_only_old_objects_are_reported_where_that_is_asked() -> None:
    store = store_of()
    put(store, b"x")
    with find_orphans(store, [store]) as found:
        (orphan,) = found
    with find_orphans(store, [store], before=orphan.modified) as found:
        assert list(found) == []
        assert found.stored == Counted(1, 1)
    with find_orphans(store, [store], before=orphan.modified + 1) as found:
        assert list(found) == [orphan]


def test_a_corrupt_manifest_is_an_error_not_a_reason_for_orphans() -> None:
    bad = snapshot_of(file("./a", digest(b"x")))
    store = store_of(bad)
    put(store, b"x")
    corrupt(store, bad.id)

    with pytest.raises(IntegrityError):
        find_orphans(store, [store])


class Busy(MemoryBackend):
    """Calls *meanwhile* when its objects were listed."""

    meanwhile: Callable[[], None] = lambda: None

    def keys(self, prefix: str, start_after: str = "") -> Iterator:
        yield from super().keys(prefix, start_after)
        if prefix != MANIFESTS:
            self.meanwhile()


def test_a_snapshot_that_is_published_meanwhile_keeps_its_objects() -> None:
    backend = Busy()
    store = SnapshotStore(backend)
    put(store, b"new")
    put(store, b"lost")
    late = snapshot_of(file("./a", digest(b"new")))

    def publish() -> None:
        backend.write(manifest_key(late.id), late.text)

    backend.meanwhile = publish
    with find_orphans(store, [store]) as found:
        assert [each.address for each in found] == [digest(b"lost")]
        assert found.found == Counted(1, 4)
        assert found.snapshots == 1


def test_memory_is_bounded() -> None:
    before = bounds()
    manifests = [snapshot_of(file("./a", digest(b"%d" % number))) for number in range(4)]
    set_bounds(replace(before, objects=3))
    try:
        assert orphans_of(store_of(*manifests[:3])) == []
        assert orphans_of(store_of(snapshot_of(*(file(f"./{n}", "a" * 64) for n in range(9))))) == []
        with pytest.raises(ManifestTooLarge):
            orphans_of(store_of(*manifests))
    finally:
        set_bounds(before)
