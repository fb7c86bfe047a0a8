"""How long a command is repeated: by time, and not once for each layer of redis-py."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from redis.exceptions import ConnectionError

from snapferry.workers.broker.connecting import retry
from snapferry.workers.broker.connecting.retry import TimedRetry
from snapferry.workers.broker.connection import client
from tests.servers import free_port


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    return clock


def failing(clock: Clock, took_s: float, counted: list[int]) -> Any:
    def do() -> None:
        counted.append(1)
        clock.now += took_s
        raise ConnectionError("no")

    return do


@pytest.mark.parametrize(("took_s", "least", "most"), [(0, 20, 40), (1, 15, 40), (30, 3, 5), (1000, 3, 3)])
def test_a_call_is_repeated_for_two_minutes_and_at_least_three_times(
    clock: Clock, took_s: float, least: int, most: int
) -> None:
    tries: list[int] = []
    began = clock.now

    with pytest.raises(ConnectionError):
        TimedRetry().call_with_retry(failing(clock, took_s, tries), lambda _: None)

    assert least <= len(tries) <= most
    assert clock.now - began <= max(120 + 2 * took_s, 3 * took_s + 5)


def test_layers_within_a_call_try_once(clock: Clock) -> None:
    tries: list[int] = []
    inner = TimedRetry()
    failures: list[Exception] = []
    do = failing(clock, 0, tries)

    def nested() -> None:
        inner.call_with_retry(
            lambda: copy.deepcopy(inner).call_with_retry(do, lambda _: None), failures.append
        )

    with pytest.raises(ConnectionError):
        TimedRetry().call_with_retry(nested, lambda _error, _count: None, with_failure_count=True)

    assert 20 <= len(tries) <= 40
    assert len(failures) == len(tries)


def test_other_errors_are_raised_at_once_and_the_next_call_is_a_call_of_its_own(clock: Clock) -> None:
    tries: list[int] = []

    def wrong() -> None:
        tries.append(1)
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - any
        TimedRetry().call_with_retry(wrong, lambda _: None)
    assert len(tries) == 1
    with pytest.raises(ConnectionError):
        TimedRetry().call_with_retry(failing(clock, 1, tries), lambda _: None)
    assert len(tries) > 10


def test_a_client_of_an_absent_redis_gives_up_after_that_time(clock: Clock) -> None:
    """With redis-py's own counting, 25 tries of the command had 25 of the connection each."""
    began = clock.now
    with pytest.raises(ConnectionError):
        client(f"redis://127.0.0.1:{free_port()}").get("x")
    assert 60 < clock.now - began <= 121
