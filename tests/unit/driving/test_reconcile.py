"""Which open jobs get a drive, and which are left alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis

from snapferry.orchestrator.driving import reconcile
from snapferry.orchestrator.driving.reconcile import CALLBACK_S, DriveReason, why_drive
from snapferry.orchestrator.driving.reconcile import reconcile as reconcile_all
from snapferry.orchestrator.driving.steps.requeue import STALL_S
from snapferry.workers.ledger import Ledger, Standing, State
from snapferry.workers.messages import JobSpec, StoreRef, encode_addresses

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
        ({}, None),
        ({"idle_s": STALL_S + 1}, DriveReason.IDLE),
        ({"idle_s": STALL_S + 1, "leased": 1}, None),
        ({"idle_s": CALLBACK_S + 1}, None),
        ({"idle_s": CALLBACK_S + 1, "done": 5}, DriveReason.NO_CALLBACK),
        ({"idle_s": CALLBACK_S - 1, "done": 5}, None),
        ({"idle_s": CALLBACK_S + 1, "done": 5, "leased": 1}, None),
        ({"expired": ("plan:1", "plan:2")}, DriveReason.WORKER_GONE),
        ({"expired": ("plan:1",), "paused": True}, None),
        ({"overdue": ("plan:1",)}, DriveReason.RETRY_LOST),
        ({"held": ("plan:1",)}, DriveReason.RESUMING),
        ({"held": ("plan:1",), "paused": True}, None),
        ({"cancelling": True}, DriveReason.CANCELLING),
        ({"cancelling": True, "paused": True}, DriveReason.CANCELLING),
        ({"state": State.QUEUED}, None),
        ({"state": State.QUEUED, "idle_s": STALL_S + 1}, DriveReason.NOT_PLANNED),
        ({"state": State.PLANNING, "idle_s": STALL_S + 1}, DriveReason.NOT_PLANNED),
        ({"state": State.QUEUED, "idle_s": STALL_S + 1, "paused": True}, None),
        ({"state": State.DONE, "idle_s": 9999.0}, None),
        ({"state": State.FAILED, "expired": ("plan:1",)}, None),
        ({"state": State.CANCELLED, "cancelling": True}, None),
        ({"state": State.COMMITTING, "done": 5, "idle_s": CALLBACK_S + 1}, DriveReason.NO_CALLBACK),
    ],
)
def test_what_the_ledger_shows_decides(changed: dict[str, Any], why: DriveReason | None) -> None:
    standing = replace(QUIET, **changed)

    assert why_drive(standing, neglected=False, driven=False) == why
    assert why_drive(standing, neglected=True, driven=True) is None, "somebody is at it"


def test_a_job_whose_orchestrator_is_gone_is_driven_whatever_else() -> None:
    assert why_drive(QUIET, neglected=True, driven=False) == DriveReason.ORCHESTRATOR_GONE
    assert why_drive(replace(QUIET, paused=True), neglected=True, driven=False)
    assert not why_drive(replace(QUIET, state=State.DONE), neglected=True, driven=False)


@pytest.fixture
def ledger(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield Ledger(client, expires_s=3600)


@pytest.fixture
def drives(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    monkeypatch.setattr(reconcile, "queue_drive", lambda _, job_id, why: found.append((job_id, why)))
    return found


def job(job_id: str) -> JobSpec:
    return JobSpec(
        job_id=job_id,
        snapshots=encode_addresses(["a" * 64]),
        source=StoreRef(url="/a"),
        destination=StoreRef(url="/b"),
        batch_objects=5,
        batch_bytes=100,
    )


def age(ledger: Ledger, job_id: str, seconds: float) -> None:
    moved = float(ledger.field(job_id, "moved_at"))
    ledger._redis.hset(f"snapferry:job:{job_id}", "moved_at", moved - seconds)


def test_each_job_that_needs_it_is_driven_once(ledger: Ledger, drives: list[tuple[str, str]]) -> None:
    app: Any = None
    for job_id in ("fresh", "stale", "ended"):
        ledger.create(job(job_id))
    age(ledger, "stale", STALL_S + 1)
    ledger.advance("ended", State.FAILED)

    assert reconcile_all(app, ledger) == [("stale", DriveReason.NOT_PLANNED)]
    assert reconcile_all(app, ledger) == []

    assert drives == [("stale", DriveReason.NOT_PLANNED)]


def test_a_job_that_waits_in_the_queue_is_not_lost(ledger: Ledger, drives: list[tuple[str, str]]) -> None:
    """However long: no orchestrator has come to it yet."""
    app: Any = None
    ledger.create(job("waits"))
    age(ledger, "waits", 9999)
    ledger._redis.lpush("snapferry.plan", '{"headers": {"root_id": "waits", "id": "waits"}}')

    assert reconcile_all(app, ledger) == []


def test_a_job_whose_record_expired_is_forgotten(ledger: Ledger, drives: list[tuple[str, str]]) -> None:
    app: Any = None
    ledger.create(job("gone"))
    ledger._redis.delete("snapferry:job:gone")

    assert reconcile_all(app, ledger) == []

    assert ledger.open_jobs() == []
    assert list(ledger.job_ids()) == []


def test_a_job_whose_driver_died_is_driven_when_its_lease_is_over(
    ledger: Ledger, drives: list[tuple[str, str]]
) -> None:
    app: Any = None
    ledger.create(job("job"))
    ledger.start_driving("job", "somebody")
    assert reconcile_all(app, ledger) == []
    ledger._redis.delete("snapferry:job:job:driver")

    assert reconcile_all(app, ledger) == [("job", DriveReason.ORCHESTRATOR_GONE)]


def test_no_part_of_an_open_job_expires_before_the_others(
    ledger: Ledger, drives: list[tuple[str, str]]
) -> None:
    """A copy may take longer than a record is kept: what is known of it must not be gone in pieces."""
    app: Any = None
    client = ledger._redis
    ledger.create(job("job"))
    client.rpush("snapferry:job:job:failures", "x")
    client.expire("snapferry:job:job:failures", 50)
    client.set("snapferry:job:job:driver", "x", ex=30)

    reconcile_all(app, ledger)

    assert client.ttl("snapferry:job:job") > 3500
    assert client.ttl("snapferry:job:job:failures") > 3500
    assert client.ttl("snapferry:job:job:driver") <= 30, "a lease is no part of the record"
