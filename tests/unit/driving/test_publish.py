"""Which snapshots are published, when, and how absent objects are healed."""

from __future__ import annotations

import random

import pytest

from snapferry.orchestrator.driving.outcome import DriveOutcome, Result
from snapferry.orchestrator.driving.snapshot_rows import snapshot_rows
from snapferry.orchestrator.driving.steps import publish
from snapferry.orchestrator.driving.steps.publish import MAX_HEALS, Publisher
from snapferry.orchestrator.driving.steps.requeue import STALL_S
from snapferry.stores.address import EMPTY_ADDRESS, Address, SnapshotId, manifest_key, object_key
from snapferry.stores.bulk.address_set import AddressSet
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from snapferry.stores.pools.objects import ObjectPool
from snapferry.workers.ledger import PLAN, State
from snapferry.workers.messages import Order, encode_addresses
from tests.sample import assert_published_means_complete, random_files

from .fleet import Fleet, snapshots


def test_snapshots_that_share_nothing_are_published_one_by_one(fleet: Fleet) -> None:
    ids = snapshots(fleet, 4, shared=0, own=10)
    fleet.submit(*ids)
    fleet.drive()
    seen = []
    for queued in list(fleet.queued):
        fleet.copy(queued)
        fleet.drive()
        seen.append([state for _, state in fleet.rows()])

    assert seen == [
        ["published", "pending", "pending", "pending"],
        ["published", "published", "pending", "pending"],
        ["published", "published", "published", "pending"],
        ["published"] * 4,
    ]
    assert fleet.status.state is State.DONE
    assert sorted(ids) == fleet.published()


def _asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that gets how many objects each check before manifests asks the destination for."""
    asked: list[int] = []
    absent = ObjectPool.absent

    def counting(pool: ObjectPool, addresses: AddressSet) -> AddressSet:
        asked.append(len(addresses))
        return absent(pool, addresses)

    monkeypatch.setattr(ObjectPool, "absent", counting)
    return asked


@pytest.mark.parametrize(("most", "checks"), [(1000, [41]), (22, [21, 21]), (1, [11] * 4)])
def test_groups_that_are_complete_at_the_same_time_are_checked_together(
    most: int, checks: list[int], fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "MOST_CHECKED_AT_ONCE", most)
    ids = snapshots(fleet, 4, shared=0, own=10)
    fleet.submit(*ids)
    fleet.drive()
    for queued in fleet.queued:
        fleet.copy(queued)
    asked = _asked(monkeypatch)

    fleet.drive()

    assert asked == checks
    assert fleet.published() == sorted(ids)
    assert [row.copied for row in snapshot_rows(fleet.ledger, "job")] == [11, 10, 10, 10]


def test_of_groups_that_are_checked_together_those_that_are_whole_are_published(fleet: Fleet) -> None:
    ids = snapshots(fleet, 4, shared=0, own=10)
    fleet.submit(*ids)
    fleet.drive()
    for queued in fleet.queued:
        fleet.copy(queued)
    gone = objects_of(fleet, ids[1])[0], objects_of(fleet, ids[3])[0]
    fleet.remove(*gone)

    fleet.drive()

    assert fleet.published() == sorted([ids[0], ids[2]])
    heals = fleet.queued[-2:]
    assert [(heal.series, list(heal.batches[0].objects)) for heal in heals] == [
        ("heal-1-1", [gone[0]]),
        ("heal-3-1", [gone[1]]),
    ]
    for heal in heals:
        fleet.copy(heal)
    fleet.drive()
    assert fleet.published() == sorted(ids)
    assert fleet.status.state is State.DONE


def test_after_a_slow_check_groups_wait_for_others_but_not_for_ever(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "QUICK_S", 0)
    monkeypatch.setattr(publish, "REST_SHARE", 10**9)
    ids = snapshots(fleet, 4, shared=0, own=10)
    fleet.submit(*ids)
    fleet.drive()
    queued = list(fleet.queued)
    seen = []
    for each in queued:
        fleet.copy(each)
        fleet.drive()
        seen.append(len(fleet.published()))

    assert seen == [1, 1, 1, 4]
    assert fleet.drives == ["groups may be complete"]
    assert fleet.status.state is State.DONE
    assert not fleet.ledger.rests("job")


def test_a_later_snapshot_is_not_published_before_an_earlier_one_that_it_shares_objects_with(
    fleet: Fleet,
) -> None:
    """Batches end in any order; the first group's are not all done, so nothing of a later group is asked for."""
    ids = snapshots(fleet, 2, shared=20, own=30)
    fleet.submit(*ids)
    fleet.drive()
    fleet.copy(fleet.queued[-1])

    fleet.drive()

    assert fleet.published() == []
    fleet.copy_all()
    assert fleet.published() == sorted(ids)


def test_an_object_that_many_snapshots_share_is_copied_and_asked_for_once(fleet: Fleet) -> None:
    ids = snapshots(fleet, 30, shared=40, own=2)
    fleet.submit(*ids)
    fleet.copy_all()

    addresses = [a for queued in fleet.queued for batch in queued.batches for a in batch.objects]
    assert len(addresses) == len(set(addresses)) == 41 + 30 * 2
    assert (fleet.status.copied, fleet.status.state) == (101, State.DONE)
    rows = list(snapshot_rows(fleet.ledger, "job"))
    assert [row.objects for row in rows] == [43] * 30
    assert all(row.objects == row.copied + row.present + row.shared for row in rows)
    assert sum(row.copied for row in rows) == 101


def test_a_failed_object_keeps_only_the_snapshots_that_name_it_from_being_published(fleet: Fleet) -> None:
    ids = snapshots(fleet, 5)
    victim = digest(random.Random(1002).randbytes(102))
    fleet.remove(victim, at=fleet.source)
    fleet.submit(*ids)

    fleet.copy_all()

    status = fleet.status
    assert status.state is State.FAILED
    assert status.error == (
        "1 of 5 snapshots is not published: 1 of 41 objects could not be copied. The other 4 are published."
    )
    assert fleet.published() == sorted(set(ids) - {ids[2]})
    assert (status.snapshots_published, status.snapshots_failed, status.failed) == (4, 1, 1)
    assert [failed.failure.address for failed in fleet.ledger.failures("job")] == [victim]
    assert_published_means_complete(fleet.store)
    row = list(snapshot_rows(fleet.ledger, "job"))[2]
    assert (row.state, row.missing, row.reason) == ("failed", 1, "1 of its objects could not be copied")


def test_an_object_that_all_share_and_that_fails_holds_up_all(fleet: Fleet) -> None:
    ids = snapshots(fleet, 5)
    fleet.remove(digest(b""), at=fleet.source)
    fleet.submit(*ids)

    fleet.copy_all()

    assert fleet.published() == []
    assert (fleet.status.state, fleet.status.snapshots_failed) == (State.FAILED, 5)


def test_a_failed_object_keeps_the_manifest_from_being_written_and_the_rest_is_there(fleet: Fleet) -> None:
    victim = digest(random_files(20)["./dir 3/file-00003"])
    fleet.remove(victim, at=fleet.source)

    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("1 of 21 objects could not be copied; the manifest was not written")
    assert (fleet.status.copied, fleet.status.failed) == (20, 1)
    assert not fleet.published()


def test_objects_that_vanished_after_copying_are_copied_again(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0])
    gone = list(fleet.queued[0].batches[2].objects)[:3]
    fleet.remove(*gone)

    fleet.drive()

    heal = fleet.queued[1]
    assert (heal.series, heal.turn, list(heal.batches[0].objects)) == ("heal-0-1", 1, gone)
    assert fleet.status.state is State.COPYING
    assert not fleet.published()
    assert fleet.drive() == DriveOutcome(healing=1)
    fleet.copy(heal)
    assert fleet.drive() == DriveOutcome(result=Result.DONE, published=1)
    assert (fleet.status.healed, fleet.status.copied, fleet.status.failed) == (3, 21, 0)
    assert fleet.status.objects_settled == 21
    assert_published_means_complete(fleet.store)


def test_of_a_group_those_that_are_whole_are_published_and_the_others_healed(fleet: Fleet) -> None:
    ids = snapshots(fleet, 5)
    fleet.submit(*ids)
    fleet.drive()
    for queued in fleet.queued:
        fleet.copy(queued)
    fleet.remove(digest(random.Random(1002).randbytes(102)))

    fleet.drive()

    assert fleet.published() == sorted(set(ids) - {ids[2]})
    fleet.copy(fleet.queued[-1])
    fleet.drive()
    assert fleet.status.state is State.DONE


def test_a_healing_that_is_lost_is_made_up_for(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0])
    fleet.remove(*list(fleet.queued[0].batches[2].objects)[:3])
    fleet.drive()
    fleet.let_time_pass(STALL_S + 1)

    fleet.drive()

    assert [queued.series for queued in fleet.queued] == [PLAN, "heal-0-1", "heal-0-2"]
    fleet.copy(fleet.queued[-1])
    fleet.drive()
    assert fleet.status.state is State.DONE


def test_an_object_that_vanished_at_both_stores_fails_the_job_and_says_so(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0])
    gone = next(iter(fleet.queued[0].batches[0].objects))
    fleet.remove(gone)
    fleet.remove(gone, at=fleet.source)
    fleet.drive()
    fleet.copy(fleet.queued[1])

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith("1 of 21 objects could not be copied")
    assert (fleet.status.copied, fleet.status.failed) == (20, 1)
    assert [failed.failure.error for failed in fleet.ledger.failures("job")] == ["ObjectMissing"]


def test_a_destination_that_keeps_losing_objects_ends_the_job(fleet: Fleet) -> None:
    fleet.drive()
    fleet.copy(fleet.queued[0])
    gone = next(iter(fleet.queued[0].batches[0].objects))
    for _ in range(MAX_HEALS):
        fleet.remove(gone)
        fleet.drive()
        fleet.copy(fleet.queued[-1])
    fleet.remove(gone)

    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert "something deletes" in fleet.status.error
    assert gone in fleet.status.error
    assert not fleet.published()


def test_a_published_snapshot_that_lost_objects_is_healed_by_default(fleet: Fleet) -> None:
    ids = snapshots(fleet, 2)
    fleet.submit(*ids)
    fleet.copy_all()
    lost = digest(random.Random(1000).randbytes(100))
    fleet.remove(lost)
    fleet.submit(*ids)

    fleet.copy_all()

    assert (fleet.status.copied, fleet.status.present) == (1, 28)
    assert_published_means_complete(fleet.store)


def test_a_source_that_loses_a_manifest_while_the_job_runs_costs_that_snapshot(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    fleet.submit(*ids)
    fleet.drive()
    (fleet.source / manifest_key(ids[1])).unlink()

    fleet.copy_all()
    for queued in fleet.queued:
        fleet.copy(queued)
    fleet.drive()

    assert fleet.published() == sorted([ids[0], ids[2]])
    assert fleet.status.state is State.FAILED
    assert "ManifestMissing" in list(snapshot_rows(fleet.ledger, "job"))[1].reason
    assert fleet.status.error.startswith("1 of 3 snapshots is not published: ManifestMissing: ")


def _retry(fleet: Fleet) -> None:
    """Put a retry of the job in its place."""
    ids = [snapshot_id for snapshot_id, state in fleet.rows() if state == "failed"]
    fleet.spec = fleet.spec.successor(
        retries="job", snapshots=encode_addresses(ids), everything=False, order=Order.GIVEN
    )
    fleet.ledger.create(fleet.spec)
    fleet.queued.clear()


def _fail_one(fleet: Fleet) -> list[Address]:
    """Run the job while an object is missing at the source; return those that were copied."""
    own = objects_of(fleet, fleet.snapshot)
    gone = own[3]
    path = fleet.source / object_key(gone)
    body = path.read_bytes()
    path.unlink()
    fleet.copy_all()
    assert (fleet.status.state, fleet.status.failed) == (State.FAILED, 1)
    path.write_bytes(body)
    return [address for address in own if address not in (gone, EMPTY_ADDRESS)]


def objects_of(fleet: Fleet, snapshot_id: SnapshotId) -> list[Address]:
    with open_store(str(fleet.source)).read_manifest(snapshot_id) as manifest:
        return sorted(manifest.objects())


def test_a_retry_copies_the_failed_objects_alone(fleet: Fleet) -> None:
    _fail_one(fleet)
    _retry(fleet)

    fleet.copy_all()

    status = fleet.status
    assert (status.state, status.objects_total, status.copied) == (State.DONE, 1, 1)
    assert fleet.published() == [fleet.snapshot]


def test_a_retry_also_copies_what_was_copied_and_lost_since(fleet: Fleet) -> None:
    copied = _fail_one(fleet)
    fleet.remove(*copied[:2])
    _retry(fleet)

    fleet.copy_all()

    status = fleet.status
    assert (status.state, status.copied) == (State.DONE, 3)
    assert status.objects_total == len(objects_of(fleet, fleet.snapshot))
    assert fleet.published() == [fleet.snapshot]
    assert_published_means_complete(fleet.store)
    assert fleet.ledger.spec(fleet.spec.job_id).continues == "job"


def test_a_retry_that_loses_an_object_meanwhile_names_the_command_that_completes_it(fleet: Fleet) -> None:
    copied = _fail_one(fleet)
    _retry(fleet)
    fleet.drive()
    fleet.remove(copied[0])
    while fleet.queued:
        fleet.copy(fleet.queued.pop(0))
    fleet.drive()

    status = fleet.status
    assert (status.state, status.failed) == (State.FAILED, 0)
    assert f"snapferry resume {fleet.spec.job_id}" in status.error


def test_a_job_ends_although_a_process_died_before_it_counted_the_last_snapshot(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """The process was killed at this point."""

    def killed(_: Publisher) -> None:
        raise Killed

    fleet.drive()
    for queued in list(fleet.queued):
        fleet.copy(queued)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(Publisher, "_count_snapshots", killed)
        fleet.drive()
    assert [state for _, state in fleet.rows()] == ["published"]
    assert fleet.status.snapshots_settled == 0

    fleet.drive()

    assert (fleet.status.state, fleet.status.snapshots_published) == (State.DONE, 1)
