"""When a dry run may call its requests exact: not where they depend on which batch a worker comes to first."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestrator.estimate import survey
from orchestrator.plan import Planner
from orchestrator.prepare import PLANNED, Snapshots
from stores.backends.memory import MemoryBackend
from stores.base import Capabilities
from stores.snapshot_store import SnapshotStore
from tests.sample import fill, random_files
from workers.messages import JobRequest, StoreRef

BATCH = 1000


class Paged(MemoryBackend):
    """Lists by pages, as S3 does, so that questions cost requests."""

    capabilities = Capabilities(concurrency=1, pages_listings=True)


def estimate(shared: int, *, copied: bool) -> dict[str, Any]:
    """Return the estimate for two snapshots that have *shared* objects in common, at the destination if *copied*."""
    source, destination = (SnapshotStore(Paged(name)) for name in "ab")
    base = random_files(shared - 1, size=16)
    # The objects of the second one's own lie between those that both name.
    own = {f"./own/{n}": random.Random(n).randbytes(20) for n in range(6)}
    ids = [fill(source, base), fill(source, base | own)]
    if copied:
        for address in manifest_objects(source, ids[0]):
            destination.copy_object(source, address)
    planner = Planner(max_objects=BATCH, max_bytes=10**9)
    for index, snapshot_id in enumerate(ids):
        planner.add(index, manifest_objects(source, snapshot_id))
    request = JobRequest(
        job_id="job",
        source=StoreRef(url="file:///a"),
        destination=StoreRef(url="file:///b"),
        batch_objects=BATCH,
        batch_bytes=10**9,
    )
    plan = planner.finish()
    assert len(plan.groups) == 2
    return survey(request, Snapshots(ids, PLANNED * 2), plan, source, destination)


def manifest_objects(store: SnapshotStore, snapshot_id: str) -> dict[str, int]:
    with store.read_manifest(snapshot_id) as manifest:
        return manifest.objects()


@pytest.mark.parametrize("copied", [False, True])
def test_requests_are_exact_where_every_order_of_the_batches_takes_as_many(copied: bool) -> None:
    found = estimate(500, copied=copied)

    assert found["exact"] is True
    # Two batches and the two groups' re-check, one listing for each.
    assert found["requests"]["destination"]["ListObjectsV2"] == 4


def test_requests_are_not_exact_where_another_group_may_have_filled_the_page_before() -> None:
    """A batch of 1,000 objects that are there takes one page; with one of the other group's between them, two."""
    found = estimate(1000, copied=True)

    assert found["exact"] is False
