"""The ledger on a real Redis: counted once, true progress, and an end that stays the end."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis
from celery import Celery
from celery._state import _task_stack
from hypothesis import given
from hypothesis import strategies as st
from kombu import pools
from pydantic import ValidationError

from snapferry.orchestrator.app import make_fleet_app
from snapferry.orchestrator.driving.dispatch import queue_batches, queue_drive, queue_plan
from snapferry.orchestrator.driving.snapshot_rows import final_fields
from snapferry.orchestrator.planning.batches import Batch
from snapferry.orchestrator.planning.prepare import Snapshots, freeze
from snapferry.stores.hashing import digest
from snapferry.stores.manifest.parse import LARGEST_PLANNED_BYTES
from snapferry.workers.ledger import (
    FAILURES_KEPT,
    GRACE_S,
    LEASE_S,
    MAX_DRIVES,
    PLAN,
    Begun,
    Directive,
    JobStatus,
    Ledger,
    State,
    UnknownJob,
    bit,
    set_bits,
)
from snapferry.workers.ledger.steps import accounting
from snapferry.workers.messages import VERSION, BatchMessage, JobSpec, StoreRef, encode_addresses
from snapferry.workers.outcome import BatchOutcome, Failure
from snapferry.workers.queues import COPY_QUEUE, PLAN_QUEUE, Priority, lists, step
from snapferry.workers.settings.environment import Settings
from tests.property.strategies import thorough
from tests.queues import roots, waiting

HERE, THERE = StoreRef(url="/a"), StoreRef(url="/b")
IDS = [digest(b"a snapshot"), digest(b"another")]

JOB = "snapferry:job:job"
INDEX, OPEN = "snapferry:jobs", "snapferry:open"

ON_THE_WAY = [State.PLANNING, State.COPYING, State.COMMITTING]
FINAL = [State.DONE, State.FAILED, State.CANCELLED]


def request(job_id: str = "job", ids: Iterable[str] = IDS) -> JobSpec:
    return JobSpec(
        job_id=job_id,
        snapshots=encode_addresses(ids),
        source=HERE,
        destination=THERE,
        batch_objects=10,
        batch_bytes=100,
    )


def address(position: int) -> str:
    return digest(b"object %d" % position)


def batch(
    number: int, *sizes: int, first: int = 0, series: str = PLAN, job_id: str = "job", at: Iterable[int] = ()
) -> BatchMessage:
    """Return a batch whose objects have the places from *first* on, or those that *at* says."""
    places = tuple(at) or tuple(range(first, first + len(sizes)))
    return BatchMessage(
        job_id=job_id, series=series, number=number, source=HERE, destination=THERE,
        addresses=encode_addresses(map(address, places)), sizes=sizes, positions=places if at else (first,),
    )  # fmt: skip


def outcome(message: BatchMessage, needed: Iterable[int], failed: Iterable[int] = ()) -> BatchOutcome:
    """Return how a delivery of *message* ends that finds some of its objects missing, and cannot copy some of those."""
    addresses = list(message.objects())
    needed, failed = set(needed), sorted(failed)
    copied = needed.difference(failed)
    return BatchOutcome(
        copied=len(copied),
        present=len(addresses) - len(needed),
        bytes_copied=sum(message.sizes[at] for at in copied),
        needed_bytes=sum(message.sizes[at] for at in needed),
        failures=[
            Failure(addresses[at], "ObjectMissing", "/a", f"failure {number}", transient=False)
            for number, at in enumerate(failed)
        ],
    )


def deliver(
    ledger: Ledger, message: BatchMessage, needed: Iterable[int] | None = None, failed: Iterable[int] = ()
) -> bool:
    """Do what a worker does with *message*; without *needed*, none of its objects is there."""
    needed = range(len(message.sizes)) if needed is None else list(needed)
    found_missing(ledger, message, needed)
    return ledger.account(message, outcome(message, needed, failed))


def found_missing(ledger: Ledger, message: BatchMessage, needed: Iterable[int]) -> None:
    addresses = list(message.objects())
    ledger.note_missing(message, [addresses[at] for at in needed])


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    """A ledger with one job that is being copied: three batches of 2, 3 and 1 objects, 5, 6 and 100 bytes."""
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())
    ledger.advance("job", State.COPYING, objects_total=6, bytes_total=111, batches_total=3, batches_handed=3)
    return ledger


TWO, THREE, ONE = batch(0, 2, 3), batch(1, 1, 2, 3, first=2), batch(2, 100, first=5)
ALL = (TWO, THREE, ONE)
HEAL_NONE = batch(0, 1, series="heal-0-1")


def counts(status: JobStatus) -> tuple[int, int, int]:
    return status.copied, status.present, status.failed


def settled(status: JobStatus) -> tuple[int, int]:
    return status.objects_settled, status.bytes_settled


def places(ledger: Ledger, part: str) -> list[int]:
    return list(set_bits(ledger.bitmap("job", part)))


def run_out(ledger: Ledger, *names: str) -> None:
    """Let the leases of batches run out."""
    ledger.client.zadd(f"{JOB}:leases", dict.fromkeys(names, time.time() - 1), xx=True)


def lease_of(ledger: Ledger, name: str = "plan:0") -> float:
    """Return for how many seconds from now a batch is leased."""
    ends: Any = ledger.client.zscore(f"{JOB}:leases", name)
    assert ends is not None
    return float(ends) - time.time()


def test_a_new_job_waits_and_remembers_what_was_asked_for(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)

    assert ledger.create(request())

    status = ledger.status("job")
    assert ledger.spec("job") == request()
    assert (status.state, status.first_snapshot, status.job_id) == (State.QUEUED, IDS[0], "job")
    assert (status.snapshots_total, status.snapshots_settled) == (2, 0)
    assert (status.source, status.destination, status.dry_run) == ("/a", "/b", False)
    assert status.submitted_at == status.moved_at > 0
    assert (status.started_at, status.ended_at) == (0.0, 0.0)
    assert (status.paused, status.cancelling, status.workers, status.error) == (False, False, (), "")


def test_a_job_of_everything_has_no_snapshots_until_they_are_listed(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request(ids=[]).model_copy(update={"everything": True, "dry_run": True}))

    status = ledger.status("job")

    assert (status.first_snapshot, status.snapshots_total, status.dry_run) == ("", 0, True)


def test_a_job_is_created_once(ledger: Ledger) -> None:
    other = request(ids=[digest(b"other")])

    assert not ledger.create(other)
    assert ledger.spec("job") == request()
    assert ledger.status("job").state is State.COPYING


QUESTIONS: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.status("job"),
    lambda ledger: ledger.spec("job"),
    lambda ledger: ledger.field("job", "ids"),
    lambda ledger: ledger.standing("job"),
    lambda ledger: ledger.neglected("job"),
    lambda ledger: ledger.cancel("job"),
    lambda ledger: ledger.pause("job", paused=True),
    lambda ledger: ledger.pause("job", paused=False),
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_after_an_unknown_job_is_an_error_and_makes_none(
    client: redis.Redis, question: Callable[[Ledger], object]
) -> None:
    with pytest.raises(UnknownJob):
        question(Ledger(client, expires_s=3600))

    assert client.keys() == []


def test_no_step_makes_a_job(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)

    assert not ledger.advance("job", State.COPYING)
    assert not ledger.set_fields("job", batches_handed=1)
    assert ledger.start_driving("job", "me") == -1
    assert not ledger.stop_driving("job", "me")
    ledger.keep_driving("job", "me")
    ledger.note_retry("job", "plan:0", 10)
    ledger.remove_working_keys("job")
    assert ledger.driver("job") == ""
    assert ledger.unaccounted("job", PLAN, range(2)) == [0, 1]
    assert (ledger.bitmap("job", "failed"), ledger.groups("job"), ledger.failed_by_class("job")) == (
        b"",
        {},
        {},
    )
    assert client.keys() == []


def test_a_batch_that_ends_after_its_job_expired_does_not_bring_half_a_job_back(
    ledger: Ledger, client: redis.Redis
) -> None:
    client.flushall()

    assert ledger.begin(TWO, "one").stopped
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert not ledger.account(TWO, outcome(TWO, [0, 1], failed=[1]))
    ledger.release(TWO, "one")
    ledger.release(TWO, "one", again_in_s=5)

    with pytest.raises(UnknownJob):
        ledger.status("job")
    assert client.keys() == []


@pytest.mark.parametrize("end", [State.FAILED, None], ids=["failed", "expired"])
def test_a_batch_that_looks_at_its_destination_after_its_job_ended_leaves_nothing_behind(
    ledger: Ledger, client: redis.Redis, end: State | None
) -> None:
    """It was begun before; what it finds missing is of no interest any more."""
    ledger.begin(TWO, "one")
    if end:
        ledger.advance("job", end)
        ledger.remove_working_keys("job")
    else:
        client.flushall()
    before = sorted(client.keys())

    found_missing(ledger, TWO, [0, 1])

    assert sorted(client.keys()) == before


def test_a_batch_that_is_handed_out_again_after_its_job_expired_does_not_bring_half_a_job_back(
    ledger: Ledger, client: redis.Redis
) -> None:
    client.flushall()

    ledger.note_requeued("job", ["plan:0"])

    assert client.keys() == []


def test_a_batch_whose_accounting_breaks_off_is_not_taken_for_done(
    ledger: Ledger, client: redis.Redis
) -> None:
    """Its mark is set last: what is counted twice is a wrong number, what is never copied is a lost object."""
    client.set(f"{JOB}:failures", "not a list")

    with pytest.raises(redis.ResponseError):
        deliver(ledger, TWO, failed=[1])

    assert ledger.unaccounted("job", PLAN, range(3)) == [0, 1, 2]
    assert not ledger.begin(TWO, "one").accounted
    client.delete(f"{JOB}:failures")
    assert deliver(ledger, TWO, failed=[1])
    assert ledger.unaccounted("job", PLAN, range(3)) == [1, 2]
    assert places(ledger, "failed") == [1]


def test_a_request_of_another_version_is_refused(ledger: Ledger, client: redis.Redis) -> None:
    other = request().model_dump_json().replace(f'"version":{VERSION}', f'"version":{VERSION + 1}')
    client.hset(JOB, "request", other)

    with pytest.raises(ValidationError):
        ledger.spec("job")


def test_a_batch_is_counted_once_however_often_it_is_delivered(ledger: Ledger) -> None:
    assert deliver(ledger, TWO)
    assert not deliver(ledger, TWO, needed=[])
    assert not deliver(ledger, TWO, failed=[0, 1])

    status = ledger.status("job")
    assert counts(status) == (2, 0, 0)
    assert (status.batches_done, status.bytes_copied, settled(status)) == (1, 5, (2, 5))
    assert (ledger.failures("job"), places(ledger, "failed"), places(ledger, "copied")) == ([], [], [0, 1])
    assert ledger.failed_by_class("job") == {}


def test_of_many_deliveries_at_the_same_time_one_is_counted(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        counted = list(pool.map(lambda _: deliver(ledger, THREE, needed=[0, 2], failed=[2]), range(32)))

    assert sorted(counted) == [False] * 31 + [True]
    assert counts(ledger.status("job")) == (1, 1, 1)
    assert len(ledger.failures("job")) == 1


def test_when_all_batches_are_accounted_for_progress_equals_the_plan(ledger: Ledger) -> None:
    for message in ALL:
        deliver(ledger, message)

    status = ledger.status("job")
    assert settled(status) == (status.objects_total, status.bytes_total) == (6, 111)
    assert status.batches_done == status.batches_total == 3
    assert status.bytes_copied == 111
    assert ledger.unaccounted("job", PLAN, range(3)) == []


def test_the_batches_that_nobody_accounted_for_are_known_by_series_and_number(ledger: Ledger) -> None:
    assert ledger.unaccounted("job", PLAN, range(3)) == [0, 1, 2]

    deliver(ledger, THREE)
    deliver(ledger, batch(0, 1, series="heal-0-1"))

    assert ledger.unaccounted("job", PLAN, range(3)) == [0, 2]
    assert ledger.unaccounted("job", PLAN, range(1, 20)) == list(range(2, 20))
    assert ledger.unaccounted("job", PLAN, range(1, 2)) == []
    assert ledger.unaccounted("job", PLAN, range(0)) == []
    assert ledger.unaccounted("job", "heal-0-1", range(3)) == [1, 2]
    assert ledger.unaccounted("job", "heal-0-2", range(2)) == [0, 1]


@thorough
@given(st.sets(st.integers(0, 300)))
def test_a_bitmap_is_a_set_of_numbers(numbers: set[int]) -> None:
    bits = bytearray(40)
    for number in numbers:
        bits[number // 8] |= 0x80 >> number % 8
    short = bytes(bits).rstrip(b"\0")

    for found in (bytes(bits), short):
        assert list(set_bits(found)) == sorted(numbers)
        assert {number for number in range(400) if bit(found, number)} == numbers


def test_a_bitmap_is_read_as_redis_writes_it(ledger: Ledger, client: redis.Redis) -> None:
    """Bytes that are no text, as bits of the highest kind make them, included."""
    random_ = random.Random(7)
    for _ in range(20):
        numbers = {random_.randrange(200) for _ in range(random_.randrange(60))}
        client.delete(f"{JOB}:copied")
        for number in numbers:
            client.setbit(f"{JOB}:copied", number, 1)

        assert set(places(ledger, "copied")) == numbers


def test_progress_inside_a_batch_counts_until_the_batch_is_accounted_for(ledger: Ledger) -> None:
    ledger.progress(TWO, "one", objects=1, size_bytes=2)
    assert settled(ledger.status("job")) == (1, 2)

    deliver(ledger, TWO)
    assert settled(ledger.status("job")) == (2, 5)


def test_another_delivery_of_a_batch_does_not_take_progress_back_or_count_twice(ledger: Ledger) -> None:
    ledger.progress(THREE, "one", objects=2, size_bytes=5)
    ledger.progress(THREE, "one", objects=1, size_bytes=1)
    assert settled(ledger.status("job")) == (2, 5)

    deliver(ledger, THREE)
    ledger.progress(THREE, "one", objects=2, size_bytes=5)
    assert settled(ledger.status("job")) == (3, 6)


def test_what_is_healed_is_no_progress_of_the_plan(ledger: Ledger) -> None:
    heal = batch(0, 50, 50, series="heal-0-1")
    ledger.progress(heal, "one", objects=1, size_bytes=50)
    deliver(ledger, heal)

    status = ledger.status("job")
    assert settled(status) == (0, 0)
    assert (status.healed, status.batches_done, status.bytes_copied) == (2, 0, 100)
    assert (counts(status), places(ledger, "copied")) == ((0, 0, 0), [])


def test_sums_of_many_large_sizes_are_exact(ledger: Ledger) -> None:
    large = batch(0, *[2**48] * 1000)

    assert ledger.account(large, BatchOutcome(copied=1000, bytes_copied=2**53 - 1))

    status = ledger.status("job")
    assert (status.bytes_settled, status.bytes_copied) == (1000 * 2**48, 2**53 - 1)


def test_sums_of_all_that_a_batch_of_the_largest_objects_found_missing_are_exact(ledger: Ledger) -> None:
    """The script counts in floating point, which is exact up to 2**53."""
    large = batch(0, *[LARGEST_PLANNED_BYTES] * 999, LARGEST_PLANNED_BYTES - 1)
    assert sum(large.sizes) < 2**53
    found_missing(ledger, large, range(1000))
    found_missing(ledger, large, [999])

    ledger.account(large, outcome(large, needed=[999]))

    status = ledger.status("job")
    assert counts(status) == (1000, 0, 0)
    assert status.bytes_copied == sum(large.sizes)


def test_progress_inside_a_batch_of_the_largest_objects_is_exact(ledger: Ledger) -> None:
    largest = 1000 * LARGEST_PLANNED_BYTES - 1
    assert largest < 2**53

    for size_bytes in (1, largest, largest - 1):
        ledger.progress(THREE, "one", objects=1, size_bytes=size_bytes)

    assert settled(ledger.status("job")) == (1, largest)
    ledger.progress(THREE, "one", objects=1, size_bytes=2**53 - 1)
    assert settled(ledger.status("job")) == (1, 2**53 - 1)


@pytest.mark.parametrize("first", range(9))
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 15, 16, 17, 24, 100])
def test_of_a_batch_that_lacks_everything_just_its_own_places_are_noted(
    ledger: Ledger, first: int, count: int
) -> None:
    """Neighbours share a byte: those whose places are noted keep them, and those that are not get none."""
    before, after = first - 2, first + count + 1
    for number, place in enumerate(place for place in (before, after) if place >= 0):
        found_missing(ledger, batch(number, 1, first=place), [0])

    found_missing(ledger, batch(7, *[1] * count, first=first), range(count))

    around = {place for place in (before, after) if place >= 0}
    assert places(ledger, "copied") == sorted({*range(first, first + count), *around})


@pytest.mark.parametrize("needed", [[], [1], [0, 1, 2]])
def test_an_object_that_could_not_be_healed_is_failed_and_no_longer_copied_or_present(
    ledger: Ledger, needed: list[int]
) -> None:
    deliver(ledger, THREE, needed)

    heal = batch(0, 2, 3, series="heal-0-1", at=[3, 4])
    deliver(ledger, heal, failed=[0, 1])

    status = ledger.status("job")
    assert counts(status) == (len(set(needed) - {1, 2}), 1 - len(set(needed) - {1, 2}), 2)
    assert places(ledger, "failed") == [3, 4]
    assert places(ledger, "copied") == [2 + at for at in needed if at == 0]


def test_an_object_that_fails_in_several_turns_of_healing_is_one_failed_object(ledger: Ledger) -> None:
    deliver(ledger, THREE)

    for turn in (1, 2, 3):
        deliver(ledger, batch(0, 2, 3, series=f"heal-0-{turn}", at=[3, 4]), failed=[1])

    status = ledger.status("job")
    assert (counts(status), status.healed) == ((2, 0, 1), 3)
    assert ledger.failed_by_class("job") == {"ObjectMissing": 1}


def test_what_another_delivery_copied_counts_as_copied_though_this_one_found_it_present(
    ledger: Ledger,
) -> None:
    """The first delivery copied two of three objects and died; the second found those and copied the third."""
    found_missing(ledger, THREE, [0, 1, 2])
    found_missing(ledger, THREE, [2])

    ledger.account(THREE, outcome(THREE, needed=[2]))

    status = ledger.status("job")
    assert counts(status) == (3, 0, 0)
    assert status.bytes_copied == 6


def test_what_several_deliveries_found_missing_is_counted_object_by_object(ledger: Ledger) -> None:
    """Two of them found one object missing each, and not the same one: that makes two copied, not one."""
    found_missing(ledger, THREE, [0])
    found_missing(ledger, THREE, [2])
    found_missing(ledger, THREE, [2, 0])

    ledger.account(THREE, outcome(THREE, needed=[]))

    status = ledger.status("job")
    assert (counts(status), places(ledger, "copied")) == ((2, 1, 0), [2, 4])
    assert status.bytes_copied == 1 + 3


def test_what_an_earlier_delivery_found_missing_and_the_last_one_cannot_copy_is_failed(
    ledger: Ledger,
) -> None:
    found_missing(ledger, THREE, [0, 1])

    deliver(ledger, THREE, needed=[1, 2], failed=[1, 2])

    assert (counts(ledger.status("job")), places(ledger, "copied")) == ((1, 0, 2), [2])
    assert places(ledger, "failed") == [3, 4]


def test_a_batch_that_found_all_present_and_was_delivered_once_copied_nothing(ledger: Ledger) -> None:
    deliver(ledger, THREE, needed=[])

    assert (counts(ledger.status("job")), places(ledger, "copied")) == ((0, 3, 0), [])


def test_what_a_late_delivery_finds_missing_changes_nothing_once_the_batch_is_accounted_for(
    ledger: Ledger, client: redis.Redis
) -> None:
    """It looked before another job brought the objects, and says so after they were counted as present."""
    deliver(ledger, THREE, needed=[0], failed=[0])

    found_missing(ledger, THREE, [0, 1])

    assert counts(ledger.status("job")) == (0, 2, 1)
    assert places(ledger, "copied") == []
    assert client.hgetall(f"{JOB}:needed") == {}


def test_failed_objects_are_kept_with_all_that_is_known_of_them(ledger: Ledger) -> None:
    failure = Failure(address(5), "AccessDenied", "s3://bucket", 'no "permission" für 概要', transient=False)

    ledger.account(ONE, BatchOutcome(failures=[failure]), attempts=4, worker="copier@here")

    (failed,) = ledger.failures("job")
    assert (failed.failure, failed.attempts, failed.worker) == (failure, 4, "copier@here")


def test_the_list_of_failures_is_bounded_and_their_count_is_exact(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounting, "FAILURES_KEPT", 7)

    for number in range(4):
        assert deliver(ledger, batch(number, *[1] * 5, first=5 * number), failed=range(5))
    deliver(ledger, batch(9, *[1] * 50, first=1000), failed=range(50))

    assert ledger.status("job").failed == 70
    assert [failed.failure.detail for failed in ledger.failures("job")] == [
        f"failure {n}" for n in [0, 1, 2, 3, 4, 0, 1]
    ]
    assert places(ledger, "failed") == [*range(20), *range(1000, 1050)]
    assert ledger.failed_by_class("job") == {"ObjectMissing": 70}


def test_a_batch_of_failures_only_fits_into_one_script_call(ledger: Ledger) -> None:
    everything = batch(0, *[1] * 10_000)

    assert deliver(ledger, everything, failed=range(10_000))

    assert ledger.status("job").failed == 10_000
    assert len(ledger.failures("job")) == FAILURES_KEPT
    assert places(ledger, "failed") == list(range(10_000))


def test_failures_are_counted_by_their_class(ledger: Ledger) -> None:
    errors = ["ObjectMissing", "IntegrityError", "ObjectMissing"]
    ends = [
        Failure(found, error, "/a", "", transient=False)
        for found, error in zip(THREE.objects(), errors, strict=True)
    ]

    ledger.account(THREE, BatchOutcome(failures=ends))

    assert ledger.failed_by_class("job") == {"ObjectMissing": 2, "IntegrityError": 1}


def test_begins_are_counted_until_the_batch_is_accounted_for(ledger: Ledger) -> None:
    """Each beginning is that of a worker whose predecessor is known to be dead."""
    holders = ["one", "two", "three"]
    times = [
        ledger.begin(TWO, holder, instead_of=dead).times
        for holder, dead in zip(holders, ["", *holders], strict=False)
    ]
    assert times == [1, 2, 3]
    assert ledger.begin(THREE, "one").times == 1
    assert not ledger.begin(HEAL_NONE, "one").accounted

    deliver(ledger, TWO)

    assert ledger.begin(TWO, "one") == Begun(accounted=True)
    assert not ledger.begin(THREE, "one").accounted


def test_a_batch_that_is_begun_belongs_to_its_holder_and_to_no_one_else(ledger: Ledger) -> None:
    assert ledger.begin(TWO, "one") == Begun(times=1)

    assert ledger.begin(TWO, "two") == Begun(holder="one")
    assert ledger.begin(TWO, "two", instead_of="three").holder == "one"
    assert ledger.begin(THREE, "two").holder == ""
    assert ledger.begin(HEAL_NONE, "two").holder == ""


def test_the_lease_of_a_dead_holder_is_taken_over_and_its_beginning_stays_counted(ledger: Ledger) -> None:
    ledger.begin(TWO, "dead")

    assert ledger.begin(TWO, "two", instead_of="dead") == Begun(times=2)

    assert ledger.begin(TWO, "three", instead_of="dead").holder == "two"


def test_a_beginning_whose_answer_was_lost_and_is_asked_for_again_counts_once(ledger: Ledger) -> None:
    for _ in range(20):
        assert ledger.begin(TWO, "one").times == 1
    ledger.release(TWO, "one")

    assert ledger.begin(TWO, "two").times == 1


def test_a_lease_that_is_given_back_leaves_no_beginning_behind(ledger: Ledger) -> None:
    for holder in ("one", "two", "three"):
        assert ledger.begin(TWO, holder).times == 1
        ledger.release(TWO, holder)


def test_only_the_holder_can_give_a_lease_back_and_only_once(ledger: Ledger) -> None:
    ledger.begin(TWO, "dead")
    ledger.begin(TWO, "one", instead_of="dead")

    ledger.release(TWO, "dead")
    ledger.release(TWO, "dead", again_in_s=8)
    assert ledger.begin(TWO, "two").holder == "one"
    ledger.release(TWO, "one")
    ledger.release(TWO, "one")

    assert ledger.begin(TWO, "two").times == 2


def test_a_lease_runs_out_unless_its_holder_reports(ledger: Ledger, client: redis.Redis) -> None:
    ledger.begin(TWO, "one")
    assert LEASE_S - 5 < lease_of(ledger) <= LEASE_S

    client.zadd(f"{JOB}:leases", {"plan:0": time.time() + 5})
    ledger.progress(TWO, "another", objects=0, size_bytes=0)
    assert lease_of(ledger) <= 5
    ledger.progress(TWO, "one", objects=0, size_bytes=0)
    assert LEASE_S - 5 < lease_of(ledger) <= LEASE_S

    run_out(ledger, "plan:0")
    assert ledger.standing("job").expired == ("plan:0",)
    assert ledger.begin(TWO, "two").times == 2
    ledger.progress(TWO, "one", objects=0, size_bytes=0)
    ledger.release(TWO, "one")
    assert ledger.begin(TWO, "three").holder == "two"
    assert ledger.standing("job").expired == ()


def test_a_report_does_not_give_a_lease_to_a_batch_that_has_none(ledger: Ledger) -> None:
    ledger.progress(TWO, "one", objects=1, size_bytes=1)

    assert (ledger.standing("job").leased, ledger.standing("job").expired) == (0, ())


def test_a_batch_that_waits_for_its_retry_is_leased_to_nobody_and_anybody_may_begin_it(
    ledger: Ledger,
) -> None:
    ledger.begin(TWO, "one")
    ledger.release(TWO, "one", again_in_s=8)

    standing = ledger.standing("job")
    assert (standing.leased, standing.running, standing.expired) == (1, 0, ())
    assert 8 + GRACE_S - 5 < lease_of(ledger) <= 8 + GRACE_S
    assert ledger.status("job").workers == ()
    assert ledger.begin(TWO, "two") == Begun(times=1)
    assert (ledger.standing("job").leased, ledger.standing("job").running) == (1, 1)
    assert ledger.begin(TWO, "three").holder == "two"


def test_a_batch_whose_next_try_never_came_is_overdue_and_its_worker_is_not_taken_for_dead(
    ledger: Ledger,
) -> None:
    ledger.begin(TWO, "one")
    ledger.release(TWO, "one", again_in_s=8)
    ledger.note_retry("job", "plan:1", 8)
    ledger.begin(ONE, "dead")
    run_out(ledger, "plan:0", "plan:1", "plan:2")

    standing = ledger.standing("job")

    assert (standing.expired, sorted(standing.overdue)) == (("plan:2",), ["plan:0", "plan:1"])
    assert (standing.leased, standing.running) == (0, 0)
    assert ledger.begin(TWO, "two") == Begun(times=1)
    ledger.note_requeued("job", ["plan:1", "plan:2"])
    assert (ledger.standing("job").expired, ledger.standing("job").overdue) == ((), ())


def test_a_batch_that_nobody_can_run_waits_without_having_been_begun(ledger: Ledger) -> None:
    for _ in range(2):
        ledger.note_retry("job", "plan:0", 10)

        standing = ledger.standing("job")
        assert (standing.leased, standing.running, standing.expired) == (1, 0, ())
        assert 10 + GRACE_S - 5 < lease_of(ledger) <= 10 + GRACE_S
        ledger.client.zadd(f"{JOB}:leases", {"plan:0": time.time() + 1})

    assert ledger.begin(TWO, "one") == Begun(times=1)


def test_waiting_takes_no_lease_away_from_its_holder(ledger: Ledger) -> None:
    ledger.begin(TWO, "one")

    ledger.note_retry("job", "plan:0", 1000)

    assert lease_of(ledger) <= LEASE_S
    assert ledger.begin(TWO, "two").holder == "one"


@pytest.mark.parametrize("how", ["cancelled", "failed"])
def test_a_job_that_wants_no_more_work_has_nothing_to_wait_for(ledger: Ledger, how: str) -> None:
    ledger.cancel("job")
    if how == "failed":
        ledger.advance("job", State.FAILED)

    ledger.note_retry("job", "plan:0", 10)

    assert ledger.standing("job").leased == 0


def test_a_batch_of_a_paused_job_is_not_begun_and_is_held(ledger: Ledger) -> None:
    assert ledger.pause("job", paused=True) is State.COPYING

    assert ledger.begin(TWO, "one") == Begun(paused=True)
    assert ledger.begin(TWO, "two") == Begun(paused=True)
    assert ledger.begin(HEAL_NONE, "one") == Begun(paused=True)

    standing = ledger.standing("job")
    assert ledger.status("job").paused
    assert standing.paused
    assert sorted(standing.held) == ["heal-0-1:0", "plan:0"]
    assert (standing.leased, standing.running, standing.expired) == (0, 0, ())


def test_what_runs_when_a_job_is_paused_is_accounted_for(ledger: Ledger) -> None:
    ledger.begin(TWO, "one")
    ledger.pause("job", paused=True)

    assert ledger.progress(TWO, "one", objects=1, size_bytes=2) is Directive.HOLD
    assert deliver(ledger, TWO)
    ledger.release(TWO, "one")

    assert settled(ledger.status("job")) == (2, 5)
    assert (ledger.standing("job").held, ledger.standing("job").leased) == ((), 0)
    assert ledger.begin(TWO, "two") == Begun(accounted=True)


def test_a_batch_that_another_runs_when_its_job_is_paused_is_not_held_as_well(ledger: Ledger) -> None:
    """A second delivery of it: were it held, it would be handed out again although it runs."""
    ledger.begin(TWO, "one")
    ledger.pause("job", paused=True)

    begun = ledger.begin(TWO, "two")

    assert ledger.standing("job").held == ()
    assert begun == Begun(holder="one")


def test_a_job_that_goes_on_begins_its_batches_and_holds_them_no_longer(ledger: Ledger) -> None:
    ledger.pause("job", paused=True)
    ledger.pause("job", paused=True)
    ledger.begin(TWO, "one")
    ledger.begin(THREE, "one")

    assert ledger.pause("job", paused=False) is State.COPYING

    assert not ledger.status("job").paused
    assert sorted(ledger.standing("job").held) == ["plan:0", "plan:1"]
    assert ledger.begin(TWO, "one") == Begun(times=1)
    assert ledger.standing("job").held == ("plan:1",)
    ledger.note_requeued("job", ["plan:1"])
    assert ledger.standing("job").held == ()


def test_a_paused_job_can_be_cancelled(ledger: Ledger) -> None:
    ledger.pause("job", paused=True)

    ledger.cancel("job")

    assert ledger.begin(TWO, "one") == Begun(stopped=True)
    assert ledger.standing("job").held == ()


@pytest.mark.parametrize("final", FINAL)
@pytest.mark.parametrize("paused", [True, False])
def test_a_job_that_has_ended_is_not_paused_any_more(ledger: Ledger, final: State, paused: bool) -> None:
    ledger.pause("job", paused=not paused)
    ledger.advance("job", final)
    ended = ledger.status("job")

    assert ledger.pause("job", paused=paused) is final

    assert ledger.status("job") == ended


def test_the_standing_of_a_job_is_all_that_its_next_step_depends_on(ledger: Ledger) -> None:
    for message in (TWO, THREE, ONE, HEAL_NONE):
        ledger.begin(message, f"{message.series} {message.number}")
    ledger.release(THREE, "plan 1", again_in_s=4)
    deliver(ledger, ONE, failed=[0])
    ledger.release(ONE, "plan 2")
    run_out(ledger, "plan:0")
    ledger.note_healing("job", 0, turn=1, batches=2)
    ledger.note_healing("job", 3, turn=1, batches=5)
    ledger.note_healing("job", 3, turn=2, batches=1)
    ledger.set_fields("job", stalls=2, stalled_done=1)
    ledger.pause("job", paused=True)
    ledger.begin(batch(4, 1), "x")
    ledger.cancel("job")

    standing = ledger.standing("job")

    assert (standing.state, standing.paused, standing.cancelling) == (State.COPYING, True, True)
    assert (standing.handed, standing.done, standing.failed) == (3, 1, 1)
    assert (standing.expired, standing.overdue, standing.held) == (("plan:0",), (), ("plan:4",))
    assert (standing.leased, standing.running) == (2, 1)
    assert standing.heals == {0: (1, 2), 3: (2, 1)}
    assert (standing.stalls, standing.stalled_done) == (2, 1)


def test_a_new_job_stands_at_nothing(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())

    standing, neglected = ledger.neglected("job")

    assert (standing.state, standing.paused, standing.cancelling, neglected) == (
        State.QUEUED, False, False, False,
    )  # fmt: skip
    assert (standing.handed, standing.done, standing.failed, standing.leased, standing.running) == (0,) * 5
    assert (standing.expired, standing.overdue, standing.held, standing.heals) == ((), (), (), {})


MOVES: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.begin(TWO, "one"),
    lambda ledger: ledger.progress(THREE, "two", objects=2, size_bytes=1),
    lambda ledger: ledger.account(TWO, outcome(TWO, [])),
    lambda ledger: ledger.advance("job", State.COMMITTING),
    lambda ledger: ledger.set_fields("job", batches_handed=3),
    lambda ledger: ledger.pause("job", paused=True),
    lambda ledger: ledger.note_requeued("job", ["plan:0"]),
]
STANDS_STILL: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.begin(THREE, "another"),
    lambda ledger: ledger.progress(THREE, "two", objects=1, size_bytes=1),
    lambda ledger: ledger.account(ONE, outcome(ONE, [])),
    lambda ledger: ledger.status("job"),
    lambda ledger: ledger.start_driving("job", "me"),
]


@pytest.mark.parametrize(
    ("step", "moves"), [*((s, True) for s in MOVES), *((s, False) for s in STANDS_STILL)]
)
def test_a_job_is_idle_for_as_long_as_nothing_of_it_moves(
    ledger: Ledger, client: redis.Redis, step: Callable[[Ledger], object], moves: bool
) -> None:
    """A heart that beats is no movement: a lease says that a batch runs."""
    ledger.begin(THREE, "two")
    ledger.progress(THREE, "two", objects=1, size_bytes=1)
    deliver(ledger, ONE)
    client.hset(JOB, "moved_at", repr(time.time() - 1000))
    assert 999 < ledger.standing("job").idle_s < 1100

    step(ledger)

    assert (ledger.standing("job").idle_s < 100) == moves
    assert (ledger.status("job").moved_at > time.time() - 100) == moves


def test_batches_that_are_handed_out_again_have_neither_a_lease_nor_are_they_held(ledger: Ledger) -> None:
    ledger.begin(TWO, "dead")
    ledger.note_retry("job", "plan:2", 10)
    run_out(ledger, "plan:0", "plan:2")
    ledger.pause("job", paused=True)
    ledger.begin(THREE, "one")
    ledger.begin(batch(3, 1), "one")
    ledger.pause("job", paused=False)

    ledger.note_requeued("job", ["plan:0", "plan:1", "plan:2"])
    ledger.note_requeued("job", [])

    standing = ledger.standing("job")
    assert (standing.expired, standing.overdue, standing.held) == ((), (), ("plan:3",))
    assert standing.leased == 0
    assert ledger.begin(TWO, "one") == Begun(times=2)


def test_a_batch_that_was_begun_between_its_hand_out_and_the_note_of_it_keeps_its_lease(
    ledger: Ledger,
) -> None:
    """Batches are queued first and noted then: an idle worker begins one before its hand-out is noted."""
    ledger.begin(TWO, "dead")
    run_out(ledger, "plan:0")
    ledger.begin(TWO, "one")

    ledger.note_requeued("job", ["plan:0"])

    assert ledger.standing("job").running == 1
    assert ledger.begin(TWO, "two").holder == "one"


def test_a_job_is_driven_by_one_and_a_second_one_makes_it_look_again_once(ledger: Ledger) -> None:
    assert ledger.start_driving("job", "one") == 1
    assert (ledger.driver("job"), ledger.driven("job")) == ("one", True)

    assert ledger.start_driving("job", "two") == 0
    assert ledger.start_driving("job", "three") == 0
    assert ledger.driver("job") == "one"

    assert ledger.stop_driving("job", "one")
    assert ledger.driver("job") == "one"
    assert not ledger.stop_driving("job", "one")
    assert (ledger.driver("job"), ledger.driven("job")) == ("", False)
    assert not ledger.neglected("job")[1]
    assert ledger.start_driving("job", "two") == 1


def test_whoever_asks_while_the_driver_looks_again_makes_it_look_once_more(ledger: Ledger) -> None:
    ledger.start_driving("job", "one")
    for _ in range(3):
        assert ledger.start_driving("job", "two") == 0
        assert ledger.stop_driving("job", "one")

    assert not ledger.stop_driving("job", "one")


def test_only_the_driver_parks_a_job(ledger: Ledger) -> None:
    ledger.start_driving("job", "one")

    assert not ledger.stop_driving("job", "two")

    assert ledger.driver("job") == "one"


def test_a_driver_that_fails_does_not_look_again_and_the_next_one_looks_for_all_who_asked(
    ledger: Ledger,
) -> None:
    """Its task comes again by itself; so nobody has to look after the job."""
    ledger.start_driving("job", "one")
    ledger.start_driving("job", "two")

    assert not ledger.stop_driving("job", "one", look_again=False)

    assert (ledger.driven("job"), ledger.neglected("job")[1]) == (False, False)
    assert ledger.start_driving("job", "three") == 1
    assert not ledger.stop_driving("job", "three")


def test_a_job_is_neglected_from_the_death_of_its_driver_until_another_drives_it_to_an_end(
    ledger: Ledger, client: redis.Redis
) -> None:
    assert not ledger.neglected("job")[1]
    ledger.start_driving("job", "one")
    assert not ledger.neglected("job")[1]

    client.delete(f"{JOB}:driver")

    standing, neglected = ledger.neglected("job")
    assert (standing.state, neglected) == (State.COPYING, True)
    assert not ledger.stop_driving("job", "one")
    assert ledger.neglected("job")[1]
    assert ledger.start_driving("job", "two") == 2
    assert not ledger.neglected("job")[1]
    ledger.stop_driving("job", "two")
    assert not ledger.neglected("job")[1]


def test_the_lease_of_a_driver_ends_by_itself_unless_it_is_kept(ledger: Ledger, client: redis.Redis) -> None:
    ledger.start_driving("job", "one")
    assert 0 < client.ttl(f"{JOB}:driver") <= LEASE_S

    client.expire(f"{JOB}:driver", 5)
    ledger.keep_driving("job", "two")
    assert client.ttl(f"{JOB}:driver") <= 5
    ledger.keep_driving("job", "one")
    assert 5 < client.ttl(f"{JOB}:driver") <= LEASE_S

    client.expire(f"{JOB}:driver", 5)
    ledger.start_driving("job", "two")
    assert ledger.stop_driving("job", "one")
    assert 5 < client.ttl(f"{JOB}:driver") <= LEASE_S


@pytest.mark.parametrize("state", ON_THE_WAY)
def test_no_step_of_a_driver_makes_its_lease_longer(
    ledger: Ledger, client: redis.Redis, state: State
) -> None:
    """Were it as long as the job's record, nobody would take over from a driver that died on another machine."""
    ledger.start_driving("job", "one")

    ledger.advance("job", state)
    ledger.set_fields("job", batches_handed=3)
    ledger.note_healing("job", 0, turn=1, batches=1)
    ledger.record_group("job", 0, {0: ["published"]})

    assert 0 < client.ttl(f"{JOB}:driver") <= LEASE_S


def test_a_driver_that_is_known_to_be_dead_is_replaced(ledger: Ledger) -> None:
    ledger.start_driving("job", "dead")

    assert ledger.start_driving("job", "two", instead_of="another") == 0
    assert ledger.start_driving("job", "two", instead_of="dead") == 2

    assert ledger.driver("job") == "two"
    ledger.keep_driving("job", "dead")
    assert not ledger.stop_driving("job", "dead")
    assert ledger.driver("job") == "two"
    assert not ledger.stop_driving("job", "two")


def test_drives_that_never_end_are_counted_and_one_that_ends_wipes_the_slate(ledger: Ledger) -> None:
    dead = ""
    for number in range(MAX_DRIVES + 1):
        holder = f"driver {number}"
        assert ledger.start_driving("job", holder, instead_of=dead) == number + 1
        dead = holder

    ledger.stop_driving("job", dead, look_again=False)

    for _ in range(2 * MAX_DRIVES):
        assert ledger.start_driving("job", "one") == 1
        ledger.stop_driving("job", "one")


def test_being_turned_away_is_no_drive_that_never_ended(ledger: Ledger) -> None:
    ledger.start_driving("job", "one")
    for _ in range(2 * MAX_DRIVES):
        assert ledger.start_driving("job", "two") == 0

    assert ledger.start_driving("job", "three", instead_of="one") == 2


def test_a_cancel_is_seen_by_every_worker_and_does_not_end_a_job_that_was_begun(ledger: Ledger) -> None:
    assert not ledger.status("job").cancelling
    assert not ledger.progress(TWO, "one", objects=1, size_bytes=1)

    assert ledger.cancel("job") is State.COPYING
    assert ledger.cancel("job") is State.COPYING

    assert ledger.status("job").cancelling
    assert ledger.begin(TWO, "one") == Begun(stopped=True)
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert deliver(ledger, TWO)
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert ledger.status("job").state is State.COPYING
    assert ledger.open_jobs() == ["job"]


@pytest.mark.parametrize("paused", [False, True])
def test_a_job_that_nobody_began_is_cancelled_at_once(client: redis.Redis, paused: bool) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())
    ledger.pause("job", paused=paused)

    assert ledger.cancel("job") is State.CANCELLED

    status = ledger.status("job")
    assert status.state is State.CANCELLED
    assert status.ended_at >= status.submitted_at
    assert ledger.open_jobs() == []
    assert list(ledger.job_ids()) == ["job"]
    assert not ledger.advance("job", State.PLANNING)


@pytest.mark.parametrize("state", ON_THE_WAY)
def test_a_job_that_was_begun_is_only_asked_to_stop(client: redis.Redis, state: State) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())
    ledger.advance("job", state)

    assert ledger.cancel("job") is state
    assert ledger.status("job").ended_at == 0.0
    assert ledger.advance("job", State.CANCELLED)


@pytest.mark.parametrize("final", FINAL)
def test_a_job_that_has_ended_is_not_cancelled(ledger: Ledger, final: State) -> None:
    ledger.advance("job", final)
    ended = ledger.status("job")

    assert ledger.cancel("job") is final

    assert ledger.status("job") == ended


@pytest.mark.parametrize("final", FINAL)
def test_a_job_that_has_ended_wants_no_more_work_and_counts_none(ledger: Ledger, final: State) -> None:
    ledger.begin(TWO, "one")
    ledger.begin(THREE, "two")
    found_missing(ledger, TWO, [0, 1])
    ledger.progress(THREE, "two", objects=1, size_bytes=1)
    ledger.advance("job", final)
    ended = ledger.status("job")

    assert ledger.begin(ONE, "one") == Begun(stopped=True)
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert ledger.progress(THREE, "two", objects=3, size_bytes=6)
    assert not ledger.account(TWO, outcome(TWO, [0, 1], failed=[1]))
    assert not ledger.account(HEAL_NONE, outcome(HEAL_NONE, [0], failed=[0]))
    assert not ledger.set_fields("job", published=7)

    assert ledger.status("job") == ended
    assert (ledger.failures("job"), places(ledger, "failed"), ledger.failed_by_class("job")) == ([], [], {})


@pytest.mark.parametrize("final", FINAL)
def test_a_final_state_stays_with_its_reason_and_its_time(ledger: Ledger, final: State) -> None:
    assert ledger.advance("job", final, error="the reason")
    ended = ledger.status("job")

    for state in State:
        assert not ledger.advance("job", state, error="another reason", started_at=1.0, objects_total=99)

    assert ledger.status("job") == ended
    assert (ended.state, ended.error) == (final, "the reason")
    assert ended.ended_at >= ended.submitted_at


def test_a_step_that_comes_late_does_not_move_a_job_back(ledger: Ledger) -> None:
    assert ledger.advance("job", State.PLANNING, objects_total=99)
    assert ledger.advance("job", State.QUEUED, objects_total=99)
    status = ledger.status("job")

    assert status.state is State.COPYING
    assert status.objects_total == 6


def test_a_job_begins_when_it_is_first_planned(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())

    ledger.advance("job", State.PLANNING)
    began = ledger.status("job").started_at
    ledger.advance("job", State.PLANNING)

    assert began >= ledger.status("job").submitted_at
    assert ledger.status("job").started_at == began


def test_a_job_goes_back_from_committing_to_copying_to_heal_and_no_further(ledger: Ledger) -> None:
    ledger.advance("job", State.COMMITTING)
    ledger.advance("job", State.PLANNING)
    assert ledger.status("job").state is State.COMMITTING

    ledger.advance("job", State.COPYING)
    assert ledger.status("job").state is State.COPYING


def test_every_key_of_a_job_expires(ledger: Ledger, client: redis.Redis) -> None:
    ledger.begin(TWO, "one")
    found_missing(ledger, THREE, [1])
    ledger.progress(THREE, "two", objects=1, size_bytes=1)
    ledger.note_retry("job", "plan:2", 10)
    ledger.pause("job", paused=True)
    ledger.begin(THREE, "two")
    ledger.start_driving("job", "me")
    ledger.note_healing("job", 0, turn=1, batches=1)
    ledger.record_group("job", 0, {0: ["published"]})
    ledger.cancel("job")
    deliver(ledger, TWO, failed=[1])
    deliver(ledger, HEAL_NONE, failed=[0])
    ledger.release(TWO, "one", again_in_s=4)
    ledger.note_requeued("job", ["plan:0"])

    parts = (
        "", ":done:plan", ":done:heal-0-1", ":running", ":needed", ":failures", ":leases", ":holders", ":held",
        ":copied", ":failed", ":classes", ":groups", ":heals", ":driver",
    )  # fmt: skip
    found = {str(key) for key in client.scan_iter()} - {INDEX, OPEN}
    assert found == {f"{JOB}{part}" for part in parts}
    assert all(0 < client.ttl(key) <= 3600 for key in found)


PLAN_KEYS = [JOB, f"{JOB}:done:plan"]


@pytest.mark.parametrize(
    ("sign_of_life", "kept"),
    [
        (
            lambda ledger: ledger.begin(THREE, "two"),
            [*PLAN_KEYS, *(f"{JOB}:{part}" for part in ("begun", "leases", "holders"))],
        ),
        (
            lambda ledger: ledger.progress(THREE, "two", objects=1, size_bytes=1),
            [*PLAN_KEYS, *(f"{JOB}:{part}" for part in ("running", "leases", "holders"))],
        ),
        (
            lambda ledger: deliver(ledger, THREE),
            [
                *PLAN_KEYS,
                *(f"{JOB}:{part}" for part in ("needed", "failures", "copied", "failed", "classes", "running")),
            ],
        ),
        (
            lambda ledger: ledger.advance("job", State.COMMITTING),
            [
                *PLAN_KEYS,
                *(
                    f"{JOB}:{part}"
                    for part in (
                        "begun", "needed", "running", "failures", "copied", "failed", "classes", "leases",
                        "holders", "heals", "groups",
                    )
                ),
            ],
        ),
        (lambda ledger: ledger.set_fields("job", batches_handed=3), [JOB]),
    ],
    ids=["begin", "progress", "account", "advance", "note"],
)  # fmt: skip
def test_every_sign_of_life_keeps_a_job_and_what_is_done_of_it_from_expiring(
    ledger: Ledger, client: redis.Redis, sign_of_life: Callable[[Ledger], object], kept: list[str]
) -> None:
    ledger.begin(ONE, "one")
    found_missing(ledger, ONE, [0])
    ledger.progress(ONE, "one", objects=0, size_bytes=1)
    deliver(ledger, TWO, failed=[1])
    ledger.note_healing("job", 0, turn=1, batches=1)
    ledger.record_group("job", 0, {0: ["published"]})
    for key in client.scan_iter("snapferry:job:*"):
        client.expire(key, 60)

    sign_of_life(ledger)

    assert [key for key in kept if client.ttl(key) <= 3500] == []


def test_jobs_do_not_see_each_other(ledger: Ledger) -> None:
    ledger.create(request("other"))
    deliver(ledger, TWO, failed=[0])
    ledger.start_driving("job", "me")
    ledger.begin(THREE, "one")
    ledger.record_group("job", 0, {0: ["published"]})
    ledger.pause("job", paused=True)
    ledger.cancel("job")

    other = ledger.standing("other")
    assert counts(ledger.status("other")) == (0, 0, 0)
    assert (other.paused, other.cancelling, other.leased, other.held) == (False, False, 0, ())
    assert (ledger.groups("other"), ledger.bitmap("other", "failed")) == ({}, b"")
    assert ledger.start_driving("other", "me") == 1
    assert not ledger.begin(batch(0, 1, job_id="other"), "one").accounted
    assert ledger.begin(batch(2, 1, job_id="other"), "one").times == 1


def test_the_rows_of_a_group_are_kept_as_they_were_settled_last(ledger: Ledger) -> None:
    ledger.record_group("job", 0, {0: ["published", 3, 1.5, ""], 1: ["failed", 2, 0.0, "für 概要"]})
    ledger.record_group("job", 12, {2: ["failed", 1, 0.0, "no"]})
    ledger.record_group("job", 12, {2: ["failed", 1, 0.0, "no"], 10: ["published", 1, 0.0, ""]})

    assert ledger.groups("job") == {
        0: {0: ["published", 3, 1.5, ""], 1: ["failed", 2, 0.0, "für 概要"]},
        12: {2: ["failed", 1, 0.0, "no"], 10: ["published", 1, 0.0, ""]},
    }


def test_what_a_job_needs_no_longer_is_removed_at_its_end_and_what_is_wanted_afterwards_is_kept(
    ledger: Ledger, client: redis.Redis
) -> None:
    ledger.begin(ONE, "one")
    ledger.progress(ONE, "one", objects=0, size_bytes=50)
    deliver(ledger, TWO, failed=[1])
    deliver(ledger, THREE)
    for turn in (1, 2):
        ledger.note_healing("job", 0, turn=turn, batches=1)
        deliver(ledger, batch(0, 1, series=f"heal-0-{turn}"))
    ledger.note_healing("job", 4, turn=1, batches=1)
    deliver(ledger, batch(0, 1, series="heal-4-1", first=2))
    ledger.record_group("job", 0, {0: ["published"]})
    ledger.start_driving("job", "me")
    ledger.pause("job", paused=True)
    ledger.begin(batch(3, 1), "two")
    ledger.advance("job", State.FAILED, error="the reason")
    before = ledger.status("job")

    ledger.remove_working_keys("job")
    ledger.remove_working_keys("job")

    parts = ("", ":done:plan", ":failures", ":failed", ":classes", ":running")
    assert {str(key) for key in client.scan_iter("snapferry:job:*")} == {f"{JOB}{part}" for part in parts}
    after = ledger.status("job")
    assert {**vars(after), "workers": ()} == {**vars(before), "workers": ()}
    assert settled(after) == (5, 61)
    assert places(ledger, "failed") == [1]
    assert ledger.failed_by_class("job") == {"ObjectMissing": 1}
    assert ledger.unaccounted("job", PLAN, range(3)) == [2]
    assert len(ledger.failures("job")) == 1


@pytest.mark.parametrize("final", FINAL)
def test_a_job_is_open_until_it_ends_and_listed_until_its_record_is_gone(
    ledger: Ledger, client: redis.Redis, final: State
) -> None:
    ledger.create(request("other"))
    assert ledger.open_jobs() == ["job", "other"]
    assert list(ledger.job_ids()) == ["other", "job"]

    ledger.advance("job", final)

    assert ledger.open_jobs() == ["other"]
    ledger.forget("job")
    ledger.forget("other")
    assert list(ledger.job_ids()) == ["other", "job"]
    assert ledger.open_jobs() == ["other"]
    client.delete(JOB, "snapferry:job:other")
    ledger.forget("job")
    assert list(ledger.job_ids()) == ["other"]
    ledger.forget("other")
    assert (list(ledger.job_ids()), ledger.open_jobs()) == ([], [])


def many_jobs(ledger: Ledger, count: int) -> list[str]:
    """Create jobs one after the other; return their ids, the latest first."""
    found = []
    for number in range(count):
        ledger.create(request(f"job-{number:03}"))
        # The clock of a fast machine may stand still between two of them.
        ledger.client.zadd(INDEX, {f"job-{number:03}": number})
        found.insert(0, f"job-{number:03}")
    return found


def test_the_latest_of_many_jobs_comes_first(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    created = many_jobs(ledger, 250)

    assert list(ledger.job_ids()) == created


def test_jobs_that_are_forgotten_while_they_are_listed_hide_no_others(client: redis.Redis) -> None:
    """`Jobs.list` forgets those whose record is gone as it comes across them."""
    ledger = Ledger(client, expires_s=3600)
    created = many_jobs(ledger, 250)
    gone = set(created[:90])
    client.delete(*(f"snapferry:job:{job_id}" for job_id in gone))

    found: list[str] = []
    for job_id in ledger.job_ids():
        found.append(job_id)
        ledger.forget(job_id)

    assert [job_id for job_id in found if job_id not in gone] == created[90:]


def test_a_mark_is_taken_once_until_its_time_is_up(ledger: Ledger, client: redis.Redis) -> None:
    assert ledger.claim_mark("look:job", 20)
    assert not ledger.claim_mark("look:job", 20)
    assert ledger.claim_mark("look:other", 20)
    (key,) = client.keys("*look:job")
    assert 0 < client.ttl(key) <= 20

    client.delete(key)

    assert ledger.claim_mark("look:job", 20)


@pytest.fixture
def app(redis_url: str) -> Iterator[Celery]:
    """The real app on a real broker, of which the tests look at the queues."""
    app = make_fleet_app(Settings(broker_url=redis_url))
    yield app
    app.close()
    pools.reset()


def within_a_task(app: Celery, job_id: str, publish: Callable[[], None]) -> None:
    """Call *publish* as a task does whose root is the job."""
    task = app.tasks["snapferry.commit_snapshots"]
    task.push_request(id=str(uuid.uuid4()), root_id=job_id, args=(), kwargs={}, called_directly=False)
    _task_stack.push(task)
    try:
        publish()
    finally:
        _task_stack.pop()
        task.pop_request()


def new_job_id() -> str:
    return str(uuid.uuid4())


def batches_of(count: int) -> list[Batch]:
    return [Batch.of(number, {address(number): 1}, (number,)) for number in range(count)]


def test_a_job_that_waits_for_its_plan_is_in_the_queue_of_plans(
    app: Celery, ledger: Ledger, client: redis.Redis
) -> None:
    job_id = new_job_id()
    queue_plan(app, request(job_id))

    assert roots(client, PLAN_QUEUE) == [job_id]
    assert ledger.has_queued_task(PLAN_QUEUE, job_id)
    assert not ledger.has_queued_task(PLAN_QUEUE, new_job_id())
    assert not ledger.has_queued_task(COPY_QUEUE, job_id)


@pytest.mark.parametrize("inside", [False, True])
def test_a_look_at_a_job_is_of_the_job_wherever_it_is_queued(
    app: Celery, ledger: Ledger, client: redis.Redis, inside: bool
) -> None:
    """The reconciler has no task around it; a driver that cancels has one, maybe another job's."""
    job_id, other = new_job_id(), new_job_id()
    if inside:
        within_a_task(app, other, lambda: queue_drive(app, job_id, "why"))
    else:
        queue_drive(app, job_id, "why")

    assert roots(client, PLAN_QUEUE) == [job_id]
    assert ledger.has_queued_task(PLAN_QUEUE, job_id)
    assert not ledger.has_queued_task(PLAN_QUEUE, other)


@pytest.mark.parametrize("count", [1, 2, 90])
def test_a_job_whose_batches_wait_is_in_the_queue_of_copies(
    app: Celery, ledger: Ledger, client: redis.Redis, count: int
) -> None:
    job_id = new_job_id()
    within_a_task(
        app,
        job_id,
        lambda: queue_batches(
            app, request(job_id), batches_of(count), series=PLAN, of=count, snapshots="all"
        ),
    )

    assert roots(client, COPY_QUEUE) == [job_id] * count
    assert ledger.has_queued_task(COPY_QUEUE, job_id)
    assert not ledger.has_queued_task(COPY_QUEUE, new_job_id())
    assert not ledger.has_queued_task(PLAN_QUEUE, job_id)


def test_a_single_batch_behind_many_of_other_jobs_is_found(
    app: Celery, ledger: Ledger, client: redis.Redis
) -> None:
    first, busy, last = new_job_id(), new_job_id(), new_job_id()
    for job_id, count in ((first, 1), (busy, 75), (last, 1)):
        within_a_task(
            app,
            job_id,
            lambda job_id=job_id, count=count: queue_batches(
                app, request(job_id), batches_of(count), series=PLAN, of=count, snapshots="all"
            ),
        )

    assert [ledger.has_queued_task(COPY_QUEUE, job_id) for job_id in (first, busy, last)] == [True] * 3
    assert roots(client, COPY_QUEUE) == [first, *[busy] * 8, last, *[busy] * 67]
    for message in [waiting(client, COPY_QUEUE)[at] for at in (0, 9)]:
        client.lrem(lists(COPY_QUEUE)[step(Priority.NORMAL, 0)], 1, message)
    assert [ledger.has_queued_task(COPY_QUEUE, job_id) for job_id in (first, busy, last)] == [
        False,
        True,
        False,
    ]


def memory_of(client: redis.Redis, job_id: str) -> dict[str, int]:
    """Return how many bytes of Redis each key of a job takes."""
    return {
        str(key): int(client.memory_usage(key, samples=0) or 0)
        for key in client.scan_iter(f"snapferry:job:{job_id}*")
    }


def test_a_job_of_a_thousand_snapshots_takes_less_than_100_kb_of_redis(client: redis.Redis) -> None:
    """So that 1,000 such jobs, waiting or ended, fit in 100 MB."""
    ledger = Ledger(client, expires_s=3600)
    ids = [digest(b"snapshot %d" % number) for number in range(1000)]
    ledger.create(request(ids=ids))
    queued = memory_of(client, "job")

    random_ = random.Random(1)
    ledger.advance("job", State.PLANNING)
    plan = {"objects_total": 1_000_000, "bytes_total": 10**12, "batches_total": 1000}
    ledger.advance("job", State.COPYING, **plan, **freeze(ledger.spec("job"), Snapshots(ids, "." * len(ids))))
    ended_at = 1_800_000_000.0
    for index in range(len(ids)):
        deliver(ledger, batch(index, *[10**6] * 10, first=1000 * index))
        objects = int(random_.lognormvariate(6, 1.5)) + 1
        shared = random_.randrange(objects)
        present = random_.randrange(objects - shared + 1)
        size_bytes = objects * random_.randrange(1000, 500_000)
        ended_at += 3 * random_.random()
        row = [
            "published",
            objects,
            size_bytes,
            objects - shared - present,
            present,
            shared,
            0,
            round(ended_at, 3),
            "",
        ]
        ledger.record_group("job", index, {index: row})
    ledger.advance("job", State.DONE, **final_fields(ledger, "job"))
    ledger.remove_working_keys("job")
    done = memory_of(client, "job")

    assert sum(queued.values()) < 100_000, queued
    assert sum(done.values()) < 100_000, done


def test_a_worker_that_was_ended_holds_no_lease_and_its_batch_counts_as_begun_and_not_heard_of(
    ledger: Ledger,
) -> None:
    ledger.begin(TWO, "here-1-a#0@one@host")

    ledger.revoke_lease("job", "plan:0", "two@host")
    assert ledger.begin(TWO, "another").holder == "here-1-a#0@one@host", "it is not that worker's"

    ledger.revoke_lease("job", "plan:0", "one@host")
    assert ledger.standing("job").expired == ("plan:0",)
    assert ledger.begin(TWO, "another").times == 2, "what it left at the destination is looked for"
    ledger.revoke_lease("job", "plan:0", "one@host")
    assert ledger.standing("job").running == 1
    ledger.revoke_lease("job", "plan:7", "one@host")
    assert ledger.standing("job").running == 1


def test_a_worker_that_is_being_killed_cannot_renew_a_lease_that_is_over(ledger: Ledger) -> None:
    """A thread of it may beat once more before the process is gone."""
    ledger.begin(TWO, "here-1-a#0@one@host")
    ledger.revoke_lease("job", "plan:0", "one@host")

    ledger.progress(TWO, "here-1-a#0@one@host", objects=1, size_bytes=1)

    assert ledger.standing("job").expired == ("plan:0",)
    ledger.release(TWO, "here-1-a#0@one@host")
    assert ledger.begin(TWO, "another").times == 2, "what it left at the destination is looked for"


def queue_of(client: redis.Redis) -> dict[str, list[Any]]:
    return {name: client.lrange(name, 0, -1) for name in lists(COPY_QUEUE)}  # type: ignore[misc]


@pytest.mark.parametrize("priority", Priority)
def test_batches_that_wait_take_the_priority_that_their_job_is_given(
    app: Celery, ledger: Ledger, client: redis.Redis, priority: Priority
) -> None:
    job_id, other = new_job_id(), new_job_id()
    for each, before in ((other, Priority.HIGH), (job_id, Priority.NORMAL), (other, Priority.LOW)):
        asked = request(each).model_copy(update={"priority": before})
        ledger.create(asked)
        handing = partial(queue_batches, app, asked, batches_of(90), series=PLAN, of=90, snapshots="all")
        within_a_task(app, each, handing)
    before = waiting(client, COPY_QUEUE)
    of_job = [message for message in before if job_id in message]

    moved = ledger.prioritise(job_id, priority)

    after = waiting(client, COPY_QUEUE)
    assert moved == (State.QUEUED, 0 if priority is Priority.NORMAL else 90)
    assert ledger.spec(job_id).priority is priority
    assert ledger.status(job_id).priority == priority
    # Each is there once, in the order that it had among those of its job and of the others.
    assert [message for message in after if message in of_job] == of_job
    assert [message for message in after if message not in of_job] == [m for m in before if m not in of_job]
    assert Counter(after) == Counter(before)
    places = {m: name for name, messages in queue_of(client).items() for m in messages}
    assert {places[m] for m in of_job} == {lists(COPY_QUEUE)[step(priority, n)] for n in (0, 10, 64)}
    assert ledger.prioritise(job_id, priority) == (State.QUEUED, 0)


def test_a_task_that_waits_twice_is_moved_twice(app: Celery, ledger: Ledger, client: redis.Redis) -> None:
    job_id = new_job_id()
    ledger.create(request(job_id))
    handing = partial(queue_batches, app, request(job_id), batches_of(1), series=PLAN, of=1, snapshots="all")
    within_a_task(app, job_id, handing)
    (message,) = waiting(client, COPY_QUEUE)
    client.lpush(lists(COPY_QUEUE)[step(Priority.NORMAL, 0)], message)

    assert ledger.prioritise(job_id, Priority.LOW) == (State.QUEUED, 2)
    assert waiting(client, COPY_QUEUE) == [message, message]


def test_a_job_that_has_ended_keeps_its_priority_and_one_that_is_unknown_has_none(
    ledger: Ledger, client: redis.Redis
) -> None:
    ledger.create(request("ended"))
    ledger.advance("ended", State.FAILED)

    assert ledger.prioritise("ended", Priority.HIGH) == (State.FAILED, 0)
    assert ledger.status("ended").priority == "normal"
    with pytest.raises(UnknownJob):
        ledger.prioritise("nobody", Priority.HIGH)
    assert not client.exists("snapferry:job:nobody")
