"""The pace of a process at a server that asks to slow down: with a clock and a server that are simulated."""

from __future__ import annotations

import pytest

from snapferry.stores.backends.s3.http.pace import CALM_S, CUT_S, LEAST, Pace

STEP_S = 0.001


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace("s3://bucket", clock=clock, sleep=clock.sleep)


def send(pace: Pace, clock: Clock, seconds: float, per_second: float) -> int:
    """Send for some seconds, *per_second* at most; return how many requests were sent, all of them answered."""
    end, sent = clock.now + seconds, 0
    while clock.now < end:
        pace.wait()
        pace.answered()
        sent += 1
        clock.now += 1 / per_second
    return sent


def test_nothing_is_limited_before_the_server_asks(pace: Pace, clock: Clock) -> None:
    assert send(pace, clock, 5, 2000) == pytest.approx(10_000, rel=0.01)
    assert pace.per_second is None


def test_the_rate_falls_to_seven_tenths_of_what_was_taken(pace: Pace, clock: Clock) -> None:
    send(pace, clock, 5, 1000)
    pace.told_to_slow_down()
    assert pace.per_second == pytest.approx(700, rel=0.05)
    assert send(pace, clock, 1, 1000) < 900


def test_many_refusals_of_one_moment_count_once(pace: Pace, clock: Clock) -> None:
    send(pace, clock, 5, 1000)
    for _ in range(32):
        pace.told_to_slow_down()
        clock.now += CUT_S / 64
    assert pace.per_second == pytest.approx(700, rel=0.05)


def test_a_server_that_always_refuses_is_sent_the_least(pace: Pace, clock: Clock) -> None:
    send(pace, clock, 5, 1000)
    for _ in range(100):
        pace.wait()
        pace.told_to_slow_down()
        clock.now += CUT_S
    assert pace.per_second == LEAST


def test_a_refusal_after_a_pause_leaves_the_least(pace: Pace, clock: Clock) -> None:
    send(pace, clock, 5, 1000)
    clock.now += 10
    pace.told_to_slow_down()
    assert pace.per_second == LEAST


def test_a_burst_that_is_refused_at_once_is_measured(pace: Pace, clock: Clock) -> None:
    send(pace, clock, 0.1, 1000)
    pace.told_to_slow_down()
    assert pace.per_second == pytest.approx(700, rel=0.1)


def test_a_calm_minute_ends_the_limit(pace: Pace, clock: Clock) -> None:
    send(pace, clock, 5, 1000)
    pace.told_to_slow_down()
    send(pace, clock, CALM_S - 1, 100)
    assert pace.per_second is not None
    send(pace, clock, 2, 100)
    assert pace.per_second is None


def test_a_wait_is_ended_by_the_owner_of_the_work(pace: Pace, clock: Clock) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    pace.told_to_slow_down()
    with pytest.raises(Stopped):
        for _ in range(1000):
            pace.wait(stop)


@pytest.mark.parametrize(("processes", "capacity"), [(1, 200), (4, 1000), (8, 3500)])
def test_processes_settle_near_what_the_server_takes(clock: Clock, processes: int, capacity: int) -> None:
    """Each would send 5,000 requests a second. The server refuses what is above *capacity* in a tenth of a second."""
    due = [clock.now] * processes

    # A process that must wait does so on the common clock's behalf: it is asked again later.
    class Later(Exception):
        pass

    def later(_: float) -> None:
        raise Later

    paces = [Pace(f"s3://{number}", clock=clock, sleep=later) for number in range(processes)]
    taken = refused = 0
    began = clock.now
    window, used = 0, 0
    while clock.now < began + 40:
        clock.now += STEP_S
        for number, pace in enumerate(paces):
            while due[number] <= clock.now:
                try:
                    pace.wait(lambda: None)
                except Later:
                    due[number] = clock.now + STEP_S
                    break
                due[number] += 1 / 5000
                if int(clock.now * 10) != window:
                    window, used = int(clock.now * 10), 0
                used += 1
                settled = clock.now > began + 20
                if used > capacity / 10:
                    pace.told_to_slow_down()
                    refused += settled
                else:
                    pace.answered()
                    taken += settled
    assert taken / 20 > 0.5 * capacity
    assert refused < taken
