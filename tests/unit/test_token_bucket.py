"""One limit within one process, by a clock of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from snapferry.workers.limits.limit_store import Grant
from snapferry.workers.limits.semaphore import Semaphore
from snapferry.workers.limits.token_bucket import TokenBucket
from tests.integration.processes import PATIENCE_S


class Stop(Exception):
    pass


class Clock:
    """A clock that moves when somebody sleeps, and a limit of *rate* that grants *most* at a time."""

    def __init__(self, rate: float, most: int) -> None:
        self.now = 0.0
        self.rate, self.most = rate, most
        self.until = 0.0
        self.asked: list[int] = []

    def ask(self, wanted: int) -> Grant:
        self.asked.append(wanted)
        amount = max(1, min(wanted, self.most))
        begin = max(self.now, self.until)
        self.until = begin + amount / self.rate
        return Grant(amount, begin - self.now)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def bucket(self, check: Callable[[], object] = lambda: None) -> TokenBucket:
        bucket = TokenBucket(self.ask, check, clock=lambda: self.now, sleep=self.sleep)
        bucket.limited = True
        return bucket


def test_what_is_taken_waits_for_the_limit() -> None:
    clock = Clock(rate=1000, most=100)
    bucket = clock.bucket()

    for _ in range(50):
        bucket.take(70)

    # The last grant is used from its beginning on.
    assert 3500 / 1000 - 0.1 <= clock.now <= 3500 / 1000


def test_small_takes_are_asked_for_together() -> None:
    clock = Clock(rate=100_000, most=10_000)
    bucket = clock.bucket()

    for _ in range(100_000):
        bucket.take(1)

    assert len(clock.asked) <= 40


def test_far_from_the_limit_more_is_asked_for_before_all_is_used_and_no_more_is_held_than_one_grant() -> None:
    held = []

    def ask(wanted: int) -> Grant:
        held.append(bucket._tokens)
        return Grant(min(wanted, 100), 0, most=100)

    now = 0.0
    bucket = TokenBucket(ask, lambda: None, clock=lambda: now)
    bucket.limited = True
    for _ in range(3000):
        bucket.take(1)
        now += 0.001
        assert bucket._tokens <= 100

    # After the first grants, from which it is learnt how much is used.
    assert all(0 < left < 25 for left in held[4:])
    assert len(held) < 3000 / 75 + 6


def test_who_finds_enough_does_not_wait_for_the_one_who_asks() -> None:
    asking, answer = threading.Event(), threading.Event()

    def ask(wanted: int) -> Grant:
        if bucket._tokens:
            asking.set()
            assert answer.wait(PATIENCE_S)
        return Grant(min(wanted, 100), 0, most=100)

    now = 0.0
    bucket = TokenBucket(ask, lambda: None, clock=lambda: now)
    bucket.limited = True
    while not 0 < bucket._tokens <= bucket._low:
        bucket.take(1)
        now += 0.001
    left = bucket._tokens
    one = threading.Thread(target=bucket.take, args=(1,))
    one.start()
    assert asking.wait(PATIENCE_S)

    for _ in range(left - 1):
        bucket.take(1)

    assert bucket._tokens == 0
    answer.set()
    one.join(PATIENCE_S)
    assert bucket._tokens > 0


def test_near_the_limit_nothing_is_asked_for_before_it_is_needed() -> None:
    clock = Clock(rate=1000, most=100)
    bucket = clock.bucket()
    bucket.take(1)
    bucket.take(100)

    for _ in range(1000):
        asked, credit = len(clock.asked), bucket._tokens
        bucket.take(1)
        assert len(clock.asked) == asked or not credit


def test_a_slow_user_asks_for_no_more_than_it_uses_soon() -> None:
    clock = Clock(rate=10**9, most=10**8)
    bucket = clock.bucket()

    for _ in range(1000):
        bucket.take(10)
        clock.now += 0.01

    assert max(clock.asked) <= 10_000
    assert bucket.drain() <= 1000


def test_without_a_limit_nothing_is_asked() -> None:
    clock = Clock(rate=1, most=1)
    bucket = clock.bucket()
    bucket.limited = False

    bucket.take(10**9)

    assert clock.asked == []


def test_a_limit_that_is_gone_ends_the_waiting() -> None:
    clock = Clock(rate=1, most=1)
    bucket = clock.bucket()
    answers = iter([Grant(1, 1), Grant(5, 0, limited=False)])
    bucket._fetch = lambda _: next(answers)

    bucket.take(10**9)

    assert not bucket.limited


def test_who_waits_is_stopped() -> None:
    def check() -> None:
        if clock.now > 5:
            raise Stop

    clock = Clock(rate=1, most=1)
    bucket = clock.bucket(check)

    with pytest.raises(Stop):
        bucket.take(1000)
    assert clock.now < 7


def test_what_is_given_back_is_used_before_more_is_asked_for() -> None:
    clock = Clock(rate=1000, most=100)
    bucket = clock.bucket()
    bucket.take(100)
    bucket.put_back(60)

    bucket.take(50)

    assert len(clock.asked) == 1
    assert bucket.drain() == 10
    assert bucket.drain() == 0


def test_a_gate_lets_in_as_many_as_it_may() -> None:
    semaphore = Semaphore(lambda: None, lambda _: None)
    semaphore.set_limit(2)
    inside, most, lock = 0, 0, threading.Lock()
    leave = threading.Event()

    def pass_through() -> None:
        nonlocal inside, most
        with semaphore:
            with lock:
                inside += 1
                most = max(most, inside)
            leave.wait(0.005)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=pass_through) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)

    assert most == 2
    assert semaphore.in_flight == 0


def test_who_waits_at_a_gate_is_stopped() -> None:
    def check() -> None:
        raise Stop

    semaphore = Semaphore(check, lambda _: None)
    semaphore.set_limit(0)

    with pytest.raises(Stop), semaphore:
        pass
    assert semaphore.in_flight == 0


def test_a_gate_that_opens_lets_in_who_waits() -> None:
    opened: list[bool] = []

    def check() -> None:
        opened.append(True)
        semaphore.set_limit(None)

    semaphore = Semaphore(check, lambda _: None)
    semaphore.set_limit(0)

    with semaphore:
        assert semaphore.in_flight == 1
    assert opened == [True]


def test_an_object_that_may_not_start_is_not_in_flight() -> None:
    seen: list[int] = []

    def may_start() -> None:
        seen.append(semaphore.in_flight)
        raise Stop

    semaphore = Semaphore(lambda: None, lambda _: None, may_start)
    for limit in (None, 1):
        semaphore.set_limit(limit)
        with pytest.raises(Stop), semaphore:
            pass

    assert seen == [1, 1]
    assert semaphore.in_flight == 0
