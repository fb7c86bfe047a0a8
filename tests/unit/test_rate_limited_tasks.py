"""Batches that wait in a worker under a limit."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.worker import state
from kombu.utils.limits import TokenBucket

from snapferry.workers.ledger import Ledger, State
from snapferry.workers.lifecycle.rate_limited_tasks import (
    COPY,
    ExpiredRateLimits,
    ReservationReporter,
    reserved_requests,
)
from snapferry.workers.messages import BatchMessage, JobSpec, StoreRef
from snapferry.workers.outcome import BatchOutcome

HERE = StoreRef(url="/srv/store")


class Request:
    """What Celery has of a message that it took from the queue."""

    name = COPY

    def __init__(self, number: int) -> None:
        self.args: Any = [{"job_id": "job", "series": "plan", "number": number}]
        self.time_start: float | None = None
        self.acknowledged = False
        self.given_back = 0

    def reject(self, *, requeue: bool) -> None:
        assert requeue
        self.given_back += 1


@pytest.fixture
def ledger(redis_url: str) -> Iterator[Ledger]:
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        found = Ledger(client, expires_s=3600)
        found.create(JobSpec(job_id="job", source=HERE, destination=HERE, batch_objects=10, batch_bytes=999))
        found.advance("job", State.COPYING, objects_total=4, bytes_total=4, batches_total=4)
        yield found


def batch(number: int) -> BatchMessage:
    return BatchMessage(
        job_id="job", series="plan", number=number, source=HERE, destination=HERE,
        addresses="", sizes=(), positions=(0,),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def celery_holds_nothing() -> Iterator[None]:
    yield
    state.reset_state()


def told(ledger: Ledger, *requests: Request) -> int:
    """Tell the ledger of *requests*, which Celery has scheduled."""
    for request in requests:
        state.scheduled_requests.add(request)
    return ReservationReporter(lambda: ledger, lambda: reserved_requests(ExpiredRateLimits())).report(ledger)


def test_what_waits_is_not_lost_and_does_not_run(ledger: Ledger) -> None:
    requests = Request(0), Request(1)

    assert told(ledger, *requests) == 2

    standing = ledger.standing("job")
    assert (standing.leased, standing.running, standing.overdue) == (2, 0, ())


def test_nothing_is_told_of_what_was_begun_or_given_back(ledger: Ledger) -> None:
    begun, back = Request(0), Request(1)
    begun.time_start = 1.0
    back.acknowledged = True

    assert told(ledger, begun, back) == 0

    assert ledger.standing("job").leased == 0


def test_every_collection_of_celerys_counts_and_no_other_task(ledger: Ledger) -> None:
    reserved, scheduled, limited, other = Request(0), Request(1), Request(2), Request(3)
    other.name = "snapferry.plan_job"
    state.reserved_requests.update([reserved, other])
    state.scheduled_requests.update([scheduled, limited])
    limits = ExpiredRateLimits()
    bucket = filled(limited, Request(4))
    limits.requeue(consumer(bucket))

    found = reserved_requests(limits)

    assert sorted(request.args[0]["number"] for request in found) == [0, 1, 2, 4]


def test_what_celery_dropped_is_held_no_longer_though_the_request_lives_on(ledger: Ledger) -> None:
    """As after the connection to the broker broke: a cancelled timer still refers to the requests."""
    alive = [Request(0), Request(1)]
    assert told(ledger, *alive) == 2

    state.scheduled_requests.clear()

    assert told(ledger) == 0
    assert all(request.time_start is None and not request.acknowledged for request in alive)


def test_a_set_that_changes_while_it_is_copied_is_copied_again() -> None:
    class Changes(set[Request]):
        left = 3

        def __iter__(self) -> Iterator[Request]:
            self.left -= 1
            if self.left > 0:
                raise RuntimeError("Set changed size during iteration")
            return super().__iter__()

    changing = Changes([Request(0)])
    before, state.reserved_requests = state.reserved_requests, changing
    try:
        assert len(reserved_requests(ExpiredRateLimits())) == 1
    finally:
        state.reserved_requests = before


def test_of_a_batch_that_is_accounted_for_nothing_is_noted(ledger: Ledger) -> None:
    """A lease of its second delivery would keep the job from its end."""
    ledger.begin(batch(0), "somebody")
    ledger.account(batch(0), BatchOutcome())
    ledger.release(batch(0), "somebody")

    told(ledger, Request(0))

    assert ledger.standing("job").leased == 0


def test_a_batch_that_another_runs_keeps_its_lease(ledger: Ledger) -> None:
    ledger.begin(batch(0), "somebody")

    told(ledger, Request(0))

    standing = ledger.standing("job")
    assert (standing.leased, standing.running) == (1, 1)


@pytest.mark.parametrize(
    "arguments", [[], ["odd"], [{"job_id": "job", "number": "9" * 30, "series": "plan"}]]
)
def test_a_message_of_another_version_does_no_harm(ledger: Ledger, arguments: list[Any]) -> None:
    request = Request(0)
    request.args = arguments

    assert told(ledger, request, Request(1)) == 2

    assert ledger.standing("job").leased >= 1


def consumer(bucket: TokenBucket | None, connection: str = "the first") -> Any:
    return SimpleNamespace(task_buckets={COPY: bucket}, connection=connection)


def filled(*requests: Request) -> TokenBucket:
    bucket = TokenBucket(1 / 3600)
    for request in requests:
        bucket.add((request, 1))
    return bucket


def test_what_waits_under_a_limit_that_is_in_force_stays() -> None:
    limits, request = ExpiredRateLimits(), Request(0)
    there = consumer(filled(request))

    limits.requeue(there)
    limits.requeue(there)

    assert request.given_back == 0
    assert len(there.task_buckets[COPY].contents) == 1


@pytest.mark.parametrize("present", [None, TokenBucket(10)], ids=["lifted", "changed"])
def test_what_waits_under_a_limit_that_is_in_force_no_longer_goes_back(present: TokenBucket | None) -> None:
    limits, requests = ExpiredRateLimits(), [Request(0), Request(1)]
    old = filled(*requests)
    limits.requeue(consumer(old))

    limits.requeue(consumer(present))
    limits.requeue(consumer(present))

    assert [request.given_back for request in requests] == [1, 1]
    assert not old.contents


def test_what_comes_to_an_old_limit_late_goes_back_too() -> None:
    """A batch that waited for another try when the limit was changed is put into the old bucket after it."""
    limits, request = ExpiredRateLimits(), Request(0)
    old = filled()
    limits.requeue(consumer(old))
    limits.requeue(consumer(None))
    old.add((request, 1))

    limits.requeue(consumer(None))

    assert request.given_back == 1


def test_what_came_over_a_connection_that_is_gone_is_dropped(ledger: Ledger) -> None:
    """It can be neither acknowledged nor returned; the ledger misses it and hands it out again."""
    limits, request = ExpiredRateLimits(), Request(0)
    old = filled(request)
    limits.requeue(consumer(old))

    limits.requeue(consumer(None, "the second"))
    limits.requeue(consumer(None, "the second"))

    assert request.given_back == 0
    assert not old.contents
    assert not reserved_requests(limits)
