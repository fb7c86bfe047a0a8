"""The runs of a scrub: each reads the next share of a store, and the state moves only over what was read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from snapferry.orchestrator.driving.ending import end_job
from snapferry.orchestrator.driving.scrub import settle_scrub
from snapferry.orchestrator.planning import prepare
from snapferry.orchestrator.planning.snapshots import read_snapshots
from snapferry.orchestrator.schedules.cycle import next_job
from snapferry.stores.address import Address, manifest_key, object_key
from snapferry.stores.errors import StoreUnavailable
from snapferry.stores.opening import open_store
from snapferry.stores.snapshot_store import SnapshotStore
from snapferry.workers.copying.transfer import verify
from snapferry.workers.ledger import ScrubLedger, ScrubState, State
from snapferry.workers.messages import Scope, ScrubMessage, ScrubPart, StoreRef, VerifyOptions

from .fleet import Fleet, snapshots


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "SECOND_LOOK_S", 0.0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Address]:
    """The addresses of the objects that were read, in order."""
    addresses: list[Address] = []
    check, fetch = SnapshotStore.check_object, SnapshotStore.fetch_objects

    def check_object(self: SnapshotStore, address: Address, **options: Any) -> int:
        addresses.append(address)
        return check(self, address, **options)

    def fetch_objects(
        self: SnapshotStore, asked: Sequence[Address], hints: Sequence[int]
    ) -> list[bytes | None]:
        found = fetch(self, asked, hints)
        addresses.extend(address for address, data in zip(asked, found, strict=True) if data is not None)
        return found

    monkeypatch.setattr(SnapshotStore, "check_object", check_object)
    monkeypatch.setattr(SnapshotStore, "fetch_objects", fetch_objects)
    return addresses


def message(fleet: Fleet, shares: int = 4, **changed: Any) -> ScrubMessage:
    store = StoreRef(url=str(fleet.source))
    return ScrubMessage(name="s", store=store, shares=shares, interval=60, **changed)


def client(fleet: Fleet) -> redis.Redis:
    return fleet.ledger.client


def state(fleet: Fleet) -> ScrubState:
    found = ScrubLedger(client(fleet)).state("s")
    assert found is not None
    return found


def begin(fleet: Fleet, due: ScrubMessage, *, batch_objects: int = 4) -> None:
    """Submit the next job of the scrub. All jobs of this fleet have one id."""
    keys: Any = client(fleet).keys("snapferry:job*")
    client(fleet).delete("-", *keys)
    client(fleet).hset("snapferry:scrub:s:state", "settled", "")
    prepare.forget("job")
    fleet.queued.clear()
    spec = next_job(ScrubLedger(client(fleet)), due, 60.0)
    fleet.spec = spec.model_copy(update={"job_id": "job", "batch_objects": batch_objects})
    fleet.ledger.create(fleet.spec)


def run(fleet: Fleet, due: ScrubMessage, **options: Any) -> ScrubState:
    begin(fleet, due, **options)
    fleet.copy_all()
    assert fleet.status.state.final
    return state(fleet)


def objects(fleet: Fleet) -> list[Address]:
    found: set[Address] = set()
    store = open_store(str(fleet.source))
    for snapshot_id in store.list_manifest_ids():
        with store.read_manifest(snapshot_id) as manifest:
            found |= set(manifest.objects())
    return sorted(found)


def damage(root: Path, address: Address) -> Callable[[], None]:
    """Flip the object; return a function that repairs it."""
    path = root / object_key(address)
    body = path.read_bytes()
    path.unlink()
    path.write_bytes(b"other bytes")

    def repair() -> None:
        path.write_bytes(body)

    return repair


@pytest.mark.parametrize("shares", [1, 2, 3, 7, 30, 10_000])
def test_the_shares_are_the_whole_address_space_without_gap_or_overlap(shares: int) -> None:
    parts = [ScrubPart(name="s", shares=shares, share=share) for share in range(shares)]

    assert parts[0].first == "0" * 64
    assert parts[-1].last == "f" * 64
    assert all(int(one.last, 16) + 1 == int(one.next.first, 16) for one in parts[:-1])
    assert parts[-1].next == parts[0]


def test_all_runs_of_a_cycle_read_every_object_once_and_the_next_cycle_begins(
    fleet: Fleet, read: list[Address]
) -> None:
    snapshots(fleet, 3)
    due = message(fleet, 5)
    began = run(fleet, due)
    assert (began.cycle, began.share, began.verified, began.oldest_at) == (1, 1, 1, began.began_at)
    while (now := run(fleet, due)).cycle == 1:
        assert now.oldest_at == now.began_at

    assert sorted(read) == objects(fleet)
    assert (now.share, now.verified, now.findings) == (0, 5, 0)
    assert now.oldest_at > now.began_at
    assert now.succeeded_at >= now.oldest_at
    assert run(fleet, due).oldest_at > now.oldest_at


@pytest.mark.parametrize("bounds", [VerifyOptions(max_bytes=1500), VerifyOptions(max_seconds=0)])
def test_a_run_that_reaches_its_bound_is_continued_where_it_stopped(
    fleet: Fleet, read: list[Address], bounds: VerifyOptions
) -> None:
    due = message(fleet, 2, bounds=bounds)
    runs = 0
    while run(fleet, due, batch_objects=3).cycle == 1:
        runs += 1
        assert fleet.status.state is State.DONE

    assert runs > 3
    assert read == objects(fleet)


def test_a_share_counts_as_verified_since_the_first_of_its_runs_began(fleet: Fleet) -> None:
    due = message(fleet, 1, bounds=VerifyOptions(max_bytes=1500))
    run(fleet, due, batch_objects=3)
    first = fleet.status.started_at
    while (now := run(fleet, due, batch_objects=3)).cycle == 1:
        pass

    assert now.oldest_at == pytest.approx(first, abs=0.001)
    assert fleet.status.started_at > now.oldest_at


def test_a_run_that_is_cancelled_or_fails_is_repeated(fleet: Fleet, read: list[Address]) -> None:
    due = message(fleet, 3)
    before = run(fleet, due)
    read.clear()
    for end in (State.CANCELLED, State.FAILED) * 3:
        begin(fleet, due)
        fleet.drive()
        end_job(fleet.ledger, "job", end)
        after = state(fleet)
        assert (after.share, after.at, after.verified) == (before.share, before.at, before.verified)
    run(fleet, due)

    assert read == [a for a in objects(fleet) if before.at <= a <= fleet.spec.scope.last]


def test_findings_fail_the_run_and_the_next_run_reads_the_next_share(fleet: Fleet) -> None:
    due = message(fleet, 2)
    halves = [a for a in objects(fleet) if a < "8"], [a for a in objects(fleet) if a >= "8"]
    repair = damage(fleet.source, halves[0][0])
    damage(fleet.source, halves[1][0])
    (fleet.source / object_key(halves[1][1])).unlink()

    first = run(fleet, due)
    assert (fleet.status.state, fleet.status.failed) == (State.FAILED, 1)
    assert (first.share, first.verified, first.findings, first.findings_total) == (1, 1, 1, 1)
    second = run(fleet, due)
    assert (second.cycle, second.share, second.findings, second.findings_total) == (2, 0, 3, 3)
    repair()
    third = run(fleet, due)

    assert fleet.status.state is State.DONE
    assert (third.findings, third.findings_total) == (2, 3)


def test_a_manifest_that_cannot_be_used_is_a_finding_of_every_run(fleet: Fleet) -> None:
    ids = snapshots(fleet, 2)
    (fleet.source / manifest_key(ids[0])).write_bytes(b"not a manifest\n")
    due = message(fleet, 2)

    found = [run(fleet, due) for _ in range(3)]

    assert [one.findings for one in found] == [1, 1, 1]
    assert [one.findings_total for one in found] == [1, 2, 3]
    assert [one.share for one in found] == [1, 0, 1]


def unreadable(monkeypatch: pytest.MonkeyPatch, is_away: Callable[[Address], bool]) -> None:
    check, fetch = SnapshotStore.check_object, SnapshotStore.fetch_objects

    def check_object(self: SnapshotStore, address: Address, **options: Any) -> int:
        if is_away(address):
            raise StoreUnavailable(self.label, address, "no answer")
        return check(self, address, **options)

    def fetch_objects(
        self: SnapshotStore, asked: Sequence[Address], hints: Sequence[int]
    ) -> list[bytes | None]:
        found = fetch(self, asked, hints)
        return [None if is_away(address) else data for address, data in zip(asked, found, strict=True)]

    monkeypatch.setattr(SnapshotStore, "check_object", check_object)
    monkeypatch.setattr(SnapshotStore, "fetch_objects", fetch_objects)


def test_an_object_that_stays_unreadable_stops_the_scrub_for_three_runs_only(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    due = message(fleet, 2)
    away = objects(fleet)[1]
    unreadable(monkeypatch, lambda address: address == away)

    runs = [run(fleet, due) for _ in range(4)]

    assert [one.share for one in runs] == [0, 0, 1, 0]
    assert [one.tries for one in runs] == [1, 2, 0, 0]
    assert [one.verified for one in runs] == [0, 0, 0, 1], "the first share was never read completely"
    assert runs[-1].oldest_at == runs[-1].began_at
    assert runs[2].succeeded_at == 0.0


def test_an_outage_moves_nothing_however_often(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    due = message(fleet, 2)
    with monkeypatch.context() as patched:
        unreadable(patched, lambda _: True)
        for _ in range(5):
            after = run(fleet, due)
            assert (after.share, after.tries, after.verified, after.findings) == (0, 0, 0, 0)

    assert run(fleet, due).share == 1


def test_a_job_is_recorded_once_and_only_at_the_position_of_the_scrub(fleet: Fleet) -> None:
    due = message(fleet, 1)
    after = run(fleet, due)
    job = fleet.spec
    planned: Any = type("Drive", (), {})()
    planned.spec, planned.ledger, planned.job_id = job, fleet.ledger, "job"
    planned.snapshots = read_snapshots(fleet.ledger, job)

    settle_scrub(planned, fleet.status, "")
    assert state(fleet) == after
    planned.job_id = "other"
    planned.spec = job.model_copy(update={"scope": Scope(first="8" * 64, last="f" * 64)})
    settle_scrub(planned, fleet.status, "")
    assert state(fleet) == after
    assert job.successor(retries="job").scrub is None


@pytest.mark.parametrize("lost", ["all", "position"])
def test_a_lost_or_impossible_state_begins_a_new_cycle_and_that_is_logged(
    fleet: Fleet, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    due = message(fleet, 4)
    run(fleet, due)
    before = run(fleet, due)
    if lost == "all":
        client(fleet).flushall()
    else:
        client(fleet).hset("snapferry:scrub:s:state", "at", "f" * 64)
    caplog.clear()

    after = run(fleet, due)

    assert (after.share, after.verified, after.why) == (1, 1, "none")
    assert after.began_at > before.began_at
    assert "scrub s begins a new cycle" in caplog.text


def test_another_share_or_another_store_begins_a_new_cycle(fleet: Fleet, tmp_path: Path) -> None:
    run(fleet, message(fleet, 4))
    other_share = run(fleet, message(fleet, 5))
    (tmp_path / "moved").symlink_to(fleet.source)
    elsewhere = message(fleet, 5).model_copy(update={"store": StoreRef(url=str(tmp_path / "moved"))})
    other_store = run(fleet, elsewhere)

    assert (other_share.shares, other_share.share, other_share.verified, other_share.why) == (
        5,
        1,
        1,
        "shares",
    )
    assert (other_store.share, other_store.verified, other_store.why) == (1, 1, "store")


@pytest.mark.parametrize(
    "fields",
    [{"at": "../x"}, {"share": "99"}, {"shares": "-1"}, {"at": "f" * 63}],
)
def test_a_state_that_cannot_be_right_is_no_state(fleet: Fleet, fields: Any) -> None:
    run(fleet, message(fleet, 4))
    client(fleet).hset("snapferry:scrub:s:state", mapping=fields)

    assert ScrubLedger(client(fleet)).state("s") is None
    assert next_job(ScrubLedger(client(fleet)), message(fleet, 4), 1.0).scope.first == "0" * 64
