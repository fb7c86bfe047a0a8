"""Who takes parked batches, who checks a store, and when a job is given up: real Redis, real directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from stores.errors import StoreNotFound, StoreUnavailable
from workers.ledger import Ledger, State
from workers.messages import BatchMessage, JobRequest, StoreRef, pack
from workers.parking import Parking
from workers.queues import COPY_QUEUE, parking_queue
from workers.reach import Kind, StoreSide

QUEUE = parking_queue("", "job")


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield Ledger(client, expires_s=3600)


@pytest.fixture
def sides(ledger: Ledger, tmp_path: Path) -> tuple[StoreSide, StoreSide]:
    """The stores of a job of which a batch is parked; the destination's directory is not there."""
    (tmp_path / "a").mkdir()
    source, destination = StoreRef(url=str(tmp_path / "a")), StoreRef(url=str(tmp_path / "b"))
    request = JobRequest(
        job_id="job", snapshots=pack(["0" * 64]), source=source, destination=destination,
        batch_objects=10, batch_bytes=999, patience=60,
    )  # fmt: skip
    ledger.create(request)
    ledger.advance("job", State.COPYING)
    batch = BatchMessage(
        job_id="job", series="plan", number=0, source=source, destination=destination,
        addresses=pack(["1" * 64]), sizes=(1,), positions=(0,),
    )  # fmt: skip
    ledger.reach.park(batch, "")
    return StoreSide(source, writing=False), StoreSide(destination, writing=True)


class Worker:
    """A worker's parking, and from which queues it takes."""

    def __init__(self, ledger: Ledger, name: str, queues: tuple[str, ...] = (COPY_QUEUE,)) -> None:
        self.takes_from: set[str] = set()
        self.parking = Parking(ledger, name, queues, self._take_from)

    def _take_from(self, queues: set[str]) -> None:
        self.takes_from = queues

    def look(self) -> set[str]:
        self.parking.look()
        for thread in self.parking._checks.values():
            thread.join()
        return self.takes_from


def refused(ledger: Ledger, side: StoreSide, worker: str, *, pause_s: float = 60) -> None:
    error = StoreNotFound(f"file://{side.ref.url}", "", "there is no such directory; is it mounted here?")
    ledger.reach.failed(side, worker, error, Kind.REFUSED, pause_s=pause_s)


def away(ledger: Ledger, side: StoreSide, worker: str) -> None:
    error = StoreUnavailable(f"file://{side.ref.url}", "", "no answer")
    ledger.reach.failed(side, worker, error, Kind.AWAY, pause_s=60)


def test_workers_that_reach_both_stores_take_what_others_parked(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide]
) -> None:
    bad, good, other = (
        Worker(ledger, "bad"),
        Worker(ledger, "good"),
        Worker(ledger, "other", ("snapferry.copy.x",)),
    )
    refused(ledger, sides[1], "bad")

    good.look()
    other.look()

    assert (bad.look(), good.look(), other.look()) == (set(), {QUEUE}, set())
    assert ledger.status("job").waiting is None
    assert ledger.reach.state("job").given_up == ""


def test_a_damaged_record_costs_no_other_job(ledger: Ledger, sides: tuple[StoreSide, StoreSide]) -> None:
    for record in ("", "[]", "null", "{", '{"queue": 1}', '{"queue": "", "source": {}, "destination": 5}'):
        ledger._redis.hset("snapferry:parked", f"damaged {record}", record)
        ledger._redis.hset("snapferry:workers", f"damaged {record}", record)

    assert Worker(ledger, "worker").look() == {QUEUE}


def test_a_job_that_every_live_worker_is_refused_for_is_given_up_at_once(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide]
) -> None:
    workers = [Worker(ledger, name) for name in ("one", "two")]
    for name in ("one", "two"):
        refused(ledger, sides[1], name)
    for worker in workers:
        worker.parking._book.announce(worker.parking._worker, [COPY_QUEUE])
    ledger.reach.announce("elsewhere", ["snapferry.copy.x"])

    assert [worker.look() for worker in workers][1] == {QUEUE}
    assert "there is no such directory" in ledger.reach.state("job").given_up


def test_an_outage_is_waited_for_with_one_check_at_a_time_until_a_check_succeeds(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide], tmp_path: Path
) -> None:
    names = [f"worker {number}" for number in range(8)]
    workers = [Worker(ledger, name) for name in names]
    for name in names:
        ledger.reach.reached(sides[1], name)
        away(ledger, sides[1], name)
        ledger.reach.announce(name, [COPY_QUEUE])

    assert [worker.look() for worker in workers] == [set()] * 8
    assert sum(bool(worker.parking._checks) for worker in workers) == 1
    waiting = ledger.status("job").waiting
    assert waiting is not None
    assert waiting.store == f"file://{tmp_path}/b"
    assert ledger.reach.state("job").given_up == ""

    (tmp_path / "b").mkdir()
    ledger.reach.end_turn(sides[1])
    for _ in range(2):
        for worker in workers:
            worker.look()
    assert [worker.look() for worker in workers] == [{QUEUE}] * 8
    assert ledger.status("job").waiting is not None, "nothing was copied yet"


def test_what_is_left_of_an_ended_job_is_drained_and_forgotten(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide]
) -> None:
    worker = Worker(ledger, "worker")
    refused(ledger, sides[1], "worker")
    ledger._redis.lpush(QUEUE, "{}")
    ledger.advance("job", State.CANCELLED)

    assert worker.look() == {QUEUE}
    ledger._redis.delete(QUEUE)
    assert worker.look() == set()
    assert not ledger.reach.is_parked("job")
    worker.look()
    assert not ledger.reach.of_batch("job", "worker", sides).troubles
