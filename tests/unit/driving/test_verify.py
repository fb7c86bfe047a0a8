"""A job that looks at a store: nothing is written, and its findings are exact."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.driving.outcome import Result
from snapferry.orchestrator.driving.snapshot_rows import snapshot_rows
from snapferry.orchestrator.planning.plan import SourceChanged
from snapferry.orchestrator.planning.prepare import prepare_check
from snapferry.orchestrator.reporting.failures import dead_letters
from snapferry.orchestrator.reporting.text.drive import describe_drive
from snapferry.orchestrator.reporting.text.dry_run import dry_run_lines
from snapferry.stores.access import TRUSTED
from snapferry.stores.address import Address, SnapshotId, manifest_key, object_key
from snapferry.stores.hashing import digest
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.delivery import Skipped
from snapferry.workers.copying.transfer import verify
from snapferry.workers.ledger import State
from snapferry.workers.messages import Action, Scope, VerifyOptions
from tests.bad_disk import BadDisk
from tests.integration.processes import until
from tests.sample import fill, tree

from .fleet import Fleet, estimate_of, snapshots


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SECOND_LOOK_S", 0.0)


def begin(fleet: Fleet, *ids: SnapshotId, **changed: Any) -> None:
    fleet.submit(*ids, action=Action.VERIFY, destination=fleet.spec.source, **changed)


def states(fleet: Fleet) -> list[str]:
    return [state for _, state in fleet.rows()]


def objects_of(fleet: Fleet, snapshot_id: SnapshotId) -> list[Address]:
    with open_store(str(fleet.source)).read_manifest(snapshot_id) as manifest:
        return sorted(manifest.objects())


def damage(root: Path, address: Address, body: bytes | None) -> None:
    path = root / object_key(address)
    path.unlink()
    if body is not None:
        path.write_bytes(body)


def test_an_intact_store_is_verified_and_nothing_is_written(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    before = tree(fleet.source)
    begin(fleet, *ids)

    fleet.copy_all()

    status = fleet.status
    assert (status.state, status.action, status.copied, status.failed) == (State.DONE, Action.VERIFY, 0, 0)
    assert status.present == status.objects_total == 20 + 3 * 4 + 1
    assert status.bytes_copied == status.bytes_total
    assert states(fleet) == ["verified"] * 3
    assert tree(fleet.source) == before
    assert not fleet.destination.exists()


@pytest.mark.parametrize(
    ("options", "objects", "bytes_read", "exact", "words"),
    [
        ({}, {"to_ask": 0, "to_read": 33}, 11_452, True, "33 of 33 objects would be read"),
        ({"fast": True}, {"to_ask": 33, "to_read": 0}, 0, False, "0 of 33 objects would be read"),
        ({"max_bytes": 3000}, {"to_ask": 0, "to_read": 10}, None, False, "10 of 33 objects would be read"),
    ],
)
def test_a_dry_run_tells_what_would_be_read_and_reads_no_object(
    fleet: Fleet,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    objects: dict[str, int],
    bytes_read: int | None,
    exact: bool,
    words: str,
) -> None:
    ids = snapshots(fleet, 3)
    begin(fleet, *ids, dry_run=True, verify=VerifyOptions(**options))
    monkeypatch.setattr(SnapshotStore, "check_object", None)

    ended = fleet.drive()

    estimate = estimate_of(fleet)
    assert estimate["objects"] == {"total": 33, "present": 0, "to_copy": 0, **objects}
    assert bytes_read is None or estimate["bytes"]["to_read"] == bytes_read
    assert (estimate["exact"], estimate["bounded"]) == (
        exact,
        "max_bytes" if "max_bytes" in options else None,
    )
    assert describe_drive(ended) == f"dry run: {words}; done"
    said = dry_run_lines(fleet.status, estimate)[0]
    assert "copy" not in said
    assert said.startswith("would look" if "fast" in options else "would read")
    assert (fleet.status.state, fleet.queued) == (State.DONE, [])


def test_what_is_wrong_is_named_with_its_snapshots_and_paths(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    own = set(objects_of(fleet, ids[0])) - set(objects_of(fleet, ids[1]))
    shared = set(objects_of(fleet, ids[0])) & set(objects_of(fleet, ids[1])) & set(objects_of(fleet, ids[2]))
    missing, corrupt = min(own), min(shared)
    damage(fleet.source, missing, None)
    damage(fleet.source, corrupt, b"others")
    begin(fleet, *ids)

    fleet.copy_all()

    status = fleet.status
    assert (status.state, status.failed, status.snapshots_failed) == (State.FAILED, 2, 3)
    letters = {letter.address: letter for letter in dead_letters(fleet.ledger, "job", TRUSTED)}
    assert letters.keys() == {missing, corrupt}
    assert [snapshot_id for snapshot_id, _ in letters[missing].places] == [ids[0]]
    assert [snapshot_id for snapshot_id, _ in letters[corrupt].places] == ids
    errors = {address: letter.known.failure.error for address, letter in letters.items() if letter.known}
    assert errors == {missing: "ObjectMissing", corrupt: "IntegrityError"}
    assert [row.missing for row in snapshot_rows(fleet.ledger, "job")] == [2, 1, 1]


def test_an_object_that_the_disk_cannot_read_is_named_with_its_paths(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = snapshots(fleet, 2)
    unreadable = min(set(objects_of(fleet, ids[0])) - set(objects_of(fleet, ids[1])))
    BadDisk(monkeypatch).spoil(fleet.source / object_key(unreadable))
    begin(fleet, *ids)

    fleet.copy_all()

    assert (fleet.status.state, fleet.status.failed, fleet.status.snapshots_failed) == (State.FAILED, 1, 1)
    (letter,) = dead_letters(fleet.ledger, "job", TRUSTED)
    assert letter.known is not None
    assert (letter.address, letter.known.failure.error) == (unreadable, "Unreadable")
    ((snapshot_id, paths),) = letter.places
    assert snapshot_id == ids[0]
    assert paths


@pytest.mark.parametrize("beyond", [0, 1, 5000])
def test_failures_that_are_not_in_the_plan_are_a_damaged_record_and_not_a_defect(
    fleet: Fleet, beyond: int
) -> None:
    ids = snapshots(fleet, 2)
    damage(fleet.source, objects_of(fleet, ids[0])[0], None)
    begin(fleet, *ids)
    fleet.copy_all()
    total = fleet.status.objects_total
    fleet.ledger.client.setbit("snapferry:job:job:failed", total + beyond, 1)

    with pytest.raises(SourceChanged, match=f"of a plan with {total}$"):
        list(dead_letters(fleet.ledger, "job", TRUSTED))


def test_only_snapshots_that_name_a_wrong_object_are_hurt(fleet: Fleet) -> None:
    ids = snapshots(fleet, 3)
    damage(fleet.source, min(set(objects_of(fleet, ids[1])) - set(objects_of(fleet, ids[0]))), b"x")
    begin(fleet, *ids)

    fleet.copy_all()

    assert states(fleet) == ["verified", "failed", "verified"]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("body", [None, b"", b"not a manifest\n"])
def test_a_manifest_that_cannot_be_used_is_a_finding(fleet: Fleet, alone: bool, body: bytes | None) -> None:
    ids = snapshots(fleet, 2)
    path = fleet.source / manifest_key(ids[0])
    path.unlink()
    if body is not None:
        path.write_bytes(body)
    begin(fleet, *ids[: 1 if alone else 2])

    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert states(fleet) == ["failed", "verified"][: 1 if alone else 2]
    assert next(iter(snapshot_rows(fleet.ledger, "job"))).reason


def test_a_snapshot_that_is_withdrawn_meanwhile_is_left_out(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = snapshots(fleet, 3)
    begin(fleet, everything=True)
    store = open_store(str(fleet.source))
    listed = store.list_manifests()
    left = sorted(listed.keys() - {ids[1]})
    lists = [listed, {snapshot_id: listed[snapshot_id] for snapshot_id in left}]
    (fleet.source / manifest_key(ids[1])).unlink()
    monkeypatch.setattr(store, "list_manifests", lambda **_: lists.pop(0))

    found, plan = prepare_check(fleet.ledger, fleet.spec, store, store)

    assert sorted(found.ids) == left
    assert set(plan.snapshots) == set(range(len(left)))


@pytest.mark.parametrize("of", [2, 5])
def test_the_samples_of_a_store_are_looked_at_once_each(fleet: Fleet, of: int) -> None:
    ids = snapshots(fleet, 2)
    seen = []
    for sample in range(of):
        begin(fleet, *ids, scope=Scope(samples=of, sample=sample))
        fleet.copy_all()
        assert fleet.status.state is State.DONE
        assert states(fleet) == ["checked"] * 2
        seen.append(fleet.status.objects_total)

    begin(fleet, *ids, scope=Scope())
    fleet.copy_all()
    assert sum(seen) == fleet.status.objects_total
    assert 0 < max(seen) < sum(seen)


def test_a_range_of_addresses_is_all_that_is_looked_at(fleet: Fleet) -> None:
    ids = snapshots(fleet, 1)
    addresses = objects_of(fleet, ids[0])
    for scope, wanted in [
        (Scope(first="8"), [a for a in addresses if a >= "8"]),
        (Scope(last="3"), [a for a in addresses if a < "4"]),
        (Scope(first=addresses[3], last=addresses[7]), addresses[3:8]),
        (Scope(first="c", last="3"), [a for a in addresses if a >= "c" or a < "4"]),
    ]:
        begin(fleet, *ids, scope=scope)
        fleet.copy_all()
        assert fleet.status.objects_total == len(wanted), scope


def test_a_job_that_reaches_its_bound_says_how_much_it_looked_at(fleet: Fleet) -> None:
    ids = snapshots(fleet, 2)
    begin(fleet, *ids, verify=VerifyOptions(max_bytes=3000), batch_objects=4)

    fleet.copy_all()

    status = fleet.status
    assert (status.state, status.bounded) == (State.DONE, "max_bytes")
    assert 0 < status.bytes_copied <= 3000
    assert 0 < status.present == status.objects_settled < status.objects_total
    assert states(fleet) == ["checked"] * 2
    store = open_store(str(fleet.source))
    _, plan = prepare_check(fleet.ledger, fleet.spec, store, store)
    assert fleet.ledger.field("job", "stopped_at") == plan.address(status.objects_settled)
    rows = list(snapshot_rows(fleet.ledger, "job"))
    assert sum(row.present for row in rows) == status.present


def test_a_job_is_bounded_in_time_and_looks_at_something(fleet: Fleet) -> None:
    begin(fleet, *snapshots(fleet, 2), verify=VerifyOptions(max_seconds=0), batch_objects=4)

    fleet.copy_all()

    assert (fleet.status.state, fleet.status.bounded, fleet.status.present) == (State.DONE, "max_seconds", 4)


def test_a_finding_within_the_bound_fails_the_job(fleet: Fleet) -> None:
    (only,) = snapshots(fleet, 1)
    damage(fleet.source, objects_of(fleet, only)[0], b"x")
    begin(fleet, only, verify=VerifyOptions(max_bytes=2000), batch_objects=4)

    fleet.copy_all()

    assert (fleet.status.state, fleet.status.failed, fleet.status.bounded) == (State.FAILED, 1, "max_bytes")


def test_no_batch_begins_behind_the_bound_and_running_ones_are_waited_for(fleet: Fleet) -> None:
    begin(fleet, *snapshots(fleet, 1), verify=VerifyOptions(max_bytes=0), batch_objects=4)
    fleet.drive()
    assert "intact" in fleet.copy(fleet.queued[0], 0)[0]
    running = fleet.message(fleet.queued[0], fleet.queued[0].batches[1])
    fleet.ledger._redis.hdel("snapferry:job:job", "begins")
    assert fleet.ledger.begin(running, "elsewhere").times == 1

    assert fleet.copy(fleet.queued[0], 2) == [Skipped.BOUNDED]
    assert fleet.drive().result is Result.STOPPING
    fleet.ledger.release(running, "elsewhere")
    assert fleet.drive().result is Result.DONE


def test_what_was_not_looked_at_is_left_for_the_job_that_resumes(fleet: Fleet) -> None:
    ids = snapshots(fleet, 2)
    begin(fleet, *ids, verify=VerifyOptions(max_bytes=3000), batch_objects=4)
    fleet.copy_all()
    first = fleet.status
    spec = fleet.spec.successor(resumes="job", verify=VerifyOptions())
    fleet.ledger.create(spec)

    store = open_store(str(fleet.source))
    _, plan = prepare_check(fleet.ledger, spec, store, store)

    assert plan.objects == first.objects_total - first.objects_settled


def test_a_retry_looks_at_the_failed_objects_alone(fleet: Fleet) -> None:
    (only,) = snapshots(fleet, 1)
    address = objects_of(fleet, only)[5]
    damage(fleet.source, address, b"x")
    begin(fleet, only)
    fleet.copy_all()
    spec = fleet.spec.successor(retries="job")
    fleet.ledger.create(spec)

    store = open_store(str(fleet.source))
    _, plan = prepare_check(fleet.ledger, spec, store, store)

    assert [plan.address(position) for position in range(plan.objects)] == [address]


def test_a_large_object_keeps_its_place_among_the_addresses(fleet: Fleet) -> None:
    bodies = {f"./{number}": bytes([number]) * (5000 if number % 3 else 10) for number in range(30)}
    begin(fleet, fill(open_store(str(fleet.source)), bodies), batch_bytes=2000)
    store = open_store(str(fleet.source))

    _, plan = prepare_check(fleet.ledger, fleet.spec, store, store)

    addresses = [plan.address(position) for position in range(plan.objects)]
    assert addresses == sorted(map(digest, bodies.values()))
    assert len(plan.groups) == 1


def test_a_store_that_is_written_to_and_pruned_meanwhile_gives_no_false_alarm(fleet: Fleet) -> None:
    """Snapshots come with new objects, others are withdrawn, and intact objects are replaced by themselves."""
    ids = snapshots(fleet, 3)
    store = open_store(str(fleet.source))
    over = threading.Event()
    rounds = []

    def write() -> None:
        for number in itertools.count():
            if over.is_set():
                return
            fresh = fill(store, {"./fresh": b"%d" % number, "./same": b"same"})
            store.put_object(digest(b"same"), b"same")
            if number % 2:
                store.delete_manifest(fresh)
            rounds.append(number)

    def look() -> None:
        before = len(rounds)
        begin(fleet, everything=True)
        fleet.copy_all()
        assert fleet.status.state is State.DONE, fleet.status.error
        assert set(states(fleet)) == {"verified"}
        until(lambda: len(rounds) > before + 2, "more was written")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(6):
            look()
    finally:
        over.set()
        writer.join()
    assert set(ids) <= set(store.list_manifest_ids())


def test_what_cannot_be_listed_is_a_finding_and_the_rest_is_verified(fleet: Fleet) -> None:
    first, second, third = snapshots(fleet, 3)
    begin(fleet, everything=True)
    (fleet.source / manifest_key(first)).unlink()
    (fleet.source / manifest_key(first)).mkdir()
    shard = (fleet.source / manifest_key(second)).parent
    shard.rename(shard.with_name("moved"))
    shard.symlink_to("moved")

    fleet.copy_all()

    status = fleet.status
    assert (status.state, status.failed, status.snapshots_failed) == (State.FAILED, 0, 1)
    assert str(shard) in status.error
    rows = dict(fleet.rows())
    assert (rows[first], rows[third], second in rows) == ("failed", "verified", False)
