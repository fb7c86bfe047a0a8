"""What a mirror deletes."""

from __future__ import annotations

import pytest

from snapferry.orchestrator.reporting.receipt import receipt
from snapferry.stores.address import manifest_key
from snapferry.stores.errors import AccessDenied, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.ledger import State
from snapferry.workers.messages import (
    Prune,
)
from tests.sample import make_store

from .fleet import Fleet, estimate_of


def test_a_mirror_deletes_what_the_source_does_not_have_after_all_is_there(fleet: Fleet) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    fleet.submit(fleet.snapshot, prune=Prune())
    fleet.drive()
    assert fleet.published() == [old]

    fleet.copy_all()
    for queued in fleet.queued:
        fleet.copy(queued)
    fleet.drive()

    assert fleet.published() == [fleet.snapshot]
    assert (fleet.status.state, fleet.status.deleted) == (State.DONE, 1)
    assert receipt(fleet.ledger, "job")["deleted"] == [old]
    assert fleet.store.has_object(digest(b"old"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Prune(max_delete=1), "--delete would delete 2 manifests, more than --max-delete 1"),
        (Prune(max_delete=0), "--delete would delete 2 manifests, more than --max-delete 0"),
    ],
)
def test_a_mirror_that_would_delete_too_much_deletes_nothing_and_publishes_all(
    fleet: Fleet, options: Prune, said: str
) -> None:
    old = [make_store(fleet.destination, {"./old": b"old %d" % n}) for n in range(2)]
    fleet.submit(fleet.snapshot, prune=options)

    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert said in fleet.status.error
    assert fleet.status.error.startswith("all snapshots are published; nothing was deleted")
    assert fleet.published() == sorted([*old, fleet.snapshot])


@pytest.mark.parametrize("force", [False, True])
def test_a_mirror_of_an_empty_source_deletes_only_if_forced(fleet: Fleet, force: bool) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    (fleet.source / manifest_key(fleet.snapshot)).unlink()
    fleet.submit(everything=True, prune=Prune(force=force), allow_empty_source=True)

    fleet.copy_all()

    assert fleet.published() == ([] if force else [old])
    assert fleet.status.state is (State.DONE if force else State.FAILED)
    if not force:
        assert "the source lists no snapshot at all" in fleet.status.error


def test_a_mirror_deletes_nothing_if_a_snapshot_failed(fleet: Fleet) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    fleet.remove(digest(b""), at=fleet.source)
    fleet.submit(fleet.snapshot, prune=Prune())

    fleet.copy_all()

    assert fleet.published() == [old]
    assert fleet.status.state is State.FAILED


def test_a_mirror_that_was_cut_off_while_it_deleted_accounts_for_all_that_it_deleted(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [make_store(fleet.destination, {"./old": b"old %d" % n}) for n in range(3)]
    fleet.submit(fleet.snapshot, prune=Prune())
    delete = SnapshotStore.delete_manifest
    calls: list[str] = []

    def breaks_off(self: SnapshotStore, snapshot_id: str) -> None:
        calls.append(snapshot_id)
        if len(calls) == 2:
            raise StoreUnavailable(self.label, snapshot_id, "timed out")
        delete(self, snapshot_id)

    monkeypatch.setattr(SnapshotStore, "delete_manifest", breaks_off)
    with pytest.raises(StoreUnavailable):
        fleet.copy_all()

    fleet.drive()

    assert fleet.status.deleted == 3
    assert receipt(fleet.ledger, "job")["deleted"] == sorted(old)
    assert fleet.published() == [fleet.snapshot]


def test_a_mirror_without_the_right_to_delete_says_what_is_left(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(fleet.destination, {"./old": b"old"})
    fleet.submit(fleet.snapshot, prune=Prune())

    def refuse(self: SnapshotStore, snapshot_id: str) -> None:
        raise AccessDenied(self.label, snapshot_id, "no permission")

    monkeypatch.setattr(SnapshotStore, "delete_manifest", refuse)
    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.startswith(
        "all snapshots are published; 1 manifest that the source does not have"
    )
    assert fleet.snapshot in fleet.published()


def test_a_dry_run_of_a_mirror_lists_what_it_would_delete(fleet: Fleet) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    fleet.submit(fleet.snapshot, prune=Prune(max_delete=0), dry_run=True)

    fleet.drive()

    assert estimate_of(fleet)["delete"] == [old]
    assert "more than --max-delete 0" in estimate_of(fleet)["delete_refused"]
    assert fleet.published() == [old]
