"""The rounds of notifiers on a real Redis: one sends, nothing is lost, nothing is told twice without need."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import redis

from snapferry.orchestrator.notify.notifier import PAUSES_S, Notifier
from snapferry.orchestrator.notify.records import (
    MOST_MESSAGES,
    NotificationLedger,
    NotLocked,
    PendingMessage,
)
from snapferry.orchestrator.notify.send import Sent
from snapferry.orchestrator.notify.texts import Text, compose
from snapferry.orchestrator.reporting.notify_metrics import ask_notifications
from snapferry.orchestrator.schedules.settle import settle_ended
from snapferry.workers.ledger import Expected, FreshnessLedger, Ledger, State
from snapferry.workers.messages import JobSpec, StoreRef
from snapferry.workers.settings.notify_table import Notify

HERE, THERE = StoreRef(url="file:///a"), StoreRef(url="file:///b")
URLS = ("json://one.example/secret", "mailto://two.example")
AT_ONCE = Notify(wait="0s", interval="0s")


class Killed(BaseException):
    """The process was killed at this point."""


class Receivers:
    """Receivers that take what is sent, unless *answers* has a failure or a death for the next call."""

    def __init__(self) -> None:
        self.got: list[tuple[str, Text]] = []
        self.answers: list[Sent | Killed] = []
        self.killed_after: list[str] = []

    def __call__(self, url: str, text: Text) -> Sent:
        answer = self.answers.pop(0) if self.answers else Sent(True)
        if isinstance(answer, Killed):
            raise answer
        if answer.ok:
            self.got.append((url, text))
        if url in self.killed_after:
            self.killed_after.remove(url)
            raise Killed
        return answer

    @property
    def titles(self) -> list[str]:
        return [text.title for _, text in self.got]


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url, decode_responses=True)


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client, expires_s=3600)


@pytest.fixture
def receivers() -> Receivers:
    return Receivers()


def notifier(
    receivers: Callable[[str, Text], Sent], table: Notify = AT_ONCE, urls: tuple[str, ...] = URLS[:1]
) -> Notifier:
    return Notifier(table, urls, send=receivers)


def end(
    ledger: Ledger, job_id: str, state: State = State.FAILED, *, schedule: str = "", **fields: Any
) -> None:
    ledger.create(
        JobSpec(**({"source": HERE, "destination": THERE, "job_id": job_id} | fields)), schedule=schedule
    )
    ledger.advance(job_id, state, error="2 objects are missing")
    settle_ended(ledger, FreshnessLedger(ledger.client))


def die(client: redis.Redis) -> None:
    """Let the lock of a dead process expire."""
    client.delete("snapferry:notify:lock")


def due(ledger: Ledger) -> None:
    """Let the pauses of all messages that wait end."""
    records = NotificationLedger(ledger.client)
    for one in records.waiting():
        left = {name: type(left)(left.tries, 0.0) for name, left in one.left.items()}
        records.delivered(PendingMessage(**(vars(one) | {"left": left})))


def test_a_failure_and_its_recovery_are_each_told_once_to_each_receiver(
    ledger: Ledger, receivers: Receivers
) -> None:
    one = notifier(receivers, urls=URLS)
    end(ledger, "first")
    for _ in range(3):
        one.round(ledger)
    end(ledger, "second", State.DONE, retries="first")
    for _ in range(3):
        one.round(ledger)

    assert [(url, text.title) for url, text in receivers.got] == [
        (url, f"snapferry: job first {word}") for word in ("failed", "has recovered") for url in URLS
    ]
    assert NotificationLedger(ledger.client).problems() == {}
    assert NotificationLedger(ledger.client).waiting() == []


@pytest.mark.parametrize("jobs", [2_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_thousands_of_failed_jobs_are_one_message(
    ledger: Ledger, client: redis.Redis, receivers: Receivers, jobs: int
) -> None:
    with client.pipeline(transaction=False) as pipe:
        for number in range(jobs):
            record: dict[Any, Any] = {"state": "failed", "ended_at": 1000 + number, "cause": "AccessDenied"}
            record |= {"source": "file:///a", "destination": "file:///b"}
            pipe.hset(f"snapferry:job:j{number}", mapping=record)
            pipe.zadd("snapferry:ended", {f"j{number}": 1000 + number})
        pipe.execute()
    settle_ended(ledger, FreshnessLedger(client))

    one = notifier(receivers)
    for _ in range(2):
        one.round(ledger)

    assert receivers.titles == [f"snapferry: {jobs:,} jobs failed"]
    assert len(receivers.got[0][1].body) < 5000


def test_events_are_gathered_before_a_message_and_between_two(
    ledger: Ledger, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr("snapferry.orchestrator.notify.notifier.time.monotonic", lambda: clock[0])
    one = notifier(receivers, Notify(wait="30s", interval="1h"))
    end(ledger, "a")
    one.round(ledger)
    clock[0] += 20
    end(ledger, "b")
    one.round(ledger)
    before = list(receivers.titles)
    clock[0] += 11
    one.round(ledger)
    end(ledger, "c")
    clock[0] += 600
    one.round(ledger)

    assert before == []
    assert receivers.titles == ["snapferry: 2 jobs failed"]
    assert NotificationLedger(ledger.client).untold(10) == ["c"]


def test_lateness_is_told_though_no_job_and_no_scheduler_runs(
    ledger: Ledger, client: redis.Redis, receivers: Receivers
) -> None:
    freshness = FreshnessLedger(client)
    freshness.expect([Expected("mirror", "nightly", "1h")], replace=True)
    one = notifier(receivers)
    one.round(ledger)
    client.hset("snapferry:mirror:nightly", "since", freshness.now() - 3 * 3600)
    for _ in range(2):
        one.round(ledger)
    end(ledger, "job", State.DONE, schedule="mirror:nightly")
    for _ in range(2):
        one.round(ledger)

    assert receivers.titles == [
        "snapferry: mirror nightly is late",
        "snapferry: mirror nightly has recovered",
    ]
    assert "snapferry scheduler" in receivers.got[0][1].body


def test_a_sender_that_dies_between_the_decision_and_the_sending_loses_nothing(
    ledger: Ledger, client: redis.Redis, receivers: Receivers
) -> None:
    end(ledger, "first")
    receivers.answers = [Killed()]
    with pytest.raises(Killed):
        notifier(receivers).round(ledger)
    die(client)
    waiting = NotificationLedger(client).waiting()

    notifier(receivers).round(ledger)

    assert [one.title for one in waiting] == receivers.titles == ["snapferry: job first failed"]


def test_a_sender_that_dies_before_the_decision_is_recorded_decides_again(
    ledger: Ledger, client: redis.Redis, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(ledger, "first")
    with monkeypatch.context() as patch:

        def killed(*_: Any, **__: Any) -> None:
            raise Killed

        patch.setattr(NotificationLedger, "commit", killed)
        with pytest.raises(Killed):
            notifier(receivers).round(ledger)
    die(client)
    notifier(receivers).round(ledger)

    assert receivers.titles == ["snapferry: job first failed"]


def test_a_sender_that_dies_after_the_sending_sends_again_with_the_same_id_and_only_to_that_receiver(
    ledger: Ledger, client: redis.Redis, receivers: Receivers
) -> None:
    end(ledger, "first")
    receivers.killed_after = [URLS[1]]
    with pytest.raises(Killed):
        notifier(receivers, urls=URLS).round(ledger)
    die(client)
    notifier(receivers, urls=URLS).round(ledger)

    assert [url for url, _ in receivers.got] == [URLS[0], URLS[1], URLS[1]]
    assert len({text.id for _, text in receivers.got}) == 1


def test_one_of_two_senders_sends(ledger: Ledger, receivers: Receivers) -> None:
    other = Receivers()

    def while_the_first_one_sends(url: str, text: Text) -> Sent:
        notifier(other).round(ledger)
        return receivers(url, text)

    end(ledger, "first")
    notifier(while_the_first_one_sends).round(ledger)
    notifier(other).round(ledger)

    assert (len(receivers.got), len(other.got)) == (1, 0)


def test_a_sender_that_lost_its_lock_records_no_decision(ledger: Ledger, client: redis.Redis) -> None:
    end(ledger, "first")
    records = NotificationLedger(client)
    lock = records.lock()
    assert lock.acquire(blocking=False)
    die(client)
    assert records.lock().acquire(blocking=False)
    message = PendingMessage("id", "title", "body", "failure", 5.0)

    with pytest.raises(NotLocked):
        records.commit(lock, message, told=["first"], problems={})

    assert records.waiting() == []
    assert records.untold(5) == ["first"]


def test_a_lock_that_is_lost_while_it_decides_stops_the_decision(
    ledger: Ledger, client: redis.Redis, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    end(ledger, "first")

    def slowly(*arguments: Any) -> Any:
        client.set("snapferry:notify:lock", "another process")
        return compose(*arguments)

    monkeypatch.setattr("snapferry.orchestrator.notify.notifier.compose", slowly)
    notifier(receivers).round(ledger)

    assert receivers.got == []
    assert client.get("snapferry:notify:lock") == "another process"
    assert NotificationLedger(client).untold(5) == ["first"]


def test_a_receiver_that_refuses_gets_the_message_later_and_no_other_waits_for_it(
    ledger: Ledger, receivers: Receivers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one = notifier(receivers, urls=URLS)
    end(ledger, "first")
    receivers.answers = [Sent(False, "connection refused")]
    for _ in range(2):
        one.round(ledger)
    first = [url for url, _ in receivers.got]
    due(ledger)
    one.round(ledger)

    assert first == [URLS[1]]
    assert [url for url, _ in receivers.got] == [URLS[1], URLS[0]]
    assert "notification not sent, trying again in 15 s: connection refused" in caplog.text
    assert not [url for url in URLS if url in caplog.text]


def test_a_receiver_that_never_takes_it_is_given_up_after_a_day_and_that_is_logged(
    ledger: Ledger, receivers: Receivers, caplog: pytest.LogCaptureFixture
) -> None:
    one = notifier(receivers)
    end(ledger, "first")
    receivers.answers = [Sent(False, "no answer within 30 s")] * 99
    for _ in range(len(PAUSES_S) + 3):
        one.round(ledger)
        due(ledger)

    assert 99 - len(receivers.answers) == len(PAUSES_S) + 1
    assert "notification given up: no answer within 30 s" in caplog.text
    assert NotificationLedger(ledger.client).waiting() == []
    assert 20 * 3600 < sum(PAUSES_S) < 24 * 3600


def test_while_too_many_messages_wait_events_are_kept(
    ledger: Ledger, client: redis.Redis, receivers: Receivers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapferry.orchestrator.notify.notifier.MOST_MESSAGES", 2)
    one = notifier(receivers)
    receivers.answers = [Sent(False, "refused")] * 3
    for job in ("a", "b", "c", "d"):
        end(ledger, job)
        one.round(ledger)
    waiting = len(NotificationLedger(client).waiting())
    receivers.answers = []
    for _ in range(2):
        due(ledger)
        one.round(ledger)

    assert waiting == 2
    assert MOST_MESSAGES > 2
    assert receivers.titles == [
        "snapferry: job a failed", "snapferry: job b failed", "snapferry: 2 jobs failed",
    ]  # fmt: skip


def test_a_receiver_that_left_the_configuration_gets_nothing(
    ledger: Ledger, receivers: Receivers, caplog: pytest.LogCaptureFixture
) -> None:
    end(ledger, "first")
    receivers.answers = [Sent(False, "refused")]
    notifier(receivers).round(ledger)
    due(ledger)
    notifier(receivers, urls=URLS[1:]).round(ledger)

    assert receivers.got == []
    assert "its receiver is not in the configuration any more" in caplog.text
    assert NotificationLedger(ledger.client).waiting() == []


def test_what_a_hostile_redis_holds_costs_that_one_record(
    ledger: Ledger, client: redis.Redis, receivers: Receivers
) -> None:
    client.hset(
        "snapferry:notify:outbox", mapping={"a": "{", "b": "[]", "c": "x" * 70_000, "d": '{"left": 5}'}
    )
    client.hset("snapferry:notify:problems", mapping={"job:x": "{}", "mirror:y": "[]", "z": "null"})
    client.set("snapferry:notify:told_at", "9e99")
    client.zadd("snapferry:untold", {"../x": 1, "gone": 2})
    end(ledger, "first")

    notifier(receivers).round(ledger)

    assert receivers.titles == ["snapferry: job first failed"]
    assert NotificationLedger(client).untold(9) == []


def test_each_try_is_counted_by_its_result_and_what_waits_by_its_age(
    ledger: Ledger, receivers: Receivers, client: redis.Redis
) -> None:
    def measured() -> dict[str, float]:
        found: dict[str, float] = {}
        now = FreshnessLedger(client).now()
        ask_notifications(
            client, now, lambda name, value, *label: found.update({" ".join((name, *label)): value})
        )
        return found

    idle = measured()
    one = notifier(receivers)
    receivers.answers = [Sent(False, "busy")] * (1 + len(PAUSES_S))
    end(ledger, "first")
    one.round(ledger)
    refused = measured()
    for _ in PAUSES_S:
        due(ledger)
        one.round(ledger)
    given_up = measured()
    end(ledger, "other")
    one.round(ledger)
    client.hset("snapferry:notify:outbox", mapping={"damaged": "{", "old": '{"made_at": 1.5e9}', "odd": "[]"})
    sent = measured()

    names = ["notifications_total sent", "notifications_total failed", "notifications_total given_up"]
    assert set(idle.values()) == {0}
    assert [refused[name] for name in names] == [0, 1, 0]
    assert refused["notifications_waiting"] == 1
    assert [given_up[name] for name in names] == [0, len(PAUSES_S), 1]
    assert given_up["notification_oldest_waiting_seconds"] == given_up["notifications_waiting"] == 0
    assert [sent[name] for name in names] == [1, len(PAUSES_S), 1]
    assert sent["notifications_waiting"] == 3
    assert sent["notification_oldest_waiting_seconds"] > 1e8
