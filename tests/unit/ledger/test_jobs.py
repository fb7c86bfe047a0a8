"""The record of a job: created once, and never brought back by half."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
from pydantic import ValidationError

from snapferry.stores.hashing import digest
from snapferry.workers.ledger import (
    PLAN,
    Ledger,
    State,
    UnknownJob,
)
from snapferry.workers.messages import VERSION
from tests.unit.ledger.support import IDS, JOB, TWO, deliver, found_missing, objects_in, outcome, request


def test_a_new_job_waits_and_remembers_what_was_asked_for(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)

    assert ledger.create(request())

    status = ledger.status("job")
    assert ledger.spec("job") == request()
    assert (status.state, status.first_snapshot, status.job_id) == (State.QUEUED, IDS[0], "job")
    assert (status.snapshots_total, status.snapshots_settled) == (2, 0)
    assert (status.source, status.destination, status.dry_run) == ("/a", "/b", False)
    assert status.submitted_at == status.moved_at > 0
    assert (status.started_at, status.ended_at) == (0.0, 0.0)
    assert (status.paused, status.cancelling, status.workers, status.error) == (False, False, (), "")


def test_a_job_of_everything_has_no_snapshots_until_they_are_listed(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request(ids=[]).model_copy(update={"everything": True, "dry_run": True}))

    status = ledger.status("job")

    assert (status.first_snapshot, status.snapshots_total, status.dry_run) == ("", 0, True)


def test_a_job_knows_where_the_objects_of_its_source_are(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)
    ledger.create(request())
    apart = request("apart")
    ledger.create(apart.model_copy(update={"source": apart.source.model_copy(update={"objects_url": "/o"})}))

    assert (ledger.status("job").source_objects, ledger.status("apart").source_objects) == ("", "/o")


def test_a_job_is_created_once(ledger: Ledger) -> None:
    other = request(ids=[digest(b"other")])

    assert not ledger.create(other)
    assert ledger.spec("job") == request()
    assert ledger.status("job").state is State.COPYING


QUESTIONS: list[Callable[[Ledger], object]] = [
    lambda ledger: ledger.status("job"),
    lambda ledger: ledger.spec("job"),
    lambda ledger: ledger.field("job", "ids"),
    lambda ledger: ledger.standing("job"),
    lambda ledger: ledger.neglected("job"),
    lambda ledger: ledger.cancel("job"),
    lambda ledger: ledger.pause("job", paused=True),
    lambda ledger: ledger.pause("job", paused=False),
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_after_an_unknown_job_is_an_error_and_makes_none(
    client: redis.Redis, question: Callable[[Ledger], object]
) -> None:
    with pytest.raises(UnknownJob):
        question(Ledger(client, expires_s=3600))

    assert client.keys() == []


def test_no_step_makes_a_job(client: redis.Redis) -> None:
    ledger = Ledger(client, expires_s=3600)

    assert not ledger.advance("job", State.COPYING)
    assert not ledger.set_fields("job", batches_handed=1)
    assert ledger.start_driving("job", "me") == -1
    assert not ledger.stop_driving("job", "me")
    ledger.keep_driving("job", "me")
    ledger.note_retry("job", "plan:0", 10)
    ledger.remove_working_keys("job")
    assert ledger.driver("job") == ""
    assert ledger.unaccounted("job", PLAN, range(2)) == [0, 1]
    assert (ledger.bitmap("job", "failed"), ledger.groups("job"), ledger.failed_by_class("job")) == (
        b"",
        {},
        {},
    )
    assert client.keys() == []


def test_a_batch_that_ends_after_its_job_expired_does_not_bring_half_a_job_back(
    ledger: Ledger, client: redis.Redis
) -> None:
    client.flushall()

    assert ledger.begin(TWO, "one").stopped
    assert ledger.progress(TWO, "one", objects=1, size_bytes=1)
    assert not ledger.account(TWO, outcome(TWO, [0, 1], failed=[1]))
    ledger.release(TWO, "one")
    ledger.release(TWO, "one", again_in_s=5)

    with pytest.raises(UnknownJob):
        ledger.status("job")
    assert client.keys() == []


@pytest.mark.parametrize("end", [State.FAILED, None], ids=["failed", "expired"])
def test_a_batch_that_looks_at_its_destination_after_its_job_ended_leaves_nothing_behind(
    ledger: Ledger, client: redis.Redis, end: State | None
) -> None:
    """It was begun before; what it finds missing is of no interest any more."""
    ledger.begin(TWO, "one")
    if end:
        ledger.advance("job", end)
        ledger.remove_working_keys("job")
    else:
        client.flushall()
    before = sorted(client.keys())

    found_missing(ledger, TWO, [0, 1])

    assert sorted(client.keys()) == before


def test_a_batch_that_is_handed_out_again_after_its_job_expired_does_not_bring_half_a_job_back(
    ledger: Ledger, client: redis.Redis
) -> None:
    client.flushall()

    ledger.note_requeued("job", ["plan:0"])

    assert client.keys() == []


def test_a_batch_whose_accounting_breaks_off_is_not_taken_for_done(
    ledger: Ledger, client: redis.Redis
) -> None:
    """Its mark is set last: what is counted twice is a wrong number, what is never copied is a lost object."""
    client.set(f"{JOB}:failures", "not a list")

    with pytest.raises(redis.ResponseError):
        deliver(ledger, TWO, failed=[1])

    assert ledger.unaccounted("job", PLAN, range(3)) == [0, 1, 2]
    assert not ledger.begin(TWO, "one").accounted
    client.delete(f"{JOB}:failures")
    assert deliver(ledger, TWO, failed=[1])
    assert ledger.unaccounted("job", PLAN, range(3)) == [1, 2]
    assert objects_in(ledger, "failed") == [1]


def test_a_request_of_another_version_is_refused(ledger: Ledger, client: redis.Redis) -> None:
    other = request().model_dump_json().replace(f'"version":{VERSION}', f'"version":{VERSION + 1}')
    client.hset(JOB, "request", other)

    with pytest.raises(ValidationError):
        ledger.spec("job")
