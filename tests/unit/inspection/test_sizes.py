"""Files and bytes of snapshots and stores."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snapferry.stores.bulk.union import Counted
from snapferry.stores.errors import IntegrityError, ManifestMissing, ManifestTooLarge
from snapferry.stores.inspection.sizes import Sizes, snapshot_size, store_size
from snapferry.stores.runtime.bounds import bounds, set_bounds

from .support import A, B, C, corrupt, file, folder, snapshot_of, store_of


def test_an_object_counts_once_with_its_first_size() -> None:
    one = snapshot_of(file("./1", A, 30), file("./2", A, 10), file("./3", B, 5), folder("./d/", C))

    assert snapshot_size(store_of(one), one.id) == Sizes(1, 3, 45, 2, 35, None)


def test_a_store_counts_each_object_of_its_snapshots_once() -> None:
    one, other = snapshot_of(file("./1", A, 30), file("./2", B, 5)), snapshot_of(file("./1", A, 30))

    assert store_size(store_of(one, other)) == Sizes(2, 3, 65, 2, 35, Counted(1, 30))


def test_what_one_snapshot_names_twice_is_not_shared() -> None:
    assert store_size(store_of(snapshot_of(file("./1"), file("./2")))).shared == Counted(0, 0)


def test_what_a_snapshot_shares_is_counted_on_request() -> None:
    one = snapshot_of(file("./1", A, 30), file("./2", B, 5))
    others = snapshot_of(file("./x", B, 5)), snapshot_of(file("./y", B, 5), file("./z", C))

    assert snapshot_size(store_of(one, *others), one.id, shared=True).shared == Counted(1, 5)


def test_a_store_without_snapshots_has_no_size() -> None:
    assert store_size(store_of()) == Sizes(0, 0, 0, 0, 0, Counted(0, 0))
    assert store_size(store_of(snapshot_of())) == Sizes(1, 0, 0, 0, 0, Counted(0, 0))


def test_sums_are_exact_beyond_64_bits() -> None:
    largest = 2**64 - 1
    found = store_size(store_of(snapshot_of(file("./1", A, largest), file("./2", B, largest))))

    assert (found.logical_bytes, found.physical_bytes) == (2 * largest, 2 * largest)


def test_a_corrupt_manifest_is_an_error() -> None:
    good, bad = snapshot_of(file("./1")), snapshot_of(file("./2"))
    store = store_of(good, bad)
    corrupt(store, bad.id)

    assert snapshot_size(store, good.id).files == 1
    with pytest.raises(IntegrityError, match=bad.id):
        store_size(store)
    with pytest.raises(ManifestMissing):
        snapshot_size(store_of(good), bad.id)


def test_memory_is_bounded() -> None:
    before = bounds()
    one, other = snapshot_of(file("./1", A), file("./2", B)), snapshot_of(file("./1", C))
    set_bounds(replace(before, objects=2))
    try:
        assert snapshot_size(store_of(one), one.id).objects == 2
        with pytest.raises(ManifestTooLarge, match="SNAPFERRY_MAX_PLAN_OBJECTS"):
            store_size(store_of(one, other))
    finally:
        set_bounds(before)


def test_progress_is_reported() -> None:
    seen: list[int] = []
    store_size(store_of(snapshot_of(file("./1")), snapshot_of(file("./2"))), seen.append)

    assert seen == [1, 2]
