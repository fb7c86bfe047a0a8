"""The ledger on a real Redis: counted once, true progress, and an end that stays the end."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import ValidationError

from stores.hashing import digest
from stores.manifest import LARGEST_PLANNED_BYTES
from tests.property.strategies import machine
from workers import ledger as ledger_module
from workers.ledger import LEASE_S, MAX_STEPS, PLAN, Begun, JobStatus, Ledger, State, UnknownJob
from workers.messages import BatchMessage, JobRequest, StoreRef
from workers.transfer import BatchOutcome, Failure

HERE, THERE = StoreRef(url="/a"), StoreRef(url="/b")
ADDRESS = digest(b"a")

ON_THE_WAY = [State.PLANNING, State.COPYING, State.COMMITTING]
FINAL = [State.DONE, State.FAILED, State.CANCELLED]


def request(job_id: str = "job") -> JobRequest:
    return JobRequest(
        job_id=job_id,
        snapshot_id=ADDRESS,
        concurrency=None,
        source=HERE,
        destination=THERE,
        batch_objects=10,
        batch_bytes=100,
    )


def batch(number: int, *sizes: int, series: str = PLAN, job_id: str = "job") -> BatchMessage:
    return BatchMessage(
        job_id=job_id, series=series, number=number, source=HERE, destination=THERE,
        addresses=ADDRESS * len(sizes), sizes=sizes,
    )  # fmt: skip


def failures(count: int) -> list[Failure]:
    return [
        Failure(ADDRESS, "ObjectMissing", "/a", f"failure {number}", transient=False)
        for number in range(count)
    ]


def outcome(copied: int = 0, present: int = 0, failed: int = 0, bytes_copied: int = 0) -> BatchOutcome:
    return BatchOutcome(copied, present, bytes_copied, failures=failures(failed))


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    """A ledger with one job that is being copied: three batches of 2, 3 and 1 objects, 5, 6 and 100 bytes."""
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())
    ledger.plan("job", objects=6, size_bytes=111, batches=3)
    return ledger


TWO, THREE, ONE = batch(0, 2, 3), batch(1, 1, 2, 3), batch(2, 100)


def counts(status: JobStatus) -> tuple[int, int, int]:
    return status.copied, status.present, status.failed


def settled(status: JobStatus) -> tuple[int, int]:
    return status.objects_settled, status.bytes_settled


def test_a_new_job_waits_and_remembers_what_was_asked_for(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)

    assert ledger.create(request())

    status = ledger.status("job")
    assert ledger.request("job") == request()
    assert (status.state, status.snapshot_id, status.job_id) == (State.QUEUED, ADDRESS, "job")
    assert status.submitted_at > 0
    assert (status.started_at, status.ended_at) == (0.0, 0.0)


def test_a_job_is_created_once(ledger: Ledger) -> None:
    other = request().model_copy(update={"snapshot_id": digest(b"other")})

    assert not ledger.create(other)
    assert ledger.request("job") == request()
    assert ledger.status("job").state is State.COPYING


def test_an_unknown_job_is_an_error_and_no_question_or_step_makes_one(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)

    with pytest.raises(UnknownJob):
        ledger.status("job")
    with pytest.raises(UnknownJob):
        ledger.request("job")
    assert not ledger.advance("job", State.COPYING)
    assert not ledger.plan("job", objects=1, size_bytes=1, batches=1)
    assert not ledger.cancelled("job")
    ledger.cancel("job")
    assert ledger.unaccounted("job", 2) == [0, 1]
    assert client.keys() == []


def test_a_batch_that_ends_after_its_job_expired_does_not_bring_half_a_job_back(
    ledger: Ledger, client: redis.Redis
) -> None:
    client.flushall()

    assert ledger.begin(TWO, "one").stopped
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert not ledger.account(TWO, outcome(copied=2, failed=1))

    with pytest.raises(UnknownJob):
        ledger.status("job")
    assert client.keys() == []


def test_a_batch_whose_accounting_breaks_off_is_not_taken_for_done(
    ledger: Ledger, client: redis.Redis
) -> None:
    """Its mark is set last: what is counted twice is a wrong number, what is never copied is a lost object."""
    client.set("snapferry:job:job:failures", "not a list")

    with pytest.raises(redis.ResponseError):
        ledger.account(TWO, outcome(copied=1, failed=1))

    assert ledger.unaccounted("job", 3) == [0, 1, 2]
    assert not ledger.begin(TWO, "one").accounted
    client.delete("snapferry:job:job:failures")
    assert ledger.account(TWO, outcome(copied=1, failed=1))
    assert ledger.unaccounted("job", 3) == [1, 2]


def test_a_request_of_another_version_is_refused(ledger: Ledger, client: redis.Redis) -> None:
    client.hset(
        "snapferry:job:job", "request", request().model_dump_json().replace('"version":1', '"version":2')
    )

    with pytest.raises(ValidationError):
        ledger.request("job")


def test_a_batch_is_counted_once_however_often_it_is_delivered(ledger: Ledger) -> None:
    assert ledger.account(TWO, outcome(copied=2, bytes_copied=5))
    assert not ledger.account(TWO, outcome(present=2))
    assert not ledger.account(TWO, outcome(failed=2))

    status = ledger.status("job")
    assert counts(status) == (2, 0, 0)
    assert (status.batches_done, status.bytes_copied, settled(status)) == (1, 5, (2, 5))
    assert ledger.failures("job") == []


def test_of_many_deliveries_at_the_same_time_one_is_counted(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        counted = list(
            pool.map(lambda _: ledger.account(THREE, outcome(copied=1, present=1, failed=1)), range(32))
        )

    assert sorted(counted) == [False] * 31 + [True]
    assert counts(ledger.status("job")) == (1, 1, 1)
    assert len(ledger.failures("job")) == 1


def test_when_all_batches_are_accounted_for_progress_equals_the_plan(ledger: Ledger) -> None:
    for message in (TWO, THREE, ONE):
        ledger.account(message, outcome(copied=len(message.sizes), bytes_copied=7))

    status = ledger.status("job")
    assert settled(status) == (status.objects_total, status.bytes_total) == (6, 111)
    assert status.batches_done == status.batches_total == 3
    assert status.bytes_copied == 21
    assert ledger.unaccounted("job", 3) == []


def test_the_batches_that_nobody_accounted_for_are_known_by_number(ledger: Ledger) -> None:
    assert ledger.unaccounted("job", 3) == [0, 1, 2]

    ledger.account(THREE, outcome(copied=3))
    ledger.account(batch(0, 1, series="heal-1"), outcome(copied=1))

    assert ledger.unaccounted("job", 3) == [0, 2]
    assert ledger.unaccounted("job", 0) == []


def test_progress_inside_a_batch_counts_until_the_batch_is_accounted_for(ledger: Ledger) -> None:
    ledger.progress(TWO, "one", objects=1, size_bytes=2)
    assert settled(ledger.status("job")) == (1, 2)

    ledger.account(TWO, outcome(copied=2))
    assert settled(ledger.status("job")) == (2, 5)


def test_another_delivery_of_a_batch_does_not_take_progress_back_or_count_twice(ledger: Ledger) -> None:
    ledger.progress(THREE, "one", objects=2, size_bytes=5)
    ledger.progress(THREE, "one", objects=1, size_bytes=1)
    assert settled(ledger.status("job")) == (2, 5)

    ledger.account(THREE, outcome(copied=3))
    ledger.progress(THREE, "one", objects=2, size_bytes=5)
    assert settled(ledger.status("job")) == (3, 6)


def test_what_is_healed_is_no_progress_of_the_plan(ledger: Ledger) -> None:
    heal = batch(0, 50, 50, series="heal-1")
    ledger.progress(heal, "one", objects=1, size_bytes=50)
    ledger.account(heal, outcome(copied=2, bytes_copied=100))

    status = ledger.status("job")
    assert settled(status) == (0, 0)
    assert (status.healed, status.batches_done, status.bytes_copied) == (2, 0, 100)


def test_sums_of_many_large_sizes_are_exact(ledger: Ledger) -> None:
    large = batch(0, *[2**48] * 1000)

    assert ledger.account(large, outcome(copied=1000, bytes_copied=2**53 - 1))

    status = ledger.status("job")
    assert (status.bytes_settled, status.bytes_copied) == (1000 * 2**48, 2**53 - 1)


def test_progress_inside_a_batch_of_the_largest_objects_is_exact(ledger: Ledger) -> None:
    """The script counts in floating point, which is exact up to 2**53."""
    largest = 1000 * LARGEST_PLANNED_BYTES - 1
    assert largest < 2**53

    for size_bytes in (1, largest, largest - 1):
        ledger.progress(THREE, "one", objects=1, size_bytes=size_bytes)

    assert settled(ledger.status("job")) == (1, largest)
    ledger.progress(THREE, "one", objects=1, size_bytes=2**53 - 1)
    assert settled(ledger.status("job")) == (1, 2**53 - 1)


@pytest.mark.parametrize("copied", [0, 1, 3])
def test_an_object_that_could_not_be_healed_is_failed_and_no_longer_copied_or_present(
    ledger: Ledger, copied: int
) -> None:
    ledger.account(THREE, outcome(copied=copied, present=3 - copied))

    ledger.account(batch(0, 1, 2, series="heal-1"), outcome(failed=2))

    status = ledger.status("job")
    assert sum(counts(status)) == 3
    assert status.failed == 2
    assert min(counts(status)) >= 0


def test_what_another_delivery_copied_counts_as_copied_though_this_one_found_it_present(
    ledger: Ledger,
) -> None:
    """The first delivery copied two of three objects and died; the second found those and copied the third."""
    ledger.need(THREE, objects=3, size_bytes=6)
    ledger.need(THREE, objects=1, size_bytes=3)

    ledger.account(THREE, BatchOutcome(copied=1, present=2, bytes_copied=3, needed_bytes=3))

    status = ledger.status("job")
    assert counts(status) == (3, 0, 0)
    assert status.bytes_copied == 6


def test_a_batch_that_found_all_present_and_was_delivered_once_copied_nothing(ledger: Ledger) -> None:
    ledger.need(THREE, objects=0, size_bytes=0)

    ledger.account(THREE, outcome(present=3))

    assert counts(ledger.status("job")) == (0, 3, 0)


def test_failed_objects_are_kept_with_all_that_is_known_of_them(ledger: Ledger) -> None:
    failure = Failure(ADDRESS, "AccessDenied", "s3://bucket", 'no "permission" für 概要', transient=False)

    ledger.account(ONE, BatchOutcome(failures=[failure]))

    assert ledger.failures("job") == [failure]


def test_the_list_of_failures_is_bounded_and_their_count_is_exact(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, client: redis.Redis
) -> None:
    monkeypatch.setattr(ledger_module, "FAILURES_KEPT", 7)

    for number in range(4):
        assert ledger.account(batch(number, *[1] * 5), outcome(failed=5))
    ledger.account(batch(9, *[1] * 50), outcome(failed=50))

    assert ledger.status("job").failed == 70
    assert [failure.detail for failure in ledger.failures("job")] == [
        f"failure {n}" for n in [0, 1, 2, 3, 4, 0, 1]
    ]


def test_a_batch_of_failures_only_fits_into_one_script_call(ledger: Ledger) -> None:
    everything = batch(0, *[1] * 10_000)

    assert ledger.account(everything, outcome(failed=10_000))

    assert ledger.status("job").failed == 10_000
    assert len(ledger.failures("job")) == ledger_module.FAILURES_KEPT


def test_begins_are_counted_until_the_batch_is_accounted_for(ledger: Ledger) -> None:
    """Each beginning is that of a worker whose predecessor is known to be dead."""
    holders = ["one", "two", "three"]
    times = [
        ledger.begin(TWO, holder, instead_of=dead).times
        for holder, dead in zip(holders, ["", *holders], strict=False)
    ]
    assert times == [1, 2, 3]
    assert ledger.begin(THREE, "one").times == 1
    assert not ledger.begin(batch(0, 1, series="heal-1"), "one").accounted

    ledger.account(TWO, outcome(copied=2))

    assert ledger.begin(TWO, "one").accounted
    assert not ledger.begin(THREE, "one").accounted


def test_a_batch_that_is_begun_belongs_to_its_holder_and_to_no_one_else(ledger: Ledger) -> None:
    assert ledger.begin(TWO, "one") == Begun(accounted=False, stopped=False, holder="", times=1)

    assert ledger.begin(TWO, "two") == Begun(accounted=False, stopped=False, holder="one", times=0)
    assert ledger.begin(TWO, "two", instead_of="three").holder == "one"
    assert ledger.begin(THREE, "two").holder == ""
    assert ledger.begin(batch(0, 1, series="heal-1"), "two").holder == ""


def test_the_lease_of_a_dead_holder_is_taken_over_and_its_beginning_stays_counted(ledger: Ledger) -> None:
    ledger.begin(TWO, "dead")

    assert ledger.begin(TWO, "two", instead_of="dead") == Begun(
        accounted=False, stopped=False, holder="", times=2
    )

    assert ledger.begin(TWO, "three", instead_of="dead").holder == "two"


def test_a_lease_that_is_given_back_leaves_no_beginning_behind(ledger: Ledger) -> None:
    for holder in ("one", "two", "three"):
        assert ledger.begin(TWO, holder).times == 1
        ledger.release(TWO, holder)


def test_only_the_holder_can_give_a_lease_back_and_only_once(ledger: Ledger) -> None:
    ledger.begin(TWO, "dead")
    ledger.begin(TWO, "one", instead_of="dead")

    ledger.release(TWO, "dead")
    assert ledger.begin(TWO, "two").holder == "one"
    ledger.release(TWO, "one")
    ledger.release(TWO, "one")

    assert ledger.begin(TWO, "two").times == 2


def test_a_lease_runs_out_unless_its_holder_reports(ledger: Ledger, client: redis.Redis) -> None:
    ledger.begin(TWO, "one")
    (lease,) = client.keys("*lease*")
    assert 0 < client.ttl(lease) <= LEASE_S

    client.expire(lease, 5)
    ledger.progress(TWO, "another", objects=0, size_bytes=0)
    assert client.ttl(lease) <= 5
    ledger.progress(TWO, "one", objects=0, size_bytes=0)
    assert 5 < client.ttl(lease) <= LEASE_S

    client.delete(lease)
    assert ledger.begin(TWO, "two").times == 2
    ledger.progress(TWO, "one", objects=0, size_bytes=0)
    assert ledger.begin(TWO, "three").holder == "two"


def test_a_step_that_never_ends_is_begun_a_bounded_number_of_times(ledger: Ledger) -> None:
    assert [ledger.begin_step("job", "plan") for _ in range(MAX_STEPS)] == [True] * MAX_STEPS
    assert not ledger.begin_step("job", "plan")
    assert not ledger.begin_step("job", "plan")
    assert ledger.begin_step("job", "commit")
    assert ledger.begin_step("other", "plan")

    ledger.end_step("job", "plan")

    assert ledger.begin_step("job", "plan")


def test_a_step_that_ends_may_be_begun_for_ever(ledger: Ledger) -> None:
    for _ in range(2 * MAX_STEPS):
        assert ledger.begin_step("job", "commit")
        ledger.end_step("job", "commit")


def test_a_cancel_is_seen_by_every_worker_and_does_not_end_the_job_by_itself(ledger: Ledger) -> None:
    assert not ledger.cancelled("job")
    assert not ledger.progress(TWO, "one", objects=1, size_bytes=1)

    ledger.cancel("job")

    assert ledger.cancelled("job")
    assert ledger.begin(TWO, "one") == Begun(accounted=False, stopped=True, holder="", times=0)
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert ledger.account(TWO, outcome(copied=2))
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert ledger.status("job").state is State.COPYING


@pytest.mark.parametrize("final", FINAL)
def test_a_job_that_has_ended_wants_no_more_work_and_counts_none(ledger: Ledger, final: State) -> None:
    ledger.begin(TWO, "one")
    ledger.begin(THREE, "two")
    ledger.need(TWO, objects=2, size_bytes=5)
    ledger.progress(THREE, "two", objects=1, size_bytes=1)
    ledger.advance("job", final)
    ended = ledger.status("job")

    assert ledger.begin(ONE, "one") == Begun(accounted=False, stopped=True, holder="", times=0)
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert ledger.progress(THREE, "two", objects=3, size_bytes=6)
    assert not ledger.account(TWO, outcome(copied=1, failed=1, bytes_copied=5))
    assert not ledger.account(batch(0, 1, series="heal-1"), outcome(failed=1))

    assert ledger.status("job") == ended
    assert ledger.failures("job") == []


@pytest.mark.parametrize("final", FINAL)
def test_a_final_state_stays_with_its_reason_and_its_time(ledger: Ledger, final: State) -> None:
    assert ledger.advance("job", final, error="the reason")
    ended = ledger.status("job")

    for state in State:
        assert not ledger.advance("job", state, error="another reason", started_at=1.0)
    assert not ledger.plan("job", objects=99, size_bytes=99, batches=99)

    assert ledger.status("job") == ended
    assert (ended.state, ended.error) == (final, "the reason")
    assert ended.ended_at >= ended.submitted_at


def test_a_step_that_comes_late_does_not_move_a_job_back(ledger: Ledger) -> None:
    ledger.advance("job", State.PLANNING, started_at=99.0)
    status = ledger.status("job")

    assert status.state is State.COPYING
    assert status.started_at != 99.0


def test_a_job_goes_back_from_committing_to_copying_to_heal_and_no_further(ledger: Ledger) -> None:
    ledger.advance("job", State.COMMITTING)
    ledger.advance("job", State.PLANNING)
    assert ledger.status("job").state is State.COMMITTING

    ledger.advance("job", State.COPYING)
    assert ledger.status("job").state is State.COPYING


def test_every_key_of_a_job_expires(ledger: Ledger, client: redis.Redis) -> None:
    ledger.begin(TWO, "one")
    ledger.begin_step("job", "plan")
    ledger.need(THREE, objects=1, size_bytes=1)
    ledger.progress(THREE, "two", objects=1, size_bytes=1)
    ledger.cancel("job")
    ledger.account(TWO, outcome(copied=1, failed=1))
    ledger.account(batch(0, 1, series="heal-1"), outcome(failed=1))

    parts = ("", ":done:plan", ":done:heal-1", ":running", ":begun", ":needed", ":failures", ":lease:plan:0")
    assert set(client.scan_iter()) == {f"snapferry:job:job{part}" for part in parts}
    assert all(0 < client.ttl(key) <= 3600 for key in client.scan_iter())


PLAN_KEYS = ["snapferry:job:job", "snapferry:job:job:done:plan"]


@pytest.mark.parametrize(
    ("sign_of_life", "kept"),
    [
        (lambda ledger: ledger.begin(THREE, "two"), [*PLAN_KEYS, "snapferry:job:job:begun"]),
        (
            lambda ledger: ledger.progress(THREE, "two", objects=1, size_bytes=1),
            [*PLAN_KEYS, "snapferry:job:job:running"],
        ),
        (
            lambda ledger: ledger.account(THREE, outcome(copied=3)),
            [*PLAN_KEYS, "snapferry:job:job:needed", "snapferry:job:job:failures"],
        ),
        (
            lambda ledger: ledger.advance("job", State.COMMITTING),
            [
                *PLAN_KEYS,
                *(f"snapferry:job:job:{part}" for part in ("begun", "needed", "running", "failures")),
            ],
        ),
    ],
    ids=["begin", "progress", "account", "advance"],
)
def test_every_sign_of_life_keeps_a_job_and_what_is_done_of_it_from_expiring(
    ledger: Ledger, client: redis.Redis, sign_of_life: Callable[[Ledger], object], kept: list[str]
) -> None:
    ledger.begin(ONE, "one")
    ledger.need(ONE, objects=1, size_bytes=1)
    ledger.progress(ONE, "one", objects=0, size_bytes=1)
    ledger.account(TWO, outcome(copied=1, failed=1))
    for key in client.scan_iter():
        client.expire(key, 60)

    sign_of_life(ledger)

    assert [key for key in kept if client.ttl(key) <= 3500] == []


def test_jobs_do_not_see_each_other(ledger: Ledger) -> None:
    ledger.create(request("other"))
    ledger.account(TWO, outcome(copied=2))
    ledger.cancel("job")

    assert counts(ledger.status("other")) == (0, 0, 0)
    assert not ledger.cancelled("other")
    assert not ledger.begin(batch(0, 1, job_id="other"), "one").accounted
    assert not ledger.begin(batch(2, 1, job_id="other"), "one").stopped


SIZES = [(1, 2), (0, 0, 0), (100,), (5, 5, 5, 5), (7, 0)]
BATCHES = list(range(len(SIZES)))
OBJECTS, BYTES = sum(map(len, SIZES)), sum(map(sum, SIZES))
holders = st.sampled_from(["one", "two"])


class Deliveries(RuleBasedStateMachine):
    """One job, whose tasks are delivered twice, late, in any order and partly; a plain model keeps the books."""

    client: redis.Redis

    @initialize()
    def start(self) -> None:
        self.job_id = uuid.uuid4().hex
        self.ledger = Ledger(self.client, expires_s=3600)
        self.ledger.create(request(self.job_id))
        self.ledger.plan(self.job_id, objects=OBJECTS, size_bytes=BYTES, batches=len(BATCHES))
        self.accounted: set[int] = set()
        self.failed = 0
        self.heals = 0
        self.begun = dict.fromkeys(BATCHES, 0)
        self.holders = dict.fromkeys(BATCHES, "")
        self.cancelled = False
        self.final: JobStatus | None = None
        self.before = self.ledger.status(self.job_id)

    def message(self, number: int) -> BatchMessage:
        return batch(number, *SIZES[number], job_id=self.job_id)

    @property
    def stopped(self) -> bool:
        return self.cancelled or self.final is not None

    @rule(number=st.sampled_from(BATCHES), holder=holders, dead=st.one_of(st.just(""), holders))
    def begin(self, number: int, holder: str, dead: str) -> None:
        begun = self.ledger.begin(self.message(number), holder, instead_of=dead)

        held = self.holders[number]
        if number in self.accounted:
            assert begun == Begun(accounted=True, stopped=False, holder="", times=0)
        elif self.stopped:
            assert begun == Begun(accounted=False, stopped=True, holder="", times=0)
        elif held not in ("", holder, dead):
            assert begun == Begun(accounted=False, stopped=False, holder=held, times=0)
        else:
            self.begun[number] += 1
            self.holders[number] = holder
            assert begun == Begun(accounted=False, stopped=False, holder="", times=self.begun[number])

    @rule(number=st.sampled_from(BATCHES), holder=holders)
    def release(self, number: int, holder: str) -> None:
        self.ledger.release(self.message(number), holder)

        if self.holders[number] == holder:
            self.holders[number] = ""
            self.begun[number] -= 1

    @rule()
    def cancel(self) -> None:
        self.ledger.cancel(self.job_id)
        self.cancelled = True

    @rule(number=st.sampled_from(BATCHES), data=st.data())
    def find_missing(self, number: int, data: st.DataObject) -> None:
        sizes = SIZES[number]
        missing = data.draw(st.integers(0, len(sizes)))
        self.ledger.need(self.message(number), objects=missing, size_bytes=sum(sizes[:missing]))

    @rule(number=st.sampled_from(BATCHES), holder=holders, data=st.data())
    def report(self, number: int, holder: str, data: st.DataObject) -> None:
        sizes = SIZES[number]
        stop = self.ledger.progress(
            self.message(number),
            holder,
            objects=data.draw(st.integers(0, len(sizes))),
            size_bytes=data.draw(st.integers(0, sum(sizes))),
        )

        assert stop == self.stopped

    @rule(number=st.sampled_from(BATCHES), data=st.data())
    def account(self, number: int, data: st.DataObject) -> None:
        sizes = SIZES[number]
        copied = data.draw(st.integers(0, len(sizes)))
        failed = data.draw(st.integers(0, len(sizes) - copied))
        present = len(sizes) - copied - failed

        counted = self.ledger.account(self.message(number), outcome(copied, present, failed, 3 * copied))

        assert counted == (number not in self.accounted and self.final is None)
        if counted:
            self.accounted.add(number)
            self.failed += failed

    @precondition(lambda self: self.accounted and not self.failed)
    @rule(data=st.data(), again=st.booleans())
    def heal(self, data: st.DataObject, again: bool) -> None:
        """Objects that were accounted for and vanished: of this heal some are copied again and some fail."""
        most = sum(len(SIZES[number]) for number in self.accounted)
        copied = data.draw(st.integers(0, most))
        failed = data.draw(st.integers(0, most - copied))
        self.heals += 1
        message = batch(0, *[1] * (copied + failed), series=f"heal-{self.heals}", job_id=self.job_id)
        if not message.sizes:
            return

        counted = self.ledger.account(message, outcome(copied, 0, failed))

        assert counted == (self.final is None)
        if again:
            assert not self.ledger.account(message, outcome(copied, 0, failed))
        self.failed += failed if counted else 0

    @rule(state=st.sampled_from(ON_THE_WAY))
    def step(self, state: State) -> None:
        assert self.ledger.advance(self.job_id, state) == (self.final is None)

    @rule(state=st.sampled_from(FINAL), words=st.sampled_from(["one", "two"]))
    def end(self, state: State, words: str) -> None:
        assert self.ledger.advance(self.job_id, state, error=words) == (self.final is None)
        self.final = self.final or self.ledger.status(self.job_id)

    @invariant()
    def progress_never_goes_back_and_never_exceeds_the_plan(self) -> None:
        now, before = self.ledger.status(self.job_id), self.before
        self.before = now

        assert before.objects_settled <= now.objects_settled <= OBJECTS == now.objects_total
        assert before.bytes_settled <= now.bytes_settled <= BYTES == now.bytes_total
        assert before.batches_done <= now.batches_done == len(self.accounted)

    @invariant()
    def every_object_of_an_accounted_batch_is_counted_in_one_place(self) -> None:
        status = self.ledger.status(self.job_id)

        assert sum(counts(status)) == sum(len(SIZES[number]) for number in self.accounted)
        assert min(counts(status)) >= 0
        assert status.failed == self.failed == len(self.ledger.failures(self.job_id))

    @invariant()
    def what_is_not_accounted_for_is_known(self) -> None:
        missing = self.ledger.unaccounted(self.job_id, len(BATCHES))

        assert missing == [number for number in BATCHES if number not in self.accounted]
        if not missing:
            assert settled(self.ledger.status(self.job_id)) == (OBJECTS, BYTES)

    @invariant()
    def the_end_stays_the_end(self) -> None:
        if self.final is not None:
            assert self.ledger.status(self.job_id) == self.final


def test_the_books_are_right_whatever_is_delivered_when_and_how_often(
    client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No lease runs out on its own here, however slow the machine is."""
    monkeypatch.setattr(ledger_module, "LEASE_S", 3600)
    Deliveries.client = client

    run_state_machine_as_test(Deliveries, settings=machine)
