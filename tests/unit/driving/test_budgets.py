"""A budget counts what is really read, whatever the manifests say; the ledger is on a real Redis."""

from __future__ import annotations

from collections import Counter

import pytest

from snapferry.orchestrator.reporting.receipt import receipt
from snapferry.stores.address import SnapshotId
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.entry import Entry, render
from snapferry.stores.opening import open_store
from snapferry.workers.copying.transfer import budget as budgets
from snapferry.workers.copying.transfer.budget import BudgetMeter, OverBudget, cost_of
from snapferry.workers.ledger import State
from snapferry.workers.messages import BatchMessage, Budget, Price
from tests.sample import fill, random_files

from .fleet import Fleet

BIG = 3 * 1024**2


def lying_snapshot(fleet: Fleet, *, count: int = 1, size: int = BIG, listed: int = 1) -> SnapshotId:
    """File a snapshot of *count* objects of *size* bytes each, of which the manifest says *listed*."""
    store = open_store(str(fleet.source))
    objects = [bytes([number]) * size for number in range(count)]
    for data in objects:
        store.put_object(digest(data), data)
    text = render(Entry("F", "644", digest(data), listed, f"./{n:04}") for n, data in enumerate(objects))
    snapshot = SnapshotId(digest(text))
    store.put_manifest(snapshot, text)
    return snapshot


def copied_bytes(fleet: Fleet) -> int:
    return sum(path.stat().st_size for path in (fleet.destination / ".objects").rglob("*") if path.is_file())


def counts(fleet: Fleet) -> tuple[int, int, int]:
    status = fleet.status
    return status.copied, status.present, status.failed


def test_an_object_larger_than_the_manifest_says_ends_the_job_at_its_budget(fleet: Fleet) -> None:
    fleet.submit(lying_snapshot(fleet), budget=Budget(max_bytes=1000))

    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert "--max-bytes 1,000" in fleet.status.error
    assert counts(fleet) == (0, 0, 1)
    assert fleet.status.bytes_settled <= fleet.status.bytes_total
    assert copied_bytes(fleet) == 0
    assert not fleet.published()
    assert receipt(fleet.ledger, "job")["state"] == "failed"


def test_what_was_copied_before_is_accounted_for_and_nothing_is_begun_afterwards(fleet: Fleet) -> None:
    """20 objects of 1,000 bytes that are listed with 1: there is room for seven, in batches of five."""
    fleet.submit(lying_snapshot(fleet, count=20, size=1000), budget=Budget(max_bytes=7500))

    fleet.copy_all()

    status = fleet.status
    assert status.state is State.FAILED
    assert counts(fleet) == (7, 0, 13)
    assert copied_bytes(fleet) == status.bytes_copied == 7000
    assert "--max-bytes 7,500" in status.error


def test_a_budget_that_suffices_for_the_real_bytes_suffices(fleet: Fleet) -> None:
    fleet.submit(lying_snapshot(fleet, count=20, size=1000), budget=Budget(max_bytes=20_000, max_objects=20))

    fleet.copy_all()

    assert fleet.status.state is State.DONE
    assert counts(fleet) == (20, 0, 0)


def test_the_number_of_objects_is_counted_while_they_are_copied(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects that were there when the job was planned, and are gone when it runs."""
    snapshot = fill(open_store(str(fleet.source)), random_files(19))
    there = open_store(str(fleet.destination))
    fill(there, random_files(19))
    fleet.submit(snapshot, budget=Budget(max_objects=8))
    fleet.drive()
    for path in (fleet.destination / ".objects").rglob("*"):
        if path.is_file():
            path.unlink()

    for queued in fleet.queued:
        fleet.copy(queued)
    fleet.drive()

    assert fleet.status.state is State.FAILED
    assert "--max-objects 8" in fleet.status.error
    assert fleet.status.copied == 8


def test_money_is_counted_while_it_is_spent(fleet: Fleet) -> None:
    """1 for 1,000,000 bytes; the manifest says 20 bytes in all, of 20,000."""
    prices = (Price(store="/", egress=1000.0),)
    fleet.submit(
        lying_snapshot(fleet, count=20, size=1000),
        budget=Budget(max_cost=0.0061, prices=prices, currency="EUR"),
    )

    fleet.copy_all()

    assert fleet.status.state is State.FAILED
    assert "--max-cost 0.0061 EUR" in fleet.status.error
    assert fleet.status.copied in (6, 7)


def test_a_batch_that_is_delivered_again_spends_nothing_twice(fleet: Fleet) -> None:
    fleet.submit(lying_snapshot(fleet, count=20, size=1000), budget=Budget(max_bytes=20_000))
    fleet.drive()

    for _ in range(3):
        for queued in list(fleet.queued):
            fleet.copy(queued)
    fleet.drive()

    assert fleet.status.state is State.DONE


@pytest.fixture
def batch(fleet: Fleet) -> BatchMessage:
    fleet.submit(lying_snapshot(fleet, count=20, size=1000), budget=Budget(max_bytes=10_000, max_objects=20))
    fleet.drive()
    queued = fleet.queued[0]
    return fleet.message(queued, queued.batches[0])


def spender(fleet: Fleet, batch: BatchMessage) -> BudgetMeter:
    budget = fleet.ledger.budget("job")
    assert budget is not None
    return BudgetMeter(fleet.ledger, batch, budget, lambda _: 0.0)


def total(fleet: Fleet) -> int:
    return int(fleet.ledger._redis.hget("snapferry:job:job", "spent_bytes") or 0)


def test_a_run_that_died_had_in_flight_what_the_next_one_reads_again(
    fleet: Fleet, batch: BatchMessage
) -> None:
    first = spender(fleet, batch)
    one, other = first.begin(1), first.begin(1)
    one.read(1000)
    one.end(copied=True)
    other.read(4000)
    first.report()
    assert total(fleet) == 5000

    second = spender(fleet, batch)
    assert total(fleet) == 1000
    again = second.begin(1)
    again.read(4000)
    again.end(copied=True)
    second.report()
    second.report()

    assert total(fleet) == 5000


def test_an_object_that_fails_gives_back_what_it_announced(fleet: Fleet, batch: BatchMessage) -> None:
    spends = spender(fleet, batch)
    for _ in range(20):
        flight = spends.begin(3000)
        flight.read(3000)
        flight.end(copied=False)
    spends.report()

    assert total(fleet) == 0


def test_an_object_that_fails_gives_back_no_more_than_it_announced(fleet: Fleet, batch: BatchMessage) -> None:
    """Or a source that breaks off each of its objects at the end could send for ever."""
    spends = spender(fleet, batch)
    with pytest.raises(OverBudget):
        for _ in range(4):
            flight = spends.begin(1000)
            flight.read(4000)
            flight.end(copied=False)


def test_an_object_that_announces_more_than_is_left_is_not_begun(fleet: Fleet, batch: BatchMessage) -> None:
    spends = spender(fleet, batch)
    flight = spends.begin(6000)
    flight.read(6000)
    flight.end(copied=True)

    with pytest.raises(OverBudget):
        spends.begin(4001)
    assert fleet.ledger.over_budget("job") is not None


def test_workers_see_what_others_spend(
    fleet: Fleet, batch: BatchMessage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budgets, "REPORT_BYTES", 100)
    other = batch.model_copy(update={"number": batch.number + 1})
    one, two = spender(fleet, batch), spender(fleet, other)
    mine, theirs = one.begin(1), two.begin(1)
    mine.read(6000)

    with pytest.raises(OverBudget):
        theirs.read(6000)
    with pytest.raises(OverBudget):
        mine.read(101)
    with pytest.raises(OverBudget):
        one.begin(0)


def test_a_job_without_a_budget_is_not_counted(fleet: Fleet) -> None:
    fleet.copy_all()

    assert fleet.status.state is State.DONE
    assert not fleet.ledger._redis.hget("snapferry:job:job", "spent_bytes")


def test_nothing_of_a_budget_is_left_behind_but_its_totals(fleet: Fleet) -> None:
    fleet.submit(lying_snapshot(fleet, count=20, size=1000), budget=Budget(max_bytes=20_000))
    fleet.drive()
    for queued in fleet.queued:
        fleet.copy(queued)

    assert fleet.ledger._redis.hgetall("snapferry:job:job:spent") == {}
    assert total(fleet) == 20_000


def test_sizes_that_cannot_be_true_neither_overflow_nor_go_beyond_everything(fleet: Fleet) -> None:
    store = open_store(str(fleet.source))
    objects = [bytes([number]) for number in range(20)]
    for data in objects:
        store.put_object(digest(data), data)
    text = render(Entry("F", "644", digest(data), 2**64 - 1, f"./{n}") for n, data in enumerate(objects))
    snapshot = SnapshotId(digest(text))
    store.put_manifest(snapshot, text)
    fleet.submit(snapshot)

    fleet.copy_all()

    status = fleet.status
    assert status.state is State.DONE
    assert status.bytes_settled == status.bytes_total < 2**63
    assert status.bytes_copied == 20


def test_prices_are_those_of_the_longest_beginning() -> None:
    prices = (Price(store="s3:", egress=1.0), Price(store="s3://a", requests={"GetObject": 2.0}))

    assert cost_of(prices, "s3://a/b", Counter(GetObject=500), 10**9) == 1.0
    assert cost_of(prices, "s3://b", Counter(GetObject=500), 10**9) == 1.0
    assert cost_of(prices, "file:///", Counter(GetObject=500), 10**9) == 0.0
