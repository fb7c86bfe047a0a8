"""When mirrors, scrubs and stores last succeeded, and when they are late."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from snapferry.orchestrator.schedules.settle import settle_ended
from snapferry.orchestrator.schedules.watcher import Watcher
from snapferry.workers.ledger import Expected, Freshness, FreshnessLedger, Ledger, State
from snapferry.workers.ledger.freshness import late_at
from snapferry.workers.ledger.keys import ENDED, UNTOLD
from snapferry.workers.messages import Action, JobSpec, StoreRef
from snapferry.workers.settings.environment import Settings

HERE, THERE = StoreRef(url="file:///a"), StoreRef(url="file:///b")
HOUR = 3600.0


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client, expires_s=3600)


@pytest.fixture
def freshness(client: redis.Redis) -> FreshnessLedger:
    return FreshnessLedger(client)


def end(
    ledger: Ledger, job_id: str, state: State = State.DONE, *, schedule: str = "", **fields: object
) -> None:
    """Record a job that ended in *state*."""
    spec = JobSpec(**({"source": HERE, "destination": THERE, "job_id": job_id} | fields))
    ledger.create(spec, schedule=schedule)
    ledger.advance(job_id, state)


def found(freshness: FreshnessLedger) -> dict[str, Freshness]:
    return {one.expected.key: one for one in freshness.freshness()}


def stamp(*at: int) -> float:
    return datetime(*at, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("every", "after", "base", "expected"),
    [
        ("6h", None, 0.5, 0.5 + 12 * HOUR),
        ("10s", None, 100, 120),
        ("1d", 26 * HOUR, 7, 7 + 26 * HOUR),
        ("30 3 * * *", None, stamp(2026, 3, 1, 3, 50), stamp(2026, 3, 3, 3, 30)),
        # From Friday, the next run is due on Monday, and has a day to succeed.
        ("0 3 * * 1-5", None, stamp(2026, 11, 27, 3, 5), stamp(2026, 12, 1, 3, 0)),
        ("0 3 1 * *", None, stamp(2026, 1, 31, 0, 0), stamp(2026, 3, 1, 3, 0)),
        # No schedule at all, from a hostile or damaged Redis.
        ("*/0 * * * *", None, 5, 0.0),
        ("0 0 31 2 *", None, 5, 0.0),
        ("soon", None, 5, 0.0),
        ("999999d", None, 9e10, 0.0),
    ],
)
def test_what_runs_on_a_schedule_is_late_when_a_second_run_is_due(
    every: str, after: float | None, base: float, expected: float
) -> None:
    assert late_at(Expected("mirror", "m", every, after), base) == expected


@given(
    st.sampled_from(["1m", "7h", "2d", "*/7 * * * *", "5 */5 * * 2", "0 0 29 2 *", "59 23 31 12 *"]),
    st.floats(0, 4e9),
    st.floats(0, 1e7),
)
def test_a_later_success_is_never_late_earlier(every: str, base: float, later: float) -> None:
    one = Expected("mirror", "m", every)

    assert base < late_at(one, base) <= late_at(one, base + later)


def test_what_is_expected_stays_expected_until_it_is_forgotten(freshness: FreshnessLedger) -> None:
    freshness.expect([Expected("mirror", "a", "1h"), Expected("scrub", "a", "1d", 5.0)], replace=True)
    first = found(freshness)
    # Another file, of a scheduler that took over: the mirror has another interval, the scrub is gone.
    freshness.expect([Expected("mirror", "a", "2h"), Expected("mirror", "b", "1h")], replace=True)
    second = found(freshness)
    # An orchestrator with an old file changes nothing of what is known.
    freshness.expect([Expected("mirror", "a", "1h"), Expected("scrub", "a", "3d")], replace=False)
    third = found(freshness)
    freshness.expect([Expected("scrub", "a", "1d")], replace=True)
    fourth = found(freshness)

    assert [(one.expected, one.removed_at) for one in first.values()] == [
        (Expected("mirror", "a", "1h"), 0.0),
        (Expected("scrub", "a", "1d", 5.0), 0.0),
    ]
    assert first["mirror:a"].late_at == first["mirror:a"].since + 2 * HOUR
    assert second["mirror:a"].since == first["mirror:a"].since
    assert second["mirror:a"].expected.every == "2h"
    assert second["scrub:a"].removed_at >= second["mirror:b"].since
    assert third.keys() == second.keys()
    assert third["scrub:a"].removed_at == second["scrub:a"].removed_at
    assert fourth["scrub:a"].removed_at == 0.0
    assert fourth["scrub:a"].expected.late_after is None
    assert fourth["mirror:a"].removed_at > 0
    assert freshness.forget("mirror", "a") is True
    assert freshness.forget("mirror", "a") is False
    assert found(freshness).keys() == {"mirror:b", "scrub:a"}


def test_jobs_that_end_are_successes_of_their_mirror_and_store(
    ledger: Ledger, freshness: FreshnessLedger, client: redis.Redis
) -> None:
    freshness.expect([Expected("mirror", name, "1h") for name in "abcd"], replace=True)
    end(ledger, "ja", schedule="mirror:a")
    end(ledger, "jb", State.FAILED, schedule="mirror:b", destination=StoreRef(url="file:///lost"))
    end(ledger, "jc", schedule="mirror:c", dry_run=True, destination=StoreRef(url="file:///dry"))
    end(ledger, "jd", State.CANCELLED, schedule="mirror:d")
    end(ledger, "other")
    end(
        ledger,
        "verify",
        action=Action.VERIFY,
        source=StoreRef(url="file:///v"),
        destination=StoreRef(url="file:///v"),
    )
    end(ledger, "gone")
    client.delete("snapferry:job:gone")

    assert settle_ended(ledger, freshness) == 7
    assert settle_ended(ledger, freshness) == 0

    status = {job: ledger.status(job) for job in ("ja", "other")}
    assert {key: one.success_at for key, one in found(freshness).items()} == {
        "mirror:a": pytest.approx(status["ja"].ended_at),
        "mirror:b": 0.0,
        "mirror:c": 0.0,
        "mirror:d": 0.0,
    }
    stores = ("b", "lost", "dry", "v")
    assert freshness.store_successes(f"file:///{store}" for store in stores) == {
        "file:///b": pytest.approx(status["other"].ended_at)
    }
    assert set(client.zrange(UNTOLD, 0, -1)) == {"ja", "jb", "jd", "other", "verify"}


def test_a_retry_that_is_done_is_a_success_of_the_mirror(ledger: Ledger, freshness: FreshnessLedger) -> None:
    freshness.expect([Expected("mirror", "a", "1h")], replace=True)
    end(ledger, "one", State.FAILED, schedule="mirror:a")
    end(ledger, "two", State.FAILED, retries="one")
    settle_ended(ledger, freshness)
    before = found(freshness)["mirror:a"]
    end(ledger, "three", resumes="two")

    settle_ended(ledger, freshness)

    after = found(freshness)["mirror:a"]
    assert (before.success_at, before.age_s) == (0.0, None)
    assert after.success_at == pytest.approx(ledger.status("three").ended_at)
    assert after.late_at == after.success_at + 2 * HOUR


def test_an_earlier_success_that_is_settled_later_does_not_replace_a_later_one(
    freshness: FreshnessLedger,
) -> None:
    freshness.expect([Expected("mirror", "a", "1h")], replace=True)
    for at in (500.0, 300.0):
        freshness.settle(["x"], untold={"x": at}, mirrors={"a": at}, stores={"s": at})

    assert found(freshness)["mirror:a"].success_at == 500
    assert freshness.store_successes(["s"]) == {"s": 500}


def test_a_circle_of_continued_jobs_in_a_damaged_redis_ends(
    ledger: Ledger, freshness: FreshnessLedger, client: redis.Redis
) -> None:
    for job, continues in (("x", "y"), ("y", "x")):
        end(ledger, job)
        client.hset(f"snapferry:job:{job}", "continues", continues)

    assert settle_ended(ledger, freshness) == 2


def test_the_lists_of_ended_jobs_are_bounded(
    ledger: Ledger, client: redis.Redis, freshness: FreshnessLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapferry.workers.ledger.steps.jobs.MOST_ENDED", 3)
    monkeypatch.setattr("snapferry.workers.ledger.freshness.MOST_ENDED", 2)
    for number in range(5):
        end(ledger, f"j{number}")

    assert client.zrange(ENDED, 0, -1) == ["j2", "j3", "j4"]
    settle_ended(ledger, freshness)
    assert client.zrange(UNTOLD, 0, -1) == ["j3", "j4"]


def test_what_a_hostile_redis_holds_costs_that_one_thing(
    freshness: FreshnessLedger, client: redis.Redis
) -> None:
    freshness.expect([Expected("mirror", "good", "1h")], replace=True)
    client.sadd(
        "snapferry:expected", "mirror:../x", "mirror:" + "y" * 500, "job:z", "", "mirror:list", "mirror:odd"
    )
    client.rpush("snapferry:mirror:list", "no hash")
    client.hset("snapferry:mirror:odd", mapping={"every": "x" * 1000, "since": "nan"})
    client.hset("snapferry:mirror:good", mapping={"late_after": "inf"})

    assert found(freshness).keys() == {"mirror:good"}
    assert found(freshness)["mirror:good"].expected == Expected("mirror", "good", "1h")


def test_an_orchestrator_expects_what_its_file_has_although_redis_lost_everything(
    redis_url: str, ledger: Ledger, freshness: FreshnessLedger, client: redis.Redis, tmp_path: object
) -> None:
    config = f"{tmp_path}/snapferry.toml"
    with open(config, "w") as file:
        file.write('[[mirror]]\nname = "nightly"\nfrom = "/a"\nto = "/b"\nevery = "1h"\nlate-after = "90m"\n')
    watcher = Watcher(Settings(broker_url=redis_url, config=config))
    watcher.round(ledger)
    end(ledger, "one", schedule="mirror:nightly")
    watcher.round(ledger)
    before = found(freshness)["mirror:nightly"]
    client.flushdb()
    # A minute later.
    watcher._expected_at = 0.0
    watcher.round(ledger)

    after = found(freshness)["mirror:nightly"]
    assert before.success_at > before.since > 0
    assert before.late_at == before.success_at + 5400
    assert after.success_at == 0
    assert after.since > before.since
    assert after.late_at == after.since + 5400
    assert not after.late
