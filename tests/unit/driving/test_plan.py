"""The first step of a job: which snapshots it has, and jobs that end with their plan."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from snapferry.orchestrator.driving.outcome import DriveOutcome, PlanSize, Result
from snapferry.orchestrator.driving.snapshot_rows import snapshot_rows
from snapferry.orchestrator.planning import plan_file
from snapferry.stores.address import SnapshotId, manifest_key
from snapferry.stores.errors import SourceEmpty
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import State
from snapferry.workers.messages import (
    Action,
    Budget,
    Order,
    Price,
    Prune,
    ScrubPart,
)
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from tests.sample import fill, make_store, random_files, tree

from .fleet import Fleet, estimate_of, snapshots


@pytest.mark.parametrize("damage", ["missing", "corrupt", "syntax"])
def test_a_manifest_that_cannot_be_used_stops_no_other(fleet: Fleet, damage: str) -> None:
    ids = snapshots(fleet, 3)
    bad = ids[1]
    path = fleet.source / manifest_key(bad)
    if damage == "missing":
        path.unlink()
    elif damage == "corrupt":
        path.write_bytes(b"F 644 nonsense\n")
    else:
        text = b"F 644 nonsense\n"
        bad = ids[1] = SnapshotId(digest(text))
        path = fleet.source / manifest_key(bad)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    fleet.submit(*ids)

    fleet.copy_all()

    assert fleet.published() == sorted(set(ids) - {bad})
    assert fleet.status.state is State.FAILED
    assert "1 of 3 snapshots is not published: 1 manifest could not be read" in fleet.status.error
    assert fleet.rows()[1] == (bad, "failed")
    kinds = {"missing": "ManifestMissing", "corrupt": "IntegrityError", "syntax": "ManifestSyntaxError"}
    assert list(snapshot_rows(fleet.ledger, "job"))[1].reason.startswith(kinds[damage])


def test_a_dry_run_counts_and_writes_nothing(fleet: Fleet) -> None:
    fleet.submit(fleet.snapshot, dry_run=True)

    assert fleet.drive() == DriveOutcome(result=Result.DONE, planned=PlanSize(1, 21, 20 * 512, 5), to_do=21)

    estimate = estimate_of(fleet)
    assert fleet.status.state is State.DONE
    assert estimate["objects"] == {"total": 21, "present": 0, "to_copy": 21}
    assert estimate["bytes"] == {"total": 20 * 512, "to_copy": 20 * 512}
    assert (estimate["batches"], estimate["cost"], estimate["requests"]) == (
        5,
        None,
        {"source": {}, "destination": {}},
    )
    assert fleet.queued == []
    assert not fleet.destination.exists()


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (
            {"max_objects": 20},
            "over budget: 21 objects to copy, more than --max-objects 20. Nothing was written.",
        ),
        ({"max_bytes": 10_239}, "10.2 kB to copy, more than --max-bytes 10,239"),
        (
            {"max_objects": 1, "max_bytes": 1},
            "more than --max-objects 1; 10.2 kB to copy, more than --max-bytes 1",
        ),
    ],
)
def test_a_job_above_its_budget_is_refused_and_writes_nothing(
    fleet: Fleet, limits: dict[str, int], said: str
) -> None:
    fleet.submit(fleet.snapshot, budget=Budget(**limits))

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert said in fleet.status.error
    assert fleet.queued == []
    assert not fleet.destination.exists()


def test_a_job_within_its_budget_is_done_and_what_is_present_costs_nothing_of_it(fleet: Fleet) -> None:
    files = dict(list(random_files(20).items())[:10])
    make_store(fleet.destination, files)
    fleet.submit(
        fleet.snapshot,
        budget=Budget(max_objects=11, max_bytes=6000, max_cost=0.0, prices=(Price(store="s3:"),)),
    )

    fleet.copy_all()

    assert (fleet.status.state, fleet.status.copied) == (State.DONE, 11)


def test_a_snapshot_whose_manifest_is_trusted_costs_nothing_and_is_not_healed(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    fleet.submit(*ids[:2])
    fleet.copy_all()
    lost = digest(random.Random(1000).randbytes(100))
    fleet.remove(lost)
    fleet.submit(*ids, trust_manifest=True)

    fleet.copy_all()

    assert [state for _, state in fleet.rows()] == ["trusted", "trusted", "published"]
    assert (fleet.status.state, fleet.status.snapshots_trusted) == (State.DONE, 2)
    assert fleet.status.objects_total == 25
    assert (fleet.status.copied, fleet.status.present) == (4, 21)
    assert not fleet.store.has_object(lost)


def test_every_snapshot_of_the_source_is_brought_the_newest_first(fleet: Fleet) -> None:
    ids = [fleet.snapshot, *snapshots(fleet, 3)]
    for age, snapshot_id in enumerate(ids):
        os.utime(fleet.source / manifest_key(snapshot_id), (10**9 - age, 10**9 - age))
    fleet.submit(everything=True, order=Order.NEWEST)

    fleet.copy_all()

    assert [snapshot_id for snapshot_id, _ in fleet.rows()] == ids
    assert fleet.status.snapshots_total == fleet.status.snapshots_published == 4


def test_the_smallest_snapshots_are_brought_first(fleet: Fleet) -> None:
    store = open_store(str(fleet.source))
    ids = [fill(store, {"./x": bytes(size)}) for size in (300, 100, 200)]
    fleet.submit(*ids, order=Order.SMALLEST)

    fleet.copy_all()

    assert [snapshot_id for snapshot_id, _ in fleet.rows()] == [ids[1], ids[2], ids[0]]


def test_a_job_of_no_snapshot_is_done_at_once(fleet: Fleet) -> None:
    fleet.submit()

    fleet.copy_all()

    assert (fleet.status.state, fleet.status.snapshots_total) == (State.DONE, 0)


@pytest.mark.parametrize("prune", [None, Prune(), Prune(force=True)])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_source_without_any_manifest_is_no_empty_source_unless_that_is_said(
    fleet: Fleet, prune: Prune | None, dry_run: bool
) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    # Its objects are still there.
    (fleet.source / manifest_key(fleet.snapshot)).unlink()
    fleet.submit(everything=True, prune=prune, dry_run=dry_run)

    with pytest.raises(SourceEmpty) as raised:
        fleet.drive()

    assert raised.value.store == f"file://{fleet.source}"
    assert "--allow-empty-source" in str(raised.value)
    assert fleet.published() == [old]


@pytest.mark.parametrize(
    ("action", "scrub", "advised"),
    [
        (Action.COPY, None, "a mirror: allow-empty-source = true"),
        (Action.VERIFY, None, "If the store may be empty, give --allow-empty-source"),
        (Action.VERIFY, ScrubPart(name="check", shares=1, share=0), ""),
        (Action.HEAL, None, "by their full ids, with --id or --ids-from"),
    ],
)
def test_no_option_is_advised_for_an_empty_store_that_the_command_lacks(
    fleet: Fleet, action: Action, scrub: ScrubPart | None, advised: str
) -> None:
    for root in (fleet.source, fleet.destination):
        (root / ".manifests").mkdir(parents=True, exist_ok=True)
    (fleet.source / manifest_key(fleet.snapshot)).unlink()
    fleet.submit(everything=True, action=action, scrub=scrub)

    with pytest.raises(SourceEmpty) as raised:
        fleet.drive()

    said = str(raised.value)
    assert advised in said
    assert bool(advised) == ("--" in said)
    assert ("--allow-empty-source" in said) == (action is not Action.HEAL and scrub is None)


def test_a_source_that_may_be_empty_is_a_job_with_nothing_to_do(fleet: Fleet) -> None:
    (fleet.source / manifest_key(fleet.snapshot)).unlink()
    fleet.submit(everything=True, allow_empty_source=True)

    fleet.copy_all()

    assert fleet.status.state is State.DONE


def test_a_plan_makes_the_destination_that_its_workers_will_not_make(fleet: Fleet) -> None:
    fleet.drive()
    assert tree(fleet.destination) == {}
    fleet.destination.rmdir()
    # As when no worker of the fleet has the mount; before that is known the batch is parked.
    ParkedJobs(fleet.ledger.client).give_up("job", "no live worker can reach both stores")

    fleet.copy(fleet.queued[0])

    assert not fleet.destination.exists()
    assert {failed.failure.error for failed in fleet.ledger.failures("job")} == {"StoreNotFound"}
    assert fleet.status.failed == 21


def test_a_destination_that_cannot_be_made_fails_the_job_before_anything_is_queued(fleet: Fleet) -> None:
    fleet.destination.write_text("in the way")

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("StoreNotFound: ")
    assert fleet.queued == []


def test_plans_of_tests_are_in_a_folder_of_their_own(fleet: Fleet, tmp_path: Path) -> None:
    """Two runs of these tests at the same time have jobs of the same id."""
    folder = plan_file._folder()
    assert folder is not None
    assert tmp_path.parent in folder.parents
    fleet.drive()
    assert list(folder.glob("job-*.plan"))
