"""Which jobs are looked after, and which are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from snapferry.orchestrator.driving import reconcile
from snapferry.orchestrator.driving.lost_batches import STALL_S
from snapferry.orchestrator.driving.reconcile import CALLBACK_S, look_at_all, needs_a_look
from snapferry.workers.ledger import Ledger, Standing, State
from snapferry.workers.messages import JobRequest, StoreRef, pack

QUIET = Standing(
    state=State.COPYING,
    paused=False,
    cancelling=False,
    handed=5,
    done=3,
    failed=0,
    expired=(),
    overdue=(),
    held=(),
    leased=0,
    running=0,
    idle_s=1.0,
    heals={},
    stalls=0,
    stalled_done=0,
)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({}, ""),
        ({"idle_s": STALL_S + 1}, "nothing of it moves"),
        ({"idle_s": STALL_S + 1, "leased": 1}, ""),
        ({"idle_s": CALLBACK_S + 1}, ""),
        ({"idle_s": CALLBACK_S + 1, "done": 5}, "its chord did not call back"),
        ({"idle_s": CALLBACK_S - 1, "done": 5}, ""),
        ({"idle_s": CALLBACK_S + 1, "done": 5, "leased": 1}, ""),
        ({"expired": ("plan:1", "plan:2")}, "2 batches whose worker is gone"),
        ({"expired": ("plan:1",), "paused": True}, ""),
        ({"overdue": ("plan:1",)}, "1 batch that nobody tries again"),
        ({"held": ("plan:1",)}, "going on after a pause"),
        ({"held": ("plan:1",), "paused": True}, ""),
        ({"cancelling": True}, "cancelling"),
        ({"cancelling": True, "paused": True}, "cancelling"),
        ({"state": State.QUEUED}, ""),
        ({"state": State.QUEUED, "idle_s": STALL_S + 1}, "nobody planned it"),
        ({"state": State.PLANNING, "idle_s": STALL_S + 1}, "nobody planned it"),
        ({"state": State.QUEUED, "idle_s": STALL_S + 1, "paused": True}, ""),
        ({"state": State.DONE, "idle_s": 9999.0}, ""),
        ({"state": State.FAILED, "expired": ("plan:1",)}, ""),
        ({"state": State.CANCELLED, "cancelling": True}, ""),
        ({"state": State.COMMITTING, "done": 5, "idle_s": CALLBACK_S + 1}, "its chord did not call back"),
    ],
)
def test_what_the_ledger_shows_decides(changed: dict[str, Any], why: str) -> None:
    standing = replace(QUIET, **changed)

    assert needs_a_look(standing, neglected=False, driven=False) == why
    assert needs_a_look(standing, neglected=True, driven=True) == "", "somebody is at it"


def test_a_job_whose_orchestrator_is_gone_is_looked_after_whatever_else() -> None:
    assert needs_a_look(QUIET, neglected=True, driven=False) == "its orchestrator is gone"
    assert needs_a_look(replace(QUIET, paused=True), neglected=True, driven=False)
    assert not needs_a_look(replace(QUIET, state=State.DONE), neglected=True, driven=False)


@pytest.fixture
def ledger(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield Ledger(client, expires_s=3600)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(reconcile, "look_after", lambda _, job_id, why: found.append((job_id, why)))
    return found


def job(job_id: str) -> JobRequest:
    return JobRequest(
        job_id=job_id,
        snapshots=pack(["a" * 64]),
        source=StoreRef(url="/a"),
        destination=StoreRef(url="/b"),
        batch_objects=5,
        batch_bytes=100,
    )


def age(ledger: Ledger, job_id: str, seconds: float) -> None:
    moved = float(ledger.field(job_id, "moved_at"))
    ledger._redis.hset(f"snapferry:job:{job_id}", "moved_at", moved - seconds)


def test_each_job_that_needs_it_is_looked_after_once(ledger: Ledger, looks: list[tuple[str, str]]) -> None:
    app: Any = None
    for job_id in ("fresh", "stale", "ended"):
        ledger.create(job(job_id))
    age(ledger, "stale", STALL_S + 1)
    ledger.advance("ended", State.FAILED)

    assert look_at_all(app, ledger) == [("stale", "nobody planned it")]
    assert look_at_all(app, ledger) == []

    assert looks == [("stale", "nobody planned it")]


def test_a_job_that_waits_in_the_queue_is_not_lost(ledger: Ledger, looks: list[tuple[str, str]]) -> None:
    """However long: no orchestrator has come to it yet."""
    app: Any = None
    ledger.create(job("waits"))
    age(ledger, "waits", 9999)
    ledger._redis.lpush("snapferry.plan", '{"headers": {"root_id": "waits", "id": "waits"}}')

    assert look_at_all(app, ledger) == []


def test_a_job_whose_record_expired_is_forgotten(ledger: Ledger, looks: list[tuple[str, str]]) -> None:
    app: Any = None
    ledger.create(job("gone"))
    ledger._redis.delete("snapferry:job:gone")

    assert look_at_all(app, ledger) == []

    assert ledger.open_jobs() == []
    assert list(ledger.job_ids()) == []


def test_a_job_whose_driver_died_is_looked_after_when_its_lease_is_over(
    ledger: Ledger, looks: list[tuple[str, str]]
) -> None:
    app: Any = None
    ledger.create(job("job"))
    ledger.start_driving("job", "somebody")
    assert look_at_all(app, ledger) == []
    ledger._redis.delete("snapferry:job:job:driver")

    assert look_at_all(app, ledger) == [("job", "its orchestrator is gone")]


def test_no_part_of_an_open_job_expires_before_the_others(
    ledger: Ledger, looks: list[tuple[str, str]]
) -> None:
    """A copy may take longer than a record is kept: what is known of it must not be gone in pieces."""
    app: Any = None
    client = ledger._redis
    ledger.create(job("job"))
    client.rpush("snapferry:job:job:failures", "x")
    client.expire("snapferry:job:job:failures", 50)
    client.set("snapferry:job:job:driver", "x", ex=30)

    look_at_all(app, ledger)

    assert client.ttl("snapferry:job:job") > 3500
    assert client.ttl("snapferry:job:job:failures") > 3500
    assert client.ttl("snapferry:job:job:driver") <= 30, "a lease is no part of the record"
