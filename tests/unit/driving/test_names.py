"""Names that a job carries along."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from snapferry.orchestrator.driving.steps.names import origin_of
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.receipt import receipt
from snapferry.stores.address import Address, SnapshotId, object_key
from snapferry.stores.errors import AccessDenied, StoreUnavailable
from snapferry.stores.hashing import digest
from snapferry.stores.names.name import NAMES, Name, NameRecord, parse_name
from snapferry.stores.names.names import Names
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.ledger import State
from snapferry.workers.messages import Prune
from tests.sample import make_store

from .fleet import Fleet, snapshots

ONE, OTHER, THIRD = parse_name("one"), parse_name("other"), parse_name("third")


def source(fleet: Fleet) -> SnapshotStore:
    return open_store(str(fleet.source))


def names_of(store: SnapshotStore) -> dict[str, SnapshotId]:
    return {
        name: one.record.snapshot_id for name, one in store.names.listed().items() if one.record is not None
    }


def test_names_follow_their_snapshots_after_these_are_published(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = snapshots(fleet, 2)
    source(fleet).names.write(ONE, NameRecord(first))
    source(fleet).names.write(OTHER, NameRecord(second))
    write, seen = Names.write, []

    def noting(self: Names, name: Name, record: NameRecord, **how: Any) -> Any:
        seen.append(set(fleet.published()))
        return write(self, name, record, **how)

    monkeypatch.setattr(Names, "write", noting)
    fleet.submit(first, names=True)
    fleet.copy_all()

    origin = origin_of(fleet.spec.source)
    assert fleet.status.state is State.DONE
    assert seen == [{first}]
    # The other one is of a snapshot that is not there.
    assert names_of(fleet.store) == {ONE: first}
    assert fleet.store.names.read(ONE).origin == origin
    assert status_document(fleet.status)["names"] == {"carried": 1, "kept": 0, "removed": 0}
    assert receipt(fleet.ledger, "job")["names"] == {"carried": 1, "kept": [], "removed": []}


def test_without_the_option_no_name_is_touched(fleet: Fleet) -> None:
    source(fleet).names.write(ONE, NameRecord(fleet.snapshot))

    fleet.submit(fleet.snapshot)
    fleet.copy_all()

    assert fleet.status.state is State.DONE
    assert not (fleet.destination / NAMES).exists()


def test_a_name_that_moved_is_moved_and_a_second_run_changes_nothing(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = snapshots(fleet, 2)
    source(fleet).names.write(ONE, NameRecord(first))
    fleet.submit(first, second, names=True)
    fleet.copy_all()
    source(fleet).names.write(ONE, NameRecord(second))
    fleet.submit(first, second, names=True)
    fleet.copy_all()
    assert names_of(fleet.store) == {ONE: second}

    def fails(self: Names, *_: Any, **__: Any) -> None:
        raise AssertionError("written again")

    monkeypatch.setattr(Names, "write", fails)
    fleet.submit(first, second, names=True)
    fleet.copy_all()
    assert (fleet.status.state, fleet.status.names_carried) == (State.DONE, 1)


def test_only_names_from_this_source_are_removed(fleet: Fleet) -> None:
    first, second = snapshots(fleet, 2)
    for name in (ONE, OTHER, THIRD):
        source(fleet).names.write(name, NameRecord(first))
    fleet.submit(first, second, names=True)
    fleet.copy_all()
    # A person moves one of them at the destination; two others come from there and elsewhere.
    theirs, elsewhere = parse_name("theirs"), parse_name("elsewhere")
    fleet.store.names.write(OTHER, NameRecord(second))
    fleet.store.names.write(theirs, NameRecord(second))
    fleet.store.names.write(elsewhere, NameRecord(second, digest(b"another source")))
    for name in (ONE, OTHER):
        source(fleet).names.delete(name)

    fleet.submit(first, second, names=True)
    fleet.copy_all()
    assert set(names_of(fleet.store)) == {ONE, OTHER, THIRD, theirs, elsewhere}
    fleet.submit(first, second, names=True, prune=Prune())
    fleet.copy_all()

    assert fleet.status.state is State.DONE
    assert set(names_of(fleet.store)) == {OTHER, THIRD, theirs, elsewhere}
    assert receipt(fleet.ledger, "job")["names"] == {"carried": 1, "kept": [], "removed": [ONE]}


def test_names_of_others_are_kept(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a person and of another source; also if they were given while the job looked."""
    first, second = snapshots(fleet, 2)
    fleet.submit(first, second)
    fleet.copy_all()
    fleet.store.names.write(ONE, NameRecord(first))
    fleet.store.names.write(OTHER, NameRecord(first, digest(b"another source")))
    for name in (ONE, OTHER, THIRD):
        source(fleet).names.write(name, NameRecord(second))
    listed = Names.listed

    def then_somebody_writes(self: Names) -> Any:
        found = listed(self)
        if THIRD not in found:
            fleet.store.names.write(THIRD, NameRecord(first))
        return found

    monkeypatch.setattr(Names, "listed", then_somebody_writes)
    fleet.submit(first, second, names=True)
    fleet.copy_all()

    assert fleet.status.state is State.DONE
    assert names_of(fleet.store) == {ONE: first, OTHER: first, THIRD: first}
    assert receipt(fleet.ledger, "job")["names"] == {"carried": 0, "kept": [ONE, OTHER, THIRD], "removed": []}


def test_what_cannot_be_read_at_the_destination_is_replaced(fleet: Fleet) -> None:
    source(fleet).names.write(ONE, NameRecord(fleet.snapshot))
    (fleet.destination / NAMES).mkdir(parents=True)
    (fleet.destination / NAMES / ONE).write_text("broken")

    fleet.submit(fleet.snapshot, names=True)
    fleet.copy_all()

    assert names_of(fleet.store) == {ONE: fleet.snapshot}


def test_nothing_is_removed_where_nothing_may_be_deleted(fleet: Fleet) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    fleet.store.names.write(ONE, NameRecord(old, origin_of(fleet.spec.source)))
    fleet.submit(fleet.snapshot, names=True, prune=Prune(max_delete=0))
    fleet.copy_all()
    assert fleet.status.state is State.FAILED
    assert names_of(fleet.store) == {ONE: old}

    fleet.submit(fleet.snapshot, names=True, prune=Prune())
    fleet.copy_all()
    assert (fleet.status.state, fleet.status.names_removed) == (State.DONE, 1)
    assert names_of(fleet.store) == {}


def test_a_failed_snapshot_stops_only_its_own_names(fleet: Fleet) -> None:
    good, bad = snapshots(fleet, 2)
    source(fleet).names.write(ONE, NameRecord(good))
    source(fleet).names.write(OTHER, NameRecord(bad))
    with source(fleet).read_manifest(good) as one, source(fleet).read_manifest(bad) as other:
        victim = next(iter(other.objects().keys() - one.objects().keys()))
    (fleet.source / object_key(Address(victim))).unlink()

    fleet.submit(good, bad, names=True)
    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert names_of(fleet.store) == {ONE: good}


def _broken(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    (fleet.source / NAMES / OTHER).write_text("\x1b[2J")


def _refused(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Names, *_: Any, **__: Any) -> None:
        raise AccessDenied("file://b", NAMES, "no permission")

    monkeypatch.setattr(Names, "write", refuse)


@pytest.mark.parametrize("trouble", [_broken, _refused])
def test_a_name_that_cannot_be_carried_fails_the_job_before_anything_is_deleted(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[Fleet, pytest.MonkeyPatch], None]
) -> None:
    old = make_store(fleet.destination, {"./old": b"old"})
    source(fleet).names.write(ONE, NameRecord(fleet.snapshot))
    trouble(fleet, monkeypatch)

    fleet.submit(fleet.snapshot, names=True, prune=Prune())
    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert fleet.status.error.isprintable()
    assert set(fleet.published()) == {fleet.snapshot, old}


@pytest.mark.parametrize("broken_off", range(1, 5))
def test_a_job_that_was_cut_off_among_the_names_completes_them(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, broken_off: int
) -> None:
    """Twice two names are written, and two are removed; a store is away at each of these steps."""
    for name in (ONE, OTHER):
        source(fleet).names.write(name, NameRecord(fleet.snapshot))
    kept = make_store(fleet.destination, {"./old": b"old"})
    make_store(fleet.source, {"./old": b"old"})
    gone = [parse_name("gone-1"), parse_name("gone-2")]
    for name in gone:
        fleet.store.names.write(name, NameRecord(kept, origin_of(fleet.spec.source)))
    calls = 0

    def breaking(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Names, *arguments: Any, **how: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == broken_off:
                raise StoreUnavailable("file://b", NAMES, "timed out")
            return real(self, *arguments, **how)

        return call

    for verb in ("write", "delete"):
        monkeypatch.setattr(Names, verb, breaking(getattr(Names, verb)))
    fleet.submit(fleet.snapshot, names=True, prune=Prune())
    with pytest.raises(StoreUnavailable):
        fleet.copy_all()
    fleet.drive()

    assert (fleet.status.state, fleet.status.names_carried) == (State.DONE, 2)
    assert receipt(fleet.ledger, "job")["names"] == {"carried": 2, "kept": [], "removed": gone}
    assert set(names_of(fleet.store)) == {ONE, OTHER}


def test_the_origin_of_a_source_has_no_secret_and_ignores_how_it_is_reached(tmp_path: Path) -> None:
    from snapferry.workers.messages import StoreRef

    one = StoreRef(url="s3://b/p?endpoint_url=http%3A%2F%2F127.0.0.1%3A1&profile=x")

    assert origin_of(one) == origin_of(StoreRef(url="s3://b/p?endpoint_url=http%3A%2F%2F127.0.0.1%3A1"))
    assert origin_of(one) != origin_of(StoreRef(url="s3://b/p"))
    assert len(origin_of(one)) == 64
