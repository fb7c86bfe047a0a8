"""Who takes parked batches, who checks a store, and when a job is given up: real Redis, real directories."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from snapferry.orchestrator.reporting.measures import running_s
from snapferry.stores.errors import StoreNotFound, StoreUnavailable
from snapferry.workers.ledger import Ledger, State
from snapferry.workers.ledger.keys import UNPARKED
from snapferry.workers.messages import BatchMessage, JobSpec, StoreRef, encode_addresses
from snapferry.workers.queues import COPY_QUEUE, Priority, lists, parking_queue, step
from snapferry.workers.reachability import clock, store_problems
from snapferry.workers.reachability.giving_up import RETURN_S
from snapferry.workers.reachability.parked_jobs import ParkedJobs
from snapferry.workers.reachability.parking import Parking
from snapferry.workers.reachability.sides import StoreSide
from snapferry.workers.reachability.store_problems import Kind, StoreProblems
from snapferry.workers.reachability.worker_roster import WorkerRoster

QUEUE = parking_queue("", "job")


@pytest.fixture
def ledger(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """A ledger whose clock stands still, on a machine of any speed. No check of a store is due by itself."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        now = clock.now(client)
        monkeypatch.setattr(clock, "now", lambda _: now)
        monkeypatch.setattr(store_problems, "_AWAY_PAUSES", (3600.0, 3600.0))
        yield Ledger(client, expires_s=3600)


@pytest.fixture
def sides(ledger: Ledger, tmp_path: Path) -> tuple[StoreSide, StoreSide]:
    """The stores of a job of which a batch is parked; the destination's directory is not there."""
    (tmp_path / "a").mkdir()
    source, destination = StoreRef(url=str(tmp_path / "a")), StoreRef(url=str(tmp_path / "b"))
    request = JobSpec(
        job_id="job", snapshots=encode_addresses(["0" * 64]), source=source, destination=destination,
        batch_objects=10, batch_bytes=999, patience=60,
    )  # fmt: skip
    ledger.create(request)
    ledger.advance("job", State.COPYING)
    batch = BatchMessage(
        job_id="job", series="plan", number=0, source=source, destination=destination,
        addresses=encode_addresses(["1" * 64]), sizes=(1,), positions=(0,),
    )  # fmt: skip
    ParkedJobs(ledger.client).park(batch, "")
    return StoreSide(source, writing=False), StoreSide(destination, writing=True)


class Worker:
    """A worker's parking, and from which queues it takes."""

    def __init__(self, ledger: Ledger, name: str, queues: tuple[str, ...] = (COPY_QUEUE,)) -> None:
        self.takes_from: set[str] = set()
        self.parking = Parking(ledger, name, queues, self._take_from)

    def _take_from(self, queues: set[str]) -> None:
        self.takes_from = queues

    def look(self) -> set[str]:
        self.parking.run_round()
        for thread in self.parking._checks.values():
            thread.join()
        return self.takes_from


def refused(ledger: Ledger, side: StoreSide, worker: str, *, pause_s: float = 60) -> None:
    error = StoreNotFound(f"file://{side.ref.url}", "", "there is no such directory; is it mounted here?")
    StoreProblems(ledger.client).record_failure(side, worker, error, Kind.REFUSED, pause_s=pause_s)


def away(ledger: Ledger, side: StoreSide, worker: str) -> None:
    error = StoreUnavailable(f"file://{side.ref.url}", "", "no answer")
    StoreProblems(ledger.client).record_failure(side, worker, error, Kind.AWAY, pause_s=60)


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
    assert ParkedJobs(ledger.client).state("job").given_up == ""


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
        worker.parking._roster.announce(worker.parking._worker, [COPY_QUEUE])
    WorkerRoster(ledger.client).announce("elsewhere", ["snapferry.copy.x"])

    assert [worker.look() for worker in workers][1] == {QUEUE}
    assert "there is no such directory" in ParkedJobs(ledger.client).state("job").given_up


def test_an_outage_is_waited_for_with_one_check_at_a_time_until_a_check_succeeds(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide], tmp_path: Path
) -> None:
    names = [f"worker {number}" for number in range(8)]
    workers = [Worker(ledger, name) for name in names]
    for name in names:
        StoreProblems(ledger.client).record_copy(sides[1], name)
        away(ledger, sides[1], name)
        WorkerRoster(ledger.client).announce(name, [COPY_QUEUE])

    assert [worker.look() for worker in workers] == [set()] * 8
    assert sum(bool(worker.parking._checks) for worker in workers) == 1
    waiting = ledger.status("job").waiting
    assert waiting is not None
    assert waiting.store == f"file://{tmp_path}/b"
    assert ParkedJobs(ledger.client).state("job").given_up == ""

    (tmp_path / "b").mkdir()
    StoreProblems(ledger.client).release_check(sides[1])
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
    assert ParkedJobs(ledger.client).all() == []
    worker.look()
    assert not StoreProblems(ledger.client).of_batch("job", "worker", sides).problems


@pytest.mark.parametrize("how", ["left", "died"])
def test_a_worker_that_is_just_being_restarted_may_still_reach_the_stores(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """A rolling restart, or an outage of Redis, leaves for a moment only the worker that lacks the mount."""
    now = clock.now(ledger.client)
    WorkerRoster(ledger.client).announce("good", [COPY_QUEUE])
    if how == "left":
        WorkerRoster(ledger.client).leave("good")
        assert WorkerRoster(ledger.client).live(COPY_QUEUE) == []
    else:
        monkeypatch.setattr(clock, "now", lambda _: now + 3600)
    refused(ledger, sides[1], "bad")
    bad = Worker(ledger, "bad")
    bad.look()

    assert bad.look() == set()
    assert ParkedJobs(ledger.client).state("job").given_up == ""

    WorkerRoster(ledger.client).announce("good", [COPY_QUEUE])
    assert Worker(ledger, "good").look() == {QUEUE}


def test_a_worker_that_does_not_come_back_is_not_waited_for(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("gone", "refused too"):
        WorkerRoster(ledger.client).announce(name, [COPY_QUEUE])
        WorkerRoster(ledger.client).leave(name)
    refused(ledger, sides[1], "refused too")
    refused(ledger, sides[1], "bad")
    bad = Worker(ledger, "bad")
    bad.look()
    assert ParkedJobs(ledger.client).state("job").given_up == ""
    later = clock.now(ledger.client) + RETURN_S
    monkeypatch.setattr(clock, "now", lambda _: later)

    bad.look()

    assert "there is no such directory" in ParkedJobs(ledger.client).state("job").given_up


def test_patience_is_over_only_for_a_store_that_was_found_away_lately(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis was away for as long as the store: nobody knows whether the store is back."""
    StoreProblems(ledger.client).record_copy(sides[1], "worker")
    away(ledger, sides[1], "worker")
    worker = Worker(ledger, "worker")
    worker.look()
    later = clock.now(ledger.client) + 3600
    monkeypatch.setattr(clock, "now", lambda _: later)
    StoreProblems(ledger.client).release_check(sides[1])

    worker.look()
    assert ParkedJobs(ledger.client).state("job").given_up == ""

    # It was looked at again, and is still away.
    worker.look()
    assert "waited for 36" in ParkedJobs(ledger.client).state("job").given_up


def test_the_time_of_a_pause_is_not_taken_off_the_patience(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide]
) -> None:
    ledger.pause("job", paused=True)
    for field in ("waits", "flaps", "step_waits"):
        ParkedJobs(ledger.client).begin_waiting("job", field, "s3://b", "no answer")
    ParkedJobs(ledger.client).give_up("job", "waited for 3600 s")

    ledger.pause("job", paused=True)
    assert ParkedJobs(ledger.client).state("job").given_up
    ledger.pause("job", paused=False)
    assert ParkedJobs(ledger.client).state("job").waits is None
    assert ParkedJobs(ledger.client).state("job").given_up == ""

    ParkedJobs(ledger.client).give_up("job", "waited for 60 s")
    ledger.pause("job", paused=False)
    assert ParkedJobs(ledger.client).state("job").given_up, "it was not paused"


def test_what_redis_puts_back_after_the_end_of_a_job_is_removed(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker had taken a parked batch and died. Redis restores its message when nobody takes from there any more."""
    worker = Worker(ledger, "worker")
    worker.parking._linger_s = 60
    ledger.advance("job", State.CANCELLED)
    worker.look()
    assert ParkedJobs(ledger.client).all() == []
    ledger._redis.lpush(QUEUE, "{}")
    ledger._redis.lpush(lists(QUEUE)[4], "{}")
    ledger._redis.delete("snapferry:mark:drain")

    worker.look()

    assert not ledger._redis.exists(*lists(QUEUE))
    assert ledger._redis.hlen(UNPARKED) == 1
    later = clock.now(ledger.client) + 61
    monkeypatch.setattr(clock, "now", lambda _: later)
    ledger._redis.delete("snapferry:mark:drain")
    worker.look()
    assert not ledger._redis.exists(UNPARKED)


def test_the_queue_of_a_job_that_redis_forgot_is_emptied_and_lives_again_with_the_job(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide]
) -> None:
    """A message that was on its way to a worker goes back to the queue, and nobody would serve it any more."""
    worker, jobs = Worker(ledger, "worker"), ParkedJobs(ledger.client)
    spec = ledger.spec("job")
    assert worker.look() == {QUEUE}
    ledger.client.flushall()

    assert worker.look() == set()
    assert jobs.unparked_queues(60) == [QUEUE]

    ledger.create(spec)
    jobs.park(spec, "")
    assert worker.look() == {QUEUE}
    assert jobs.unparked_queues(60) == []


def test_a_new_priority_moves_parked_batches_as_well(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide]
) -> None:
    normal, high = step(Priority.NORMAL, 0), step(Priority.HIGH, 0)
    ledger._redis.lpush(lists(QUEUE)[normal], '{"root_id": "job"}')

    assert ledger.prioritise("job", Priority.HIGH)[1] == 1

    assert ledger._redis.llen(lists(QUEUE)[high]) == 1


def test_the_processes_of_live_workers_of_a_queue_are_added_up(ledger: Ledger) -> None:
    roster = WorkerRoster(ledger.client)
    roster.announce("two", [COPY_QUEUE], 2)
    roster.announce("three", [COPY_QUEUE, "snapferry.copy.x"], 3)
    roster.announce("elsewhere", ["snapferry.copy.x"], 5)
    roster.announce("gone", [COPY_QUEUE], 7)
    roster.leave("gone")
    # Of an earlier version, of nobody, and one that lies.
    at = clock.now(ledger.client)
    for name, record in (("old", {}), ("odd", {"processes": "many"}), ("liar", {"processes": 10**9})):
        text = json.dumps({"at": at, "queues": [COPY_QUEUE]} | record)
        ledger.client.hset("snapferry:workers", name, text)

    assert roster.processes(COPY_QUEUE) == 2 + 3 + 1 + 1000
    assert roster.processes("snapferry.copy.x") == 3 + 5
    assert roster.all_processes("snapferry.copy.x") == 3 + 5
    assert roster.all_processes(COPY_QUEUE) is None, "a worker does not say it"
    ledger.client.hdel("snapferry:workers", "old")
    assert roster.all_processes(COPY_QUEUE) == 2 + 3 + 1000


@pytest.mark.parametrize(
    "field", ['"processes":1e999', '"processes":Infinity', '"processes":NaN', f'"at":1{"0" * 400}']
)
def test_a_number_in_the_roster_that_is_out_of_range_is_no_worker(ledger: Ledger, field: str) -> None:
    roster = WorkerRoster(ledger.client)
    roster.announce("one", [COPY_QUEUE], 2)
    record = f'{{"at":{clock.now(ledger.client)},"queues":["{COPY_QUEUE}"],{field}}}'
    ledger.client.hset("snapferry:workers", "liar", record)

    assert roster.processes(COPY_QUEUE) == roster.all_processes(COPY_QUEUE) == 2
    assert "one" in roster.live(COPY_QUEUE)
    assert "one" in [worker.name for worker in roster.registered()]


def test_the_time_of_a_wait_does_not_count_against_the_speed_of_the_job(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide]
) -> None:
    jobs, job, now = ParkedJobs(ledger.client), "snapferry:job:job", time.time()

    def waited(*fields: str) -> float:
        jobs.stop_waiting("job", *fields)
        return ledger.status("job").halted_s

    def wait(field: str, seconds: float) -> None:
        record = {"store": "s3://b", "reason": "no answer", "since": time.time() - seconds}
        ledger.client.hset(job, field, json.dumps(record))

    ledger.client.hset(job, "started_at", now - 100)
    assert waited("waits") == 0
    wait("waits", 30)
    assert waited("waits", "flaps") == pytest.approx(30, abs=5)
    # Two waits at a time count once.
    wait("waits", 20)
    wait("step_waits", 10)
    assert waited("waits") == pytest.approx(40, abs=5)
    assert waited("step_waits") == pytest.approx(50, abs=5)
    # A pause counts by itself, from its begin on.
    ledger.client.hset(job, mapping={"paused": "1", "paused_at": now - 10, "moved_at": now - 10})
    wait("waits", 30)
    assert waited("waits") == pytest.approx(70, abs=5)
    wait("waits", 5)
    assert waited("waits") == pytest.approx(70, abs=5)
    # No wait is longer than the job.
    ledger.client.hdel(job, "paused")
    wait("waits", 1000)
    assert waited("waits") == pytest.approx(170, abs=5)


@pytest.mark.parametrize("since", ["1e999", "-1e999", "NaN", "1e300", "-1e300"])
def test_a_damaged_wait_counts_for_no_more_than_the_life_of_the_job(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide], since: str
) -> None:
    wait = f'{{"store": "s3://b", "reason": "no answer", "since": {since}}}'
    ledger.client.hset("snapferry:job:job", "started_at", time.time() - 100)
    for end in (
        lambda: ParkedJobs(ledger.client).stop_waiting("job", "waits"),
        lambda: ParkedJobs(ledger.client).stop_waiting("job", "waits", "step_waits"),
        lambda: ledger.pause("job", paused=False),
    ):
        ledger.pause("job", paused=True)
        ledger.client.hset("snapferry:job:job", mapping={"waits": wait, "step_waits": wait, "halted_s": 0})
        end()
        assert 0 <= ledger.status("job").halted_s < 110


@pytest.mark.parametrize(
    ("state", "counts"), [(State.FAILED, True), (State.CANCELLED, True), (State.DONE, False)]
)
def test_the_wait_in_which_a_job_ended_does_not_count_against_its_speed(
    ledger: Ledger, sides: tuple[StoreSide, StoreSide], state: State, counts: bool
) -> None:
    """A job that is done waited for nothing at its end."""
    now = time.time()
    wait = {"store": "s3://b", "reason": "no answer", "since": now - 90}
    ledger.client.hset("snapferry:job:job", mapping={"started_at": now - 100, "waits": json.dumps(wait)})

    ledger.advance("job", state)

    assert running_s(ledger.status("job")) == pytest.approx(10 if counts else 100, abs=5)


def test_a_wait_of_a_job_whose_record_is_gone_leaves_nothing(ledger: Ledger) -> None:
    ParkedJobs(ledger.client).stop_waiting("gone", "waits")

    assert not ledger.client.exists("snapferry:job:gone")
