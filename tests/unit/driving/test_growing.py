"""A copy whose first batches are queued while later manifests are still read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from snapferry.orchestrator.driving.outcome import Result
from snapferry.orchestrator.driving.steps import window
from snapferry.orchestrator.planning import prepare
from snapferry.orchestrator.planning.plan import SourceChanged
from snapferry.orchestrator.reporting.documents import status_document
from snapferry.orchestrator.reporting.measures import percent, share
from snapferry.orchestrator.reporting.receipt import receipt
from snapferry.stores.address import SnapshotId, manifest_key
from snapferry.stores.errors import StoreUnavailable
from snapferry.stores.manifest.known_lines import KnownLines
from snapferry.stores.stream_store import StreamStore
from snapferry.workers.ledger import State
from snapferry.workers.messages import Budget, JobSpec, Prune
from tests.json_documents import check
from tests.sample import tree

from .fleet import Fleet, snapshots

COUNT = 6


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "GROW_S", 0.0)


class Died(BaseException):
    """An orchestrator that is killed."""


class Reads:
    """Counts the manifests that planning reads, and calls *before* each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ids: list[str] = []
        self.before: Callable[[int], None] = lambda _: None
        read = prepare._objects

        def reading(spec: JobSpec, source: StreamStore, snapshot_id: str, known: KnownLines) -> Any:
            self.before(len(self.ids))
            self.ids.append(snapshot_id)
            return read(spec, source, snapshot_id, known)

        monkeypatch.setattr(prepare, "_objects", reading)

    def die_at(self, number: int) -> None:
        def before(read: int) -> None:
            if read == number:
                raise Died

        self.before = before


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    return Reads(monkeypatch)


@pytest.fixture
def ids(fleet: Fleet) -> list[SnapshotId]:
    """Snapshots that share nothing, so each is a group."""
    found = snapshots(fleet, COUNT, shared=0, own=12)
    fleet.submit(*found)
    return found


def finish(fleet: Fleet) -> None:
    """Run what is queued, and drive until the job ends."""
    seen = 0
    for _ in range(20):
        for queued in fleet.queued[seen:]:
            seen += 1
            fleet.copy(queued)
        if fleet.status.state.final:
            return
        fleet.drive()


def test_the_first_batches_are_queued_before_the_second_manifest_is_read(
    fleet: Fleet, ids: list[SnapshotId], reads: Reads
) -> None:
    seen = []

    def before(read: int) -> None:
        status = fleet.status
        settled = sum(len(batch.positions) for queued in fleet.queued for batch in queued.batches)
        seen.append((read, status.state, status.partly_planned, status.snapshots_planned, settled > 0))
        for queued in fleet.queued[-1:]:
            fleet.copy(queued)
        status = fleet.status
        assert status.objects_settled <= status.objects_total
        assert share(status) == percent(status) == 0
        assert status_document(status)["partly_planned"] is (read > 0)
        assert receipt(fleet.ledger, "job")["partly_planned"] is (read > 0)

    reads.before = before
    outcome = fleet.drive()

    assert seen[0] == (0, State.PLANNING, False, 0, False)
    assert seen[1:] == [(n, State.COPYING, True, n, True) for n in range(1, COUNT)]
    assert reads.ids == ids
    assert outcome.planned is not None
    assert outcome.queued == outcome.planned.batches == fleet.status.batches_total
    assert not fleet.status.partly_planned
    assert receipt(fleet.ledger, "job")["partly_planned"] is False
    finish(fleet)
    assert fleet.status.state is State.DONE
    assert fleet.published() == sorted(ids)
    assert tree(fleet.destination).items() <= tree(fleet.source).items()


def test_the_plan_is_the_same_as_one_that_is_queued_as_a_whole(
    fleet: Fleet, ids: list[SnapshotId], monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.drive()
    grown = [batch for queued in fleet.queued for batch in queued.batches]
    monkeypatch.setattr(window, "GROW_S", 3600.0)
    fleet.submit(*ids)

    fleet.drive()

    assert grown == [batch for queued in fleet.queued for batch in queued.batches]
    assert fleet.status.snapshots_planned == 0


@pytest.mark.parametrize("at", range(1, COUNT))
def test_an_orchestrator_that_takes_over_queues_the_rest_of_the_same_plan(
    fleet: Fleet, ids: list[SnapshotId], reads: Reads, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    fleet.drive()
    whole = [batch for queued in fleet.queued for batch in queued.batches]
    fleet.submit(*ids)
    reads.ids.clear()
    reads.die_at(at)
    with pytest.raises(Died):
        fleet.drive()
    assert fleet.status.partly_planned
    prepare.forget("job")
    before = fleet.status.batches_handed
    reads.before = lambda _: None

    fleet.drive()

    handed = [batch for queued in fleet.queued for batch in queued.batches]
    assert 0 < before < len(whole)
    assert handed == whole
    finish(fleet)
    assert fleet.status.state is State.DONE
    assert fleet.status.copied == fleet.status.objects_total
    assert fleet.published() == sorted(ids)


@pytest.mark.parametrize("write", ["advance", "set_fields"])
def test_a_death_between_the_record_of_groups_and_their_batches_loses_none(
    fleet: Fleet, ids: list[SnapshotId], monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """*advance* records that the plan has grown; *set_fields* records that batches were queued."""
    real = getattr(fleet.ledger, write)
    for at in range(1, 2 * COUNT):
        fleet.submit(*ids)
        calls = iter(range(1000))

        def dying(*arguments: Any, at: int = at, calls: Any = calls, **fields: Any) -> Any:
            if next(calls) == at:
                raise Died
            return real(*arguments, **fields)

        with monkeypatch.context() as patched:
            patched.setattr(fleet.ledger, write, dying)
            try:
                fleet.drive()
            except Died:
                prepare.forget("job")
        finish(fleet)
        assert fleet.status.state is State.DONE, at
        assert fleet.status.objects_settled == fleet.status.objects_total == fleet.status.copied
        assert fleet.published() == sorted(ids)
        for path in sorted(fleet.destination.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


def test_a_cancel_while_the_plan_grows_keeps_what_was_copied(
    fleet: Fleet, ids: list[SnapshotId], reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads.die_at(3)
    with pytest.raises(Died):
        fleet.drive()
    fleet.copy(fleet.queued[0])
    fleet.ledger.cancel("job")

    assert fleet.drive().result is Result.CANCELLED

    assert fleet.status.partly_planned
    document = receipt(fleet.ledger, "job")
    assert (document["final"], document["partly_planned"]) == (True, True)
    check("receipt", document | {"job": str(UUID(int=0))})
    assert fleet.status.copied > 0
    assert fleet.published() == []
    assert [state for _, state in fleet.rows()] == ["pending"] * COUNT


def test_a_pause_while_the_plan_grows_goes_on_after_a_resume(
    fleet: Fleet, ids: list[SnapshotId], reads: Reads
) -> None:
    reads.die_at(3)
    with pytest.raises(Died):
        fleet.drive()
    fleet.ledger.pause("job", paused=True)
    assert fleet.drive().result is Result.PAUSED
    reads.before = lambda _: None
    fleet.ledger.pause("job", paused=False)

    fleet.drive()
    finish(fleet)

    assert fleet.status.state is State.DONE
    assert fleet.published() == sorted(ids)


def test_a_later_manifest_that_cannot_be_used_stops_no_other(fleet: Fleet, ids: list[SnapshotId]) -> None:
    (fleet.source / manifest_key(ids[4])).unlink()

    fleet.drive()
    finish(fleet)

    assert fleet.status.state is State.FAILED
    assert fleet.published() == sorted(set(ids) - {ids[4]})
    assert fleet.rows()[4] == (ids[4], "failed")
    assert not fleet.status.partly_planned


def test_a_source_that_is_away_for_a_while_continues_the_same_plan(
    fleet: Fleet, ids: list[SnapshotId], reads: Reads
) -> None:
    def away(read: int) -> None:
        if read == 3:
            raise StoreUnavailable("source", "", "away")

    reads.before = away
    with pytest.raises(StoreUnavailable):
        fleet.drive()
    assert fleet.status.partly_planned
    reads.before = lambda _: None

    fleet.drive()
    finish(fleet)

    assert fleet.status.state is State.DONE
    assert fleet.published() == sorted(ids)


def test_a_manifest_of_queued_batches_that_is_gone_fails_the_job(
    fleet: Fleet, ids: list[SnapshotId], reads: Reads
) -> None:
    reads.die_at(3)
    with pytest.raises(Died):
        fleet.drive()
    (fleet.source / manifest_key(ids[0])).unlink()
    reads.before = lambda _: None

    with pytest.raises(SourceChanged):
        fleet.drive()

    assert fleet.published() == []


@pytest.mark.parametrize(
    "options",
    [{"budget": Budget(max_objects=10**6)}, {"prune": Prune(), "everything": True}, {"dry_run": True}],
    ids=["budget", "mirror", "dry run"],
)
def test_what_needs_the_whole_plan_waits_for_it(
    fleet: Fleet, ids: list[SnapshotId], reads: Reads, options: dict[str, Any]
) -> None:
    fleet.submit(*([] if "everything" in options else ids), **options)
    states = []
    reads.before = lambda _: states.append((fleet.status.state, len(fleet.queued)))

    fleet.drive()

    assert states == [(State.PLANNING, 0)] * len(states)
    assert len(states) >= COUNT
    assert fleet.status.snapshots_planned == 0


def test_an_older_orchestrator_leaves_the_job_open_and_a_newer_one_plans_the_rest(
    fleet: Fleet, ids: list[SnapshotId], reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads.die_at(3)
    with pytest.raises(Died):
        fleet.drive()
    reads.before = lambda _: None
    standing = fleet.ledger.standing
    with monkeypatch.context() as patched:
        # The version before does not read how far the plan is.
        patched.setattr(
            fleet.ledger, "standing", lambda job_id: replace(standing(job_id), partly_planned=False)
        )
        for queued in fleet.queued:
            fleet.copy(queued)
        fleet.drive()
        fleet.drive()
    older = fleet.status
    assert not older.state.final
    assert fleet.published() == sorted(ids[:3])

    fleet.drive()
    finish(fleet)

    assert fleet.status.state is State.DONE
    assert fleet.published() == sorted(ids)
    assert fleet.status.copied == fleet.status.objects_total > older.objects_total
