"""Grants of the limits, by a clock of the test's own: what many takers get of one limit, in one Redis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from snapferry.workers.broker.connection import client
from snapferry.workers.ledger import Ledger
from snapferry.workers.ledger.keys import LIMIT_FIELDS, job_key
from snapferry.workers.limits.limit_store import (
    HELD_S,
    LimitKind,
    LimitScope,
    LimitStore,
    StoreLimits,
    store_id,
    store_key,
)
from snapferry.workers.messages import JobSpec, StoreRef
from tests.property.strategies import examples

STORE = "s3://bucket/store"
BEGAN = 1_700_000_000.0

# What a pause entitles to, in seconds' worth, and the longest that a grant is waited for.
BURST_S = 0.1
QUANTUM_S = 0.1


@pytest.fixture
def limit_store(redis_url: str) -> Iterator[LimitStore]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield LimitStore(client)


def limit_job(limit_store: LimitStore, job: str, **limits: int) -> None:
    limit_store._redis.hset(job_key(job), "state", "copying")
    assert limit_store.set_job_limits(job, limits) == "copying"


def scope(job: str = "j", side: str = "source", kind: LimitKind = LimitKind.BYTES) -> LimitScope:
    return LimitScope(job, side, STORE, kind)


class Taker:
    """A process that uses what it is granted at its own speed, and asks again when it is used up."""

    def __init__(
        self, limit_store: LimitStore, scope: LimitScope, name: str, *, speed: float, wants: int
    ) -> None:
        self.limit_store, self.scope, self.name = limit_store, scope, name
        self.speed, self.wants = speed, wants
        self.next = BEGAN
        self.used: list[tuple[float, int]] = []

    def step(self) -> None:
        grant = self.limit_store.take(self.scope, self.name, self.wants, now=self.next)
        if grant.amount:
            self.used.append((self.next + grant.wait_s, grant.amount))
        self.next += grant.wait_s + max(grant.amount / self.speed, 0.0001)

    def total(self, begin: float, end: float) -> int:
        return sum(amount for at, amount in self.used if begin <= at - BEGAN < end)


def run(takers: list[Taker], seconds: float) -> None:
    while (first := min(takers, key=lambda taker: taker.next)).next < BEGAN + seconds:
        first.step()


def test_without_a_limit_everything_is_granted_at_once(limit_store: LimitStore) -> None:
    grant = limit_store.take(scope(), "p", 10**9)

    assert (grant.amount, grant.wait_s, grant.limited) == (10**9, 0, False)


@pytest.mark.parametrize("takers", [1, 4, 32])
@pytest.mark.parametrize("rate", [3, 1000, 10_000_000])
def test_takers_together_get_the_limit_and_no_more(limit_store: LimitStore, takers: int, rate: int) -> None:
    limit_job(limit_store, "j", rate=rate)
    crew = [Taker(limit_store, scope(), f"p{n}", speed=rate, wants=rate) for n in range(takers)]

    run(crew, 10)

    got = sum(taker.total(0, 10) for taker in crew)
    assert rate * 10 * 0.97 - 1 <= got <= rate * (10 + BURST_S + QUANTUM_S) + 1


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rate=st.integers(1, 10**8),
    asks=st.lists(
        st.tuples(st.floats(0, 3), st.integers(0, 7), st.integers(1, 10**9)), min_size=1, max_size=40
    ),
)
def test_never_more_than_the_limit_times_the_time_and_one_quantum(
    limit_store: LimitStore, rate: int, asks: list[tuple[float, int, int]]
) -> None:
    limit_store._redis.flushall()
    limit_job(limit_store, "j", rate=rate)
    now, usable = BEGAN, []
    for pause, taker, wanted in asks:
        now += pause
        grant = limit_store.take(scope(), f"p{taker}", wanted, now=now)
        assert grant.limited
        assert 0 <= grant.amount <= max(1, min(wanted, rate * QUANTUM_S))
        assert 0 <= grant.wait_s <= 0.5
        if grant.amount:
            usable.append((now + grant.wait_s, grant.amount))

    usable.sort()
    for first in range(len(usable)):
        for last in range(first, len(usable)):
            got = sum(amount for _, amount in usable[first : last + 1])
            seconds = usable[last][0] - usable[first][0]
            # The times are those of today in seconds: as floats, they are exact to a quarter of a microsecond.
            assert got <= rate * (seconds + BURST_S + 1e-6) + usable[last][1] + 1


def test_a_pause_saves_up_a_tenth_of_a_second_and_no_more(limit_store: LimitStore) -> None:
    limit_job(limit_store, "j", rate=1000)
    crew = [Taker(limit_store, scope(), f"p{n}", speed=10**6, wants=1000) for n in range(4)]
    run(crew, 2)
    for taker in crew:
        taker.next = BEGAN + 3600

    run(crew, 3601)

    got = sum(taker.total(3600, 3600.01) for taker in crew)
    assert got <= 1000 * (BURST_S + 2 * QUANTUM_S) + 1


def test_two_jobs_get_equal_parts_of_a_stores_limit_whatever_their_workers(limit_store: LimitStore) -> None:
    limit_store.set_store_limits(STORE, {"rate": 1_000_000})
    many = [Taker(limit_store, scope("many"), f"m{n}", speed=10**7, wants=10**6) for n in range(7)]
    one = Taker(limit_store, scope("one"), "o", speed=10**7, wants=10**6)

    run([*many, one], 10)

    of_many, of_one = sum(taker.total(1, 10) for taker in many), one.total(1, 10)
    assert of_many + of_one == pytest.approx(9_000_000, rel=0.05)
    assert of_one == pytest.approx(of_many, rel=0.2)


def test_what_one_job_leaves_the_other_takes(limit_store: LimitStore) -> None:
    limit_store.set_store_limits(STORE, {"rate": 1_000_000})
    greedy = [Taker(limit_store, scope("greedy"), f"g{n}", speed=10**7, wants=10**6) for n in range(3)]
    modest = Taker(limit_store, scope("modest"), "m", speed=100_000, wants=5_000)

    run([*greedy, modest], 10)

    of_greedy, of_modest = sum(taker.total(1, 10) for taker in greedy), modest.total(1, 10)
    assert of_greedy + of_modest == pytest.approx(9_000_000, rel=0.05)
    assert of_modest >= 100_000 * 9 * 0.6


def test_a_job_keeps_to_its_own_limit_and_to_the_stores(limit_store: LimitStore) -> None:
    limit_store.set_store_limits(STORE, {"rate": 1_000_000})
    limit_job(limit_store, "slow", rate=200_000)
    slow = [Taker(limit_store, scope("slow"), f"s{n}", speed=10**7, wants=10**6) for n in range(2)]
    free = Taker(limit_store, scope("free"), "f", speed=10**7, wants=10**6)

    run([*slow, free], 10)

    of_slow = sum(taker.total(1, 10) for taker in slow)
    assert of_slow == pytest.approx(200_000 * 9, rel=0.05)
    assert free.total(1, 10) == pytest.approx(800_000 * 9, rel=0.1)


def test_a_changed_limit_holds_at_once(limit_store: LimitStore) -> None:
    limit_job(limit_store, "j", rate=1)
    crew = [Taker(limit_store, scope(), f"p{n}", speed=10**7, wants=10**6) for n in range(4)]
    run(crew, 3)
    limit_job(limit_store, "j", rate=1_000_000)
    run(crew, 6)
    limit_job(limit_store, "j", rate=10_000)
    run(crew, 9)

    # Within two seconds of each change.
    assert sum(taker.total(5, 6) for taker in crew) == pytest.approx(1_000_000, rel=0.15)
    assert sum(taker.total(7, 9) for taker in crew) == pytest.approx(20_000, rel=0.15)


def test_of_bytes_the_jobs_limit_counts_those_read_from_the_source(limit_store: LimitStore) -> None:
    limit_job(limit_store, "j", rate=10, requests=10)

    limited = Counter(
        (side, kind) for side in ("source", "destination") for kind in LimitKind
        if limit_store.take(scope(side=side, kind=kind), "p", 1).limited
    )  # fmt: skip
    assert set(limited) == {
        ("source", LimitKind.BYTES), ("source", LimitKind.REQUESTS), ("destination", LimitKind.REQUESTS),
    }  # fmt: skip


def test_what_is_given_back_is_granted_again(limit_store: LimitStore) -> None:
    limit_job(limit_store, "j", rate=1000)
    first = limit_store.take(scope(), "p", 10**6, now=BEGAN)
    assert limit_store.take(scope(), "p", 10**6, now=BEGAN).wait_s == 0
    waits = limit_store.take(scope(), "p", 10**6, now=BEGAN).wait_s

    limit_store.refund(scope(), "p", first.amount)

    assert first.amount == 100
    assert limit_store.take(scope(), "p", 10**6, now=BEGAN).wait_s == pytest.approx(waits, abs=0.001)


def test_a_clock_that_is_set_back_stops_nothing_for_long(limit_store: LimitStore) -> None:
    limit_job(limit_store, "j", rate=1000)
    limit_store.take(scope(), "p", 1000, now=BEGAN + 3600)
    taker = Taker(limit_store, scope(), "p", speed=10**6, wants=1000)

    run([taker], 3)

    assert taker.total(1, 3) == pytest.approx(2000, rel=0.1)


def test_limits_of_a_job_that_has_ended_or_is_unknown_are_not_set(limit_store: LimitStore) -> None:
    assert limit_store.set_job_limits("nobody", {"rate": 1}) == ""
    limit_store._redis.hset(job_key("j"), "state", "done")
    assert limit_store.set_job_limits("j", {"rate": 1}) == "done"
    assert not limit_store.limits_of_run("j", [])[0].any
    assert limit_store._redis.hkeys(job_key("j")) == ["state"]


def test_limits_of_stores_are_listed_until_they_are_taken_away(limit_store: LimitStore) -> None:
    limit_store.set_store_limits(STORE, {"rate": 5, "jobs": 2})
    limit_store.set_store_limits(STORE, {"rate": None})
    assert {store: found.jobs for store, found in limit_store.all_store_limits(None).items()} == {STORE: 2}
    limit_store.set_store_limits(STORE, {"requests": "default", "rate": None, "jobs": None})
    assert limit_store.all_store_limits(None) == {}


def submitted(limit_store: LimitStore, job: str, s3_requests: int | None) -> None:
    """Make the record of a job, as the submission of one does."""
    store = StoreRef(url=STORE)
    request = JobSpec(job_id=job, source=store, destination=store, batch_objects=1, batch_bytes=1)
    assert Ledger(limit_store._redis, expires_s=60).create(request, s3_requests=s3_requests)


def test_an_s3_store_that_nobody_limited_keeps_to_the_jobs_default(limit_store: LimitStore) -> None:
    submitted(limit_store, "j", 100)
    submitted(limit_store, "free", None)

    def limited(job: str, store: str = STORE, kind: LimitKind = LimitKind.REQUESTS) -> bool:
        return limit_store.take(LimitScope(job, "source", store, kind), "p", 1).limited

    assert [limited("j"), limited("free"), limited("unknown")] == [True, False, False]
    assert not limited("j", kind=LimitKind.BYTES)
    assert not limited("j", "file:///srv/store")
    _, of_stores = limit_store.limits_of_run("j", [STORE, "file:///srv/store"])
    assert of_stores == [StoreLimits(requests=100, by_default=True), StoreLimits()]


def test_takers_of_all_jobs_get_the_default_together_and_no_more(limit_store: LimitStore) -> None:
    jobs = ["one", "two"]
    for job in jobs:
        submitted(limit_store, job, 1000)
    crew = [
        Taker(limit_store, scope(job, kind=LimitKind.REQUESTS), f"{job}{n}", speed=10**6, wants=1000)
        for job in jobs
        for n in range(3)
    ]

    run(crew, 10)

    got = [sum(taker.total(1, 10) for taker in crew if taker.scope.job_id == job) for job in jobs]
    assert sum(got) == pytest.approx(9000, rel=0.03)
    assert got[0] == pytest.approx(got[1], rel=0.1)


def test_none_is_no_limit_and_not_the_default_which_can_be_had_back(limit_store: LimitStore) -> None:
    submitted(limit_store, "j", 100)
    said: list[StoreLimits] = []
    for change in (None, 7, "default"):
        limit_store.set_store_limits(STORE, {"requests": change})
        assert limit_store.limits_of_run("j", [STORE])[1] == [limit_store.store_limits(STORE, 100)]
        assert limit_store.take(scope(kind=LimitKind.REQUESTS), "p", 1).limited == (change is not None)
        said.append(limit_store.store_limits(STORE, 100))

    assert said == [StoreLimits(), StoreLimits(requests=7), StoreLimits(requests=100, by_default=True)]
    assert limit_store.all_store_limits(100) == {}
    limit_store.set_store_limits(STORE, dict.fromkeys(LIMIT_FIELDS))
    assert limit_store.all_store_limits(100) == {STORE: StoreLimits()}


def test_what_is_given_back_of_a_default_is_granted_again(limit_store: LimitStore) -> None:
    submitted(limit_store, "j", 1000)
    asked = scope(kind=LimitKind.REQUESTS)
    first = limit_store.take(asked, "p", 10**6, now=BEGAN)
    assert limit_store.take(asked, "p", 10**6, now=BEGAN).wait_s == 0
    waits = limit_store.take(asked, "p", 10**6, now=BEGAN).wait_s

    limit_store.refund(asked, "p", first.amount)

    assert first.amount == 100
    assert limit_store.take(asked, "p", 10**6, now=BEGAN).wait_s == pytest.approx(waits, abs=0.001)


def test_a_store_is_told_by_its_place_and_not_by_the_way_there() -> None:
    url = "s3://b/p?endpoint_url=http://h:1&profile=x&region=eu"
    assert store_id(url) == "s3://b/p?endpoint_url=http://h:1"
    assert store_id("/srv/store/") == "file:///srv/store"


def share(
    limit_store: LimitStore, job: str, member: str, wanted: int, in_flight: int = 0, at: float = 0
) -> int | None:
    stores = ("file:///a", STORE)
    return limit_store.share(job, stores, member, wanted=wanted, in_flight=in_flight, now=BEGAN + at)


def test_without_a_limit_any_number_is_in_flight(limit_store: LimitStore) -> None:
    assert share(limit_store, "j", "p", 32) is None


def test_runs_of_a_job_share_what_may_be_in_flight(limit_store: LimitStore) -> None:
    limit_job(limit_store, "j", jobs=10)

    assert share(limit_store, "j", "one", 32) == 10
    assert share(limit_store, "j", "two", 32) == 0
    assert share(limit_store, "j", "one", 32, in_flight=10) == 5
    # Five of them still run.
    assert share(limit_store, "j", "two", 32) == 0
    assert share(limit_store, "j", "one", 32, in_flight=5) == 5
    assert share(limit_store, "j", "two", 32) == 5
    assert share(limit_store, "j", "one", 0) is None
    assert share(limit_store, "j", "two", 32, in_flight=5) == 10


def test_a_run_that_is_not_heard_of_holds_nothing_any_more(limit_store: LimitStore) -> None:
    limit_job(limit_store, "j", jobs=4)
    assert share(limit_store, "j", "dies", 32) == 4
    assert share(limit_store, "j", "lives", 32, at=HELD_S - 1) == 0

    assert share(limit_store, "j", "lives", 32, at=HELD_S + 1) == 4


def test_jobs_share_what_a_store_may_have_in_flight_evenly(limit_store: LimitStore) -> None:
    limit_store.set_store_limits(STORE, {"jobs": 8})
    asked = {("many", f"m{n}"): 0 for n in range(4)} | {("one", "o"): 0}
    for _ in range(4):
        for job, member in asked:
            # Nobody has more in flight than it may.
            found = share(limit_store, job, member, 32, in_flight=0)
            assert found is not None
            asked[job, member] = found
            assert sum(asked.values()) <= 8

    assert asked["one", "o"] == 4
    assert sum(asked.values()) == 8


@settings(max_examples=examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    most=st.integers(1, 20),
    steps=st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(0, 40)), min_size=1, max_size=40
    ),
)
def test_never_more_in_flight_than_may_be_and_nobody_waits_for_ever(
    limit_store: LimitStore, most: int, steps: list[tuple[int, int, int]]
) -> None:
    limit_store._redis.flushall()
    limit_job(limit_store, "j", jobs=most)
    inside: dict[int, int] = {}
    for member, wanted, want_inside in steps:
        may = share(limit_store, "j", str(member), wanted, inside.get(member, 0) if wanted else 0)
        if not wanted:
            inside.pop(member, None)
            continue
        assert may is not None
        # Objects end when they end: what is inside may stay, and nothing enters beyond what is allowed.
        here = inside.get(member, 0)
        inside[member] = max(here, min(may, want_inside)) if want_inside >= here else want_inside
        assert sum(inside.values()) <= most

    for _ in range(6):
        for member in list(inside):
            may = share(limit_store, "j", str(member), 40, inside[member])
            inside[member] = may or 0
    if inside:
        assert sum(inside.values()) == most


@pytest.mark.parametrize(
    "text", ["junk", "-5", "0", "nan", "inf", "1e400", "9" * 400, "5.5", "", "\x1b[31m", b"\xff"]
)
def test_a_limit_that_another_program_damaged_limits_nothing(text: str | bytes, redis_url: str) -> None:
    with client(redis_url) as found:
        limit_store = LimitStore(found)
        limit_store.set_store_limits(STORE, {"rate": 1, "requests": 1, "jobs": 1})
        found.hset(
            job_key("j"),
            mapping={"state": "copying", "s3_requests": text, "limit_rate": text, "limit_jobs": text},
        )
        found.hset(store_key(STORE), mapping=dict.fromkeys(("rate", "requests", "jobs"), text))
        limits, (of_store,) = limit_store.limits_of_run("j", [STORE])
        assert not limits.any
        assert not of_store.any
        assert not limit_store.all_store_limits(None)[STORE].any
        share = limit_store.share("j", (STORE, STORE), "me", wanted=5, in_flight=0, now=BEGAN)
        assert share is None or share >= 1
        for kind in LimitKind:
            grant = limit_store.take(scope(kind=kind), "me", 100, now=BEGAN)
            assert grant.amount >= 1
            limit_store.refund(scope(kind=kind), "me", 1)


@pytest.mark.parametrize("text", ["junk", "nan", "inf", "-inf", "1e308", "0x10", "9" * 400, b"\xff"])
def test_a_bucket_that_another_program_damaged_stops_nothing(text: str | bytes, redis_url: str) -> None:
    with client(redis_url) as found:
        limit_store = LimitStore(found)
        limit_store.set_store_limits(STORE, {"rate": 1000, "jobs": 3})
        limit_store.take(scope(), "me", 1, now=BEGAN)
        limit_store.take(scope("k"), "me", 1, now=BEGAN)
        bucket = scope().keys()[4]
        found.hset(bucket, mapping={"until": text, "j": text, "k": text})
        assert limit_store.take(scope(), "me", 100, now=BEGAN + 10).amount >= 1
        found.hset(bucket, "until", text)
        limit_store.refund(scope(), "me", 1)
        flights = f"snapferry:flights:store:{STORE}"
        found.zadd(flights, {"no job": BEGAN + 60, "j|other": BEGAN + 60})
        found.hset(f"{flights}:held", mapping={"no job": text, "j|other": text})
        share = limit_store.share("j", (STORE, STORE), "me", wanted=5, in_flight=0, now=BEGAN + 10)
        assert share is not None
        assert share >= 1
