"""A job that heals its destination: its plan, its batches and its end, driven by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from snapferry.orchestrator.driving.outcome import Result
from snapferry.orchestrator.planning import prepare
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.failures import dead_letters
from snapferry.orchestrator.reporting.receipt import receipt
from snapferry.orchestrator.reporting.text.dry_run import dry_run_lines
from snapferry.orchestrator.reporting.text.outcome import done_text
from snapferry.stores.access import TRUSTED
from snapferry.stores.address import EMPTY_ADDRESS, Address, SnapshotId, manifest_key, object_key
from snapferry.stores.errors import StoreFault
from snapferry.stores.opening import open_store
from snapferry.workers.ledger import State
from snapferry.workers.messages import Action, StoreRef, encode_addresses
from tests.bad_disk import BadDisk
from tests.sample import assert_published_means_complete, tree

from .fleet import Fleet, estimate_of, snapshots

WRONG = b"wrong"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> BadDisk:
    return BadDisk(monkeypatch)


@pytest.fixture
def healing(fleet: Fleet) -> Fleet:
    """Three snapshots that share objects, at the store to heal and at two sources."""
    ids = snapshots(fleet, 3)
    further = fleet.source.parent / "further"
    for root in (fleet.destination, further):
        there, store = open_store(str(fleet.source)), open_store(str(root))
        for snapshot in there.list_manifest_ids():
            with there.read_manifest(snapshot) as manifest:
                for address in manifest.objects():
                    store.put_object(address, there.get_object(address))
                store.publish(manifest)
    fleet.submit(*ids, action=Action.HEAL, more_sources=(StoreRef(url=str(further)),), everything=False)
    return fleet


def objects(fleet: Fleet) -> list[Address]:
    found: set[Address] = set()
    for snapshot in fleet.spec.snapshot_ids:
        with open_store(str(fleet.source.parent / "further")).read_manifest(snapshot) as manifest:
            found |= manifest.objects().keys()
    return sorted(found - {EMPTY_ADDRESS})


def spoil(root: Path, *addresses: Address, data: bytes = WRONG) -> None:
    for address in addresses:
        (root / object_key(address)).write_bytes(data)


def sound(root: Path) -> dict[str, bytes]:
    return {path: data for path, data in tree(root).items() if not path.startswith(".quarantine")}


def quarantine(root: Path) -> list[bytes]:
    return [data for path, data in tree(root).items() if path.startswith(".quarantine")]


def test_a_dry_run_counts_what_is_missing_and_writes_nothing(healing: Fleet) -> None:
    corrupt, gone, also_gone, *_ = objects(healing)
    spoil(healing.destination, corrupt)
    healing.remove(gone, also_gone)
    before = tree(healing.destination)
    healing.submit(*healing.spec.snapshot_ids, dry_run=True)

    healing.drive()

    estimate = estimate_of(healing)
    assert estimate["objects"] == {"total": 33, "present": 31, "to_copy": 2, "to_read": 31}
    assert estimate["bytes"]["to_read"] + estimate["bytes"]["to_copy"] == estimate["bytes"]["total"]
    said = dry_run_lines(healing.status, estimate)[0]
    assert said.startswith("would read 31 of 33 objects, ")
    assert ", fetch 2 objects are missing" not in said
    assert ", fetch 2 objects that are missing (" in said
    assert tree(healing.destination) == before


def test_a_store_is_healed_from_the_first_source_that_can(healing: Fleet) -> None:
    before = sound(healing.destination)
    corrupt, gone, elsewhere, *_ = objects(healing)
    spoil(healing.destination, corrupt, elsewhere)
    healing.remove(gone)
    spoil(healing.source, elsewhere)

    healing.copy_all()

    status = healing.status
    assert (status.state, status.error) == (State.DONE, "")
    assert (status.copied, status.failed, status.present) == (3, 0, status.objects_total - 3)
    assert [state for _, state in healing.rows()] == ["verified"] * 3
    assert sound(healing.destination) == before
    assert quarantine(healing.destination) == [WRONG] * 2
    first, further = f"file://{healing.source}", f"file://{healing.source.parent}/further"
    repairs = {one.address: one for one in healing.ledger.repairs("job")}
    assert {(one.address, one.wrong, one.source) for one in repairs.values()} == {
        (corrupt, "corrupt", first), (gone, "missing", first), (elsewhere, "corrupt", further),
    }  # fmt: skip
    assert receipt(healing.ledger, "job")["repaired"] == [one._asdict() for one in sorted(repairs.values())]


def test_healing_an_intact_store_changes_nothing(healing: Fleet) -> None:
    before = tree(healing.destination)

    healing.copy_all()

    assert healing.status.state is State.DONE
    assert (healing.status.copied, healing.status.present) == (0, healing.status.objects_total)
    assert tree(healing.destination) == before
    assert healing.ledger.repairs("job") == []


def test_what_no_source_has_is_left_as_it_is_and_named(healing: Fleet) -> None:
    hopeless, healed = objects(healing)[:2]
    for root in (healing.destination, healing.source, healing.source.parent / "further"):
        spoil(root, hopeless)
    spoil(healing.destination, healed)

    healing.copy_all()

    assert healing.status.state is State.FAILED
    assert (healing.status.copied, healing.status.failed) == (1, 1)
    (letter,) = dead_letters(healing.ledger, "job", TRUSTED)
    assert letter.address == hopeless
    assert letter.known is not None
    assert letter.known.failure.error == "IntegrityError"
    assert letter.known.failure.store == f"file://{healing.destination}"
    assert letter.places
    assert {one.address for one in healing.ledger.repairs("job")} == {healed}
    assert (healing.destination / object_key(hopeless)).read_bytes() == WRONG
    hurt = {snapshot for snapshot, _ in letter.places}
    assert set(healing.rows()) == {
        (each, "failed" if each in hurt else "verified") for each in healing.spec.snapshot_ids
    }


@pytest.mark.parametrize("spoilt", [None, b"", WRONG, b"F 644 0000 0 ./a\n"])
def test_a_wrong_or_missing_manifest_is_written_from_a_source_after_its_objects(
    healing: Fleet, spoilt: bytes | None
) -> None:
    before = sound(healing.destination)
    snapshot = healing.spec.snapshot_ids[1]
    path = healing.destination / manifest_key(snapshot)
    (healing.source / manifest_key(snapshot)).write_bytes(WRONG)
    path.unlink()
    if spoilt is not None:
        path.write_bytes(spoilt)
    spoil(healing.destination, *objects(healing)[:2])

    healing.drive()
    assert path.exists() == (spoilt is not None)
    # Another orchestrator plans the job again.
    prepare.forget("job")
    healing.copy_all()

    assert healing.status.state is State.DONE
    assert sound(healing.destination) == before
    assert sorted(quarantine(healing.destination)) == sorted([WRONG] * 2 + ([spoilt] if spoilt else []))
    assert_published_means_complete(healing.store)
    assert healing.status.manifests_healed == 1
    assert receipt(healing.ledger, "job")["manifests_healed"] == 1
    assert status_document(healing.status)["manifests_healed"] == 1
    assert "2 healed" in done_text(healing.status)
    assert "; 1 manifest healed, in " in done_text(healing.status)


@pytest.mark.parametrize("strange", [lambda path: path.symlink_to("/etc/passwd"), lambda path: path.mkdir()])
def test_something_else_in_the_place_of_a_manifest_is_replaced(
    healing: Fleet, strange: Callable[[Path], None]
) -> None:
    before = sound(healing.destination)
    path = healing.destination / manifest_key(healing.spec.snapshot_ids[1])
    path.unlink()
    strange(path)

    healing.copy_all()

    assert healing.status.state is State.DONE
    assert sound(healing.destination) == before
    assert Path("/etc/passwd").is_file()


def test_a_manifest_stays_as_it_is_while_an_object_of_it_is_wrong(healing: Fleet) -> None:
    snapshot = healing.spec.snapshot_ids[1]
    with open_store(str(healing.source)).read_manifest(snapshot) as manifest:
        address = min(manifest.objects().keys() - {EMPTY_ADDRESS})
    for root in (healing.destination, healing.source, healing.source.parent / "further"):
        spoil(root, address)
    (healing.destination / manifest_key(snapshot)).write_bytes(WRONG)

    healing.copy_all()

    assert healing.status.state is State.FAILED
    assert (healing.destination / manifest_key(snapshot)).read_bytes() == WRONG


def test_a_manifest_that_no_store_has_intact_is_named(healing: Fleet) -> None:
    snapshot = healing.spec.snapshot_ids[1]
    for root in (healing.destination, healing.source, healing.source.parent / "further"):
        (root / manifest_key(snapshot)).write_bytes(WRONG)

    healing.copy_all()

    assert healing.status.state is State.FAILED
    assert dict(healing.rows())[snapshot] == "failed"
    row = next(row for row in receipt(healing.ledger, "job")["snapshots"] if row["id"] == snapshot)
    assert row["reason"].startswith("IntegrityError")


@pytest.mark.parametrize("first", [True, False])
def test_a_source_that_is_gone_stops_no_other(healing: Fleet, first: bool) -> None:
    before = sound(healing.destination)
    gone = StoreRef(url=str(healing.source.parent / "nowhere"))
    spoil(healing.destination, *objects(healing)[:2])
    spoil(healing.source, objects(healing)[0])
    further = healing.spec.more_sources[0]
    if first:
        healing.submit(*healing.spec.snapshot_ids, source=gone, more_sources=(further,))
    else:
        healing.submit(*healing.spec.snapshot_ids, more_sources=(gone, further))

    healing.copy_all()

    assert healing.status.state is State.DONE
    assert sound(healing.destination) == before


def test_the_only_source_must_be_there(healing: Fleet) -> None:
    gone = StoreRef(url=str(healing.source.parent / "nowhere"))
    healing.submit(*healing.spec.snapshot_ids, source=gone, more_sources=())

    healing.copy_all()

    assert healing.status.state is State.FAILED
    assert healing.status.error.startswith("StoreNotFound")


def test_every_snapshot_of_the_store_is_healed_and_none_is_added(healing: Fleet) -> None:
    before = sound(healing.destination)
    spoil(healing.destination, *objects(healing)[:3])
    listed = len(healing.store.list_manifest_ids())
    healing.submit(everything=True, snapshots=encode_addresses([]))
    only_at_source = snapshots(healing, 5)[-1]

    healing.copy_all()

    assert healing.status.state is State.DONE
    assert healing.status.snapshots_total == listed
    assert sound(healing.destination) == before
    assert only_at_source not in healing.published()


def test_objects_that_vanish_before_the_end_are_healed_again(healing: Fleet) -> None:
    before = sound(healing.destination)
    healing.drive()
    for queued in list(healing.queued):
        healing.copy(queued)
    healing.remove(*objects(healing)[:2])

    healing.copy_all()
    healing.drive()

    assert healing.status.state is State.DONE
    assert healing.status.healed == 2
    assert sound(healing.destination) == before


def test_a_batch_that_is_delivered_twice_heals_once(healing: Fleet) -> None:
    spoil(healing.destination, *objects(healing)[:3])
    healing.drive()
    for queued in list(healing.queued):
        healing.copy(queued)
        healing.copy(queued)

    outcome = healing.drive()

    assert outcome.result is Result.DONE
    assert healing.status.copied == 3
    assert len(quarantine(healing.destination)) == 3


def test_what_the_disk_cannot_read_is_replaced_and_kept(healing: Fleet, disk: BadDisk) -> None:
    unreadable, beside, *_ = objects(healing)
    snapshot = healing.spec.snapshot_ids[0]
    bad = healing.destination / object_key(unreadable)
    disk.spoil(bad, healing.destination / manifest_key(snapshot))
    disk.spoil(healing.source / object_key(unreadable))
    spoil(healing.destination, beside)
    inode = bad.stat().st_ino

    healing.copy_all()

    assert (healing.status.state, healing.status.copied) == (State.DONE, 2)
    repairs = {one.address: one for one in healing.ledger.repairs("job")}
    assert {one.wrong for one in repairs.values()} == {"unreadable", "corrupt"}
    assert (healing.destination / repairs[unreadable].quarantined).stat().st_ino == inode
    assert_published_means_complete(open_store(str(healing.destination)))


def shard_of(root: Path, snapshot: SnapshotId) -> Path:
    return (root / manifest_key(snapshot)).parent


def link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def file(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.write_bytes(b"in the way")


def test_a_link_in_the_place_of_a_manifest_is_healed_with_all_others(healing: Fleet) -> None:
    """A listing that must be complete ends with an error there; a repair is there to repair it."""
    ids = healing.spec.snapshot_ids
    before, wrong = sound(healing.destination), objects(healing)[0]
    healing.submit(action=Action.HEAL, everything=True)
    path = healing.destination / manifest_key(ids[1])
    path.unlink()
    path.symlink_to("/etc/passwd")
    spoil(healing.destination, wrong)

    healing.copy_all()

    assert (healing.status.state, healing.status.error) == (State.DONE, "")
    assert {snapshot: dict(healing.rows())[snapshot] for snapshot in ids} == dict.fromkeys(ids, "verified")
    assert sound(healing.destination) == before


@pytest.mark.parametrize("strange", [link, file])
def test_what_can_be_listed_is_healed_and_the_rest_is_named(
    healing: Fleet, strange: Callable[[Path], None]
) -> None:
    first, *others = healing.spec.snapshot_ids
    with open_store(str(healing.source)).read_manifest(others[0]) as manifest:
        wrong = max(manifest.objects())
    healing.submit(action=Action.HEAL, everything=True)
    shard = shard_of(healing.destination, first)
    strange(shard)
    spoil(healing.destination, wrong)

    healing.copy_all()

    status = healing.status
    assert (status.state, status.copied, status.snapshots_failed) == (State.FAILED, 1, 0)
    assert str(shard) in status.error
    assert status.cause == "StoreFault"
    rows = dict(healing.rows())
    assert {rows[snapshot] for snapshot in others} == {"verified"}
    assert first not in rows
    assert open_store(str(healing.destination)).check_object(wrong)
    with pytest.raises(StoreFault):
        open_store(str(healing.destination)).list_manifests()


def test_a_store_of_which_nothing_can_be_listed_says_why(healing: Fleet) -> None:
    healing.submit(action=Action.HEAL, everything=True)
    link(healing.destination / ".manifests")

    healing.copy_all()

    assert healing.status.state is State.FAILED
    assert f"{healing.destination}/.manifests is a symbolic link" in healing.status.error
