"""Every kind of store can be probed before a copy, and is afterwards as it was before."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from snapferry.stores.diagnosis.findings import Finding, Level
from snapferry.stores.diagnosis.probe import probe_destination, probe_pair, probe_source
from snapferry.stores.snapshot_store import SnapshotStore
from tests.conformance.contract import MakePlace, Place
from tests.sample import fill, random_files

KINDS = ["memory", "file", "rclone", "moto"]
FILES = random_files(3)


def everything(place: Place) -> list[tuple[str, int]]:
    return [(found.key, found.size) for space in (".", "s") for found in place.backend.keys(space)]


def bad(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level is Level.ERROR]


@pytest.mark.parametrize("kind", KINDS)
def test_a_probe_finds_nothing_wrong_and_leaves_nothing_behind(make_place: MakePlace, kind: str) -> None:
    place = make_place(kind)
    store = SnapshotStore(place.backend)
    empty = list(probe_destination(store))
    between = everything(place)
    snapshot = fill(store, FILES)
    before = everything(place)

    source, destination = list(probe_source(store, [snapshot])), list(probe_destination(store))

    assert bad(empty) + bad(source) + bad(destination) == []
    assert between == []
    assert everything(place) == before
    assert place.leftovers() == []
    assert {finding.check for finding in source} >= {"source.list", "source.manifest", "source.object"}
    assert [finding.check for finding in destination].count("store.write") == 2


@pytest.mark.parametrize("kind", KINDS)
def test_several_may_probe_at_once(make_place: MakePlace, kind: str) -> None:
    place = make_place(kind)
    store = SnapshotStore(place.backend)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: list(probe_destination(store)), range(4)))

    assert [finding for one in found for finding in bad(one)] == []
    assert everything(place) == []
    assert place.leftovers() == []


@pytest.mark.parametrize("kind", KINDS)
def test_pools_that_are_split_are_probed_each(make_place: MakePlace, kind: str) -> None:
    objects, manifests = make_place(kind), make_place(kind)
    store = SnapshotStore(objects.backend, manifests.backend)
    snapshot = fill(store, FILES)
    before = everything(objects), everything(manifests)

    found = [
        *probe_source(store, [snapshot]),
        *probe_destination(store),
        *probe_pair(store, store, [snapshot]),
    ]

    assert bad(found) == []
    assert (everything(objects), everything(manifests)) == before
    answered = {finding.said for finding in found if finding.check == "store.answers"}
    assert answered == {f"{place.backend.label} answers" for place in (objects, manifests)}


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_without_a_snapshot_and_one_that_is_missing_are_told(
    make_place: MakePlace, kind: str
) -> None:
    store = SnapshotStore(make_place(kind).backend)

    found = {finding.check: finding for finding in probe_source(store, ["5" * 64])}

    assert found["source.list"].level is Level.WARNING
    assert found["source.manifest"].level is Level.ERROR
    assert "no such snapshot in this store" in found["source.manifest"].said


@pytest.mark.parametrize(("kind", "enforced"), [("rclone", False), ("moto", True)])
def test_whether_conditional_writes_are_enforced_is_told(
    make_place: MakePlace, kind: str, enforced: bool
) -> None:
    found = {finding.check: finding for finding in probe_destination(SnapshotStore(make_place(kind).backend))}

    assert found["s3.conditional"].level is (Level.OK if enforced else Level.NOTE)
    assert found["s3.conditional"].said == f"If-None-Match: * is {'enforced' if enforced else 'ignored'}"
    assert found["clock"].level is Level.OK
