"""When a dry run may call its requests exact: not where they depend on which batch a worker comes to first."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from snapferry.orchestrator.planning.estimates.copying import estimate_job
from snapferry.orchestrator.planning.planner import Planner
from snapferry.orchestrator.planning.snapshots import PLANNED, Snapshots
from snapferry.stores.address import Address, SnapshotId
from snapferry.stores.backend import Capabilities
from snapferry.stores.backends.memory import MemoryBackend
from snapferry.stores.manifest.parse import Manifest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.messages import JobSpec, StoreRef
from tests.sample import fill, random_files

BATCH = 1000


class Paged(MemoryBackend):
    """Lists by pages, as S3 does, so that questions cost requests."""

    capabilities = Capabilities(concurrency=1, pages_listings=True)


class Read(SnapshotStore):
    """Notes which manifests are read."""

    def __init__(self, backend: MemoryBackend) -> None:
        super().__init__(backend)
        self.reads: Counter[str] = Counter()

    def read_manifest(self, snapshot_id: str) -> Manifest:
        self.reads[snapshot_id] += 1
        return super().read_manifest(snapshot_id)


def estimate(
    shared: int, *, copied: bool, later: bool = False, kind: type[MemoryBackend] = Paged
) -> dict[str, Any]:
    """
    Return the estimate for two snapshots that have *shared* objects in common, at the destination if *copied*.

    With *later* those of the second one's own are there. *kind* is the destination's backend.
    """
    source, destination = Read(Paged("a")), SnapshotStore(kind("b"))
    base = random_files(shared - 1, size=16)
    # The objects of the second one's own lie between those that both name.
    own = {f"./own/{n}": random.Random(n).randbytes(20) for n in range(6)}
    ids = [fill(source, base), fill(source, base | own)]
    if copied:
        for address in manifest_objects(source, ids[0]):
            destination.copy_object(source, address)
    if later:
        for address in manifest_objects(source, ids[1]).keys() - manifest_objects(source, ids[0]).keys():
            destination.copy_object(source, address)
    planner = Planner(max_objects=BATCH, max_bytes=10**9)
    for index, snapshot_id in enumerate(ids):
        planner.add(index, manifest_objects(source, snapshot_id))
    request = JobSpec(
        job_id="job",
        source=StoreRef(url="file:///a"),
        destination=StoreRef(url="file:///b"),
        batch_objects=BATCH,
        batch_bytes=10**9,
    )
    plan = planner.finish()
    assert len(plan.groups) == 2
    source.reads.clear()
    found = estimate_job(request, Snapshots(ids, PLANNED * 2), plan, source, destination)
    return found | {"manifests read": dict(source.reads), "ids": ids}


def manifest_objects(store: SnapshotStore, snapshot_id: SnapshotId) -> dict[Address, int]:
    with store.read_manifest(snapshot_id) as manifest:
        return manifest.objects()


@pytest.mark.parametrize("copied", [False, True])
def test_requests_of_several_groups_are_those_of_groups_that_are_checked_one_by_one(copied: bool) -> None:
    """Groups that are complete at the same time are checked together, so it is no exact number."""
    found = estimate(500, copied=copied)

    assert found["exact"] is False
    # Two batches and the two groups' re-check, one listing for each.
    assert found["requests"]["destination"]["ListObjectsV2"] == 4


@pytest.mark.parametrize(("shared", "pages"), [(500, 1), (990, 1), (1000, 2)])
def test_what_a_later_group_has_there_already_is_known_to_an_earlier_one(shared: int, pages: int) -> None:
    """Between the objects of the first batch lie some of the second group's: a listing shows them."""
    found = estimate(shared, copied=False, later=True)

    assert found["objects"]["to_copy"] == shared
    # A page for each batch; each group's re-check meets six more than the first has.
    assert found["requests"]["destination"]["ListObjectsV2"] == 2 + 2 * pages


def test_a_manifest_is_read_once_for_its_questions_and_not_at_all_where_they_cost_nothing() -> None:
    """The first group's objects are all in its batches; to know those of the second its manifest must be read."""
    paged = estimate(500, copied=False)
    free = estimate(500, copied=False, kind=MemoryBackend)

    assert paged["manifests read"] == {paged["ids"][1]: 1}
    assert free["manifests read"] == {}
    assert free["requests"]["destination"].get("ListObjectsV2", 0) == 0
    assert free["exact"] is True
