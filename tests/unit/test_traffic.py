"""The record of traffic: each report counts once, in its interval, and its size in Redis is bounded."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
import redis

from snapferry.workers.messages import Action, BatchMessage, StoreRef, encode_addresses
from snapferry.workers.telemetry.traffic.batch import BatchTraffic
from snapferry.workers.telemetry.traffic.history import (
    HOURS,
    IDLE_S,
    MINUTES,
    MOST_SERIES,
    Kind,
    Series,
    TrafficHistory,
)

FLEET = Series(Kind.FLEET)
NOON = 1_800_000_000 // 3600 * 3600


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as found:
        yield found


class Clocked(TrafficHistory):
    """A history whose time the test sets; each report has a number of its own."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(client)
        self.at(NOON)
        self._numbers = count(1)

    def at(self, now: float) -> None:
        self._now = now

    def moved(self, size_bytes: int, series: Series = FLEET) -> None:
        self.add("process", next(self._numbers), {series: size_bytes})

    def bytes(self, series: Series = FLEET) -> tuple[tuple[int, ...], tuple[int, ...]]:
        minutes, hours = self.past([series])[series]
        return minutes.size_bytes, hours.size_bytes


@pytest.fixture
def history(client: redis.Redis) -> Clocked:
    return Clocked(client)


def test_bytes_are_in_the_minute_and_the_hour_in_which_they_were_reported(history: Clocked) -> None:
    history.moved(5)
    history.at(NOON + 59)
    history.moved(2)
    history.at(NOON + 60)
    history.moved(10)

    minutes, hours = history.bytes()
    assert (len(minutes), len(hours)) == (MINUTES, HOURS)
    assert minutes[-3:] == (0, 7, 10)
    assert hours[-2:] == (0, 17)
    found, _ = history.past([FLEET])[FLEET]
    assert (found.seconds, found.end, found.total) == (60, NOON + 120, 17)


def test_any_sequence_of_reports_and_pauses_is_what_a_simple_list_would_hold(history: Clocked) -> None:
    chosen = random.Random(7)
    now = NOON
    model = Counter[tuple[int, int]]()
    for _ in range(60):
        now += chosen.choice(
            [0, 1, 59, 60, 61, 3600, 3599, 60 * 700, 60 * MINUTES - 1, 60 * MINUTES, 86400 * 3]
        )
        amount = chosen.randrange(1, 2**40)
        history.at(now)
        history.moved(amount)
        for found, seconds in zip(history.bytes(), (60, 3600), strict=True):
            current = now // seconds
            model[seconds, current] += amount
            assert found == tuple(
                model[seconds, interval] for interval in range(current - len(found) + 1, current + 1)
            )


def test_what_is_too_old_is_not_shown_though_nothing_was_added_since(history: Clocked) -> None:
    history.moved(5)
    history.at(NOON + 60 * (MINUTES - 1))
    assert sum(history.bytes()[0]) == 5
    history.at(NOON + 60 * MINUTES)
    assert sum(history.bytes()[0]) == 0
    assert sum(history.bytes()[1]) == 5
    history.at(NOON + 3600 * HOURS)
    assert sum(history.bytes()[1]) == 0


def test_a_report_that_is_sent_again_counts_once(history: Clocked) -> None:
    other = Series(Kind.WORKER, "w")
    for _ in range(3):
        history.add("a", 1, {FLEET: 5, other: 5})
    history.add("a", 2, {FLEET: 1})
    history.add("a", 1, {FLEET: 5})
    history.add("b", 1, {FLEET: 10})

    assert history.bytes()[0][-1] == 16
    assert history.bytes(other)[0][-1] == 5


def test_reports_of_many_processes_at_once_all_count(redis_url: str, history: Clocked) -> None:
    def send(process: int) -> None:
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            own = Clocked(client)
            for number in range(20):
                own.at(NOON + number)
                own.add(f"process {process}", number + 1, {FLEET: 3})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(send, range(8)))

    history.at(NOON + 19)
    assert sum(history.bytes()[0]) == 8 * 20 * 3


def test_a_clock_that_goes_back_loses_and_doubles_nothing(history: Clocked) -> None:
    history.at(NOON + 120)
    history.moved(1)
    history.at(NOON)
    history.moved(2)
    history.at(NOON + 120)
    assert history.bytes()[0][-3:] == (2, 0, 1)


def test_memory_is_bounded_however_many_stores_and_workers_there_are(
    client: redis.Redis, history: Clocked
) -> None:
    history.moved(1)
    for number in range(MOST_SERIES + 50):
        history.moved(1, Series(Kind.READ, f"s3://bucket/{number:04}" + "x" * 9000))
    keys = [str(key) for key in client.scan_iter("snapferry:traffic:*")]
    rings = [key for key in keys if "report" not in key and not key.endswith("series")]
    assert len(rings) == 2 * MOST_SERIES
    assert len(history.series()) == MOST_SERIES
    assert sum(client.memory_usage(key) or 0 for key in keys) < 6_000_000
    assert all(client.ttl(key) > 0 for key in keys)

    # Later new ones take the places of idle ones.
    history.at(NOON + IDLE_S)
    history.moved(1)
    late = [Series(Kind.WORKER, f"worker {number}") for number in range(20)]
    for one in late:
        history.moved(3, one)
    assert [history.bytes(one)[0][-1] for one in late] == [3] * 20
    assert len(history.series()) == MOST_SERIES
    assert FLEET in history.series(), "what is in use is not forgotten"
    assert (
        sum("report" not in key for key in map(str, client.scan_iter("snapferry:traffic:*")))
        == 2 * MOST_SERIES + 1
    )


def test_a_record_that_something_else_wrote_is_no_error_of_a_page(
    client: redis.Redis, history: Clocked
) -> None:
    minutes, hours = FLEET.rings
    for wrong in (b"x", b"\xff" * 20_000, b"\x7f" * 8 * (1 + MINUTES)):
        client.set(minutes, wrong)
        client.set(hours, wrong)
        assert len(history.bytes()[0]) == MINUTES
        history.moved(4)
        found = history.bytes()
        assert (found[0][-1], sum(found[0])) == (4, 4)
    client.delete(minutes)
    client.lpush(minutes, "a")
    assert sum(history.bytes()[0]) == 0
    client.zadd(
        "snapferry:traffic:series", {"x": 1, "what:x": 2, "worker:": 3, "read:\x1b[31m": 4, "fleet:x": 5}
    )
    assert {one.name for one in history.series()} == {"", "\\x1b[31m"}


def batch(action: Action = Action.COPY) -> BatchMessage:
    return BatchMessage(
        job_id="job", series="plan", number=0, source=StoreRef(url="/a"), destination=StoreRef(url="/b"),
        addresses=encode_addresses(["0" * 64]), sizes=(10,), positions=(0,), action=action,
    )  # fmt: skip


def test_a_batch_adds_to_the_fleet_to_its_worker_and_to_its_stores(client: redis.Redis) -> None:
    history = TrafficHistory(client)
    traffic = BatchTraffic(client, batch(), "one@host")
    traffic.report(100)
    traffic.report(100)
    traffic.report(90)
    traffic.report(150)
    BatchTraffic(client, batch(Action.VERIFY), "two@host").report(7)
    BatchTraffic(client, batch(), "three@host").report(0)

    totals = {one: found[1].total for one, found in history.past(history.series()).items()}
    assert totals == {
        FLEET: 157,
        Series(Kind.WORKER, "one@host"): 150,
        Series(Kind.WORKER, "two@host"): 7,
        Series(Kind.READ, "file:///a"): 157,
        Series(Kind.WRITTEN, "file:///b"): 150,
    }


def test_a_redis_that_is_away_costs_the_report_and_nothing_else() -> None:
    with redis.Redis.from_url("redis://127.0.0.1:1/0", decode_responses=True) as client:
        traffic = BatchTraffic(client, batch(), "one@host")
        traffic.report(5)
        traffic.report(6)
